//! The requests of the official SDKs for Ruby, Java, Go, PHP, Android and Swift, byte for byte as their code forms
//! them. Those for Python, Node and browsers run themselves, in `sdks` and
//! `browser`.
//!
//! Each was read from the SDK's repository at the commit that stands with it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use mixpanel_groups_emulator::Emulator;
use serde_json::{Value, json};

use crate::bodies::gzip;
use crate::wire::{connect, read_response};

/// What an SDK sends: a head up to the length of the body, and a body made of JSON.
struct Sdk {
    head: &'static str,
    body: fn(&str) -> Vec<u8>,
    /// The body of a reply that it takes for success.
    success: fn(&str) -> bool,
}

/// Sends each JSON in a request of its own, over one connection, as a program does that uses the SDK.
#[track_caller]
fn send(sdk: &Sdk, requests: &[&str]) -> Emulator {
    use std::io::Write;
    let emulator = Emulator::start().unwrap();
    let mut stream = connect(&emulator);
    for json in requests {
        let body = (sdk.body)(json);
        let len = body.len();
        let head = format!("{}Content-Length: {len}\r\n\r\n", sdk.head);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        let response = read_response(&mut stream);
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{response}");
        assert!((sdk.success)(body), "{json}: {response}");
    }
    emulator
}

/// What all of them end with.
fn acme() -> Value {
    json!({"name": "Acmé & <Söhne>/+", "founded": 1999, "tags": ["b"]})
}

#[track_caller]
fn assert_acme_alone(emulator: &Emulator, acme: Value) {
    assert_eq!(emulator.profile("company", "acme").unwrap(), acme);
    assert_eq!(emulator.profiles().len(), 1, "globex was deleted");
    assert!(
        emulator
            .requests()
            .iter()
            .all(|request| !request.is_failed())
    );
}

/// A form's value with every character escaped that `URLEncoder` and `encode_www_form` escape of base64.
fn form(json: &str) -> String {
    let base64 = BASE64_STANDARD.encode(json);
    let escaped = base64.replace('+', "%2B").replace('/', "%2F");
    format!("data={}", escaped.replace('=', "%3D"))
}

/// mixpanel-ruby 3.3.0, commit 35be7bad87dafbc0f0861a287fd67fa03668051d:
/// `lib/mixpanel-ruby/groups.rb` line 170 (`update`) and `lib/mixpanel-ruby/consumer.rb` line 101
/// (`send!`, `request`): one update a request, base64 in a form, `verbose=1`; a `status` of 1 is success.
#[test]
fn ruby() {
    let sdk = Sdk {
        head: "POST /groups HTTP/1.1\r\n\
               Content-Type: application/x-www-form-urlencoded\r\n\
               Accept-Encoding: gzip;q=1.0,deflate;q=0.6,identity;q=0.3\r\n\
               Accept: */*\r\nUser-Agent: Ruby\r\nHost: 127.0.0.1\r\n",
        body: |json| (form(json) + "&verbose=1").into_bytes(),
        success: |body| serde_json::from_str::<Value>(body).unwrap()["status"] == 1,
    };
    let emulator = send(
        &sdk,
        &[
            r#"{"$token":"TOKEN","$time":1795894673123,"$group_key":"company","$group_id":"acme","$set":{"name":"Acmé & <Söhne>/+","old":1,"since":"2026-01-02T03:04:05"}}"#,
            r#"{"$token":"TOKEN","$time":1795894673124,"$group_key":"company","$group_id":"acme","$set_once":{"founded":1999},"$ip":"127.0.0.1"}"#,
            r#"{"$token":"TOKEN","$time":1795894673125,"$group_key":"company","$group_id":"acme","$union":{"tags":["a","b"]}}"#,
            r#"{"$token":"TOKEN","$time":1795894673126,"$group_key":"company","$group_id":"acme","$remove":{"tags":"a"}}"#,
            r#"{"$token":"TOKEN","$time":1795894673127,"$group_key":"company","$group_id":"acme","$unset":["old","since"]}"#,
            r#"{"$token":"TOKEN","$time":1795894673128,"$group_key":"company","$group_id":"globex","$set":{"a":1},"$ignore_time":true}"#,
            r#"{"$token":"TOKEN","$time":1795894673129,"$group_key":"company","$group_id":"globex","$delete":""}"#,
        ],
    );
    assert_acme_alone(&emulator, acme());
}

const JAVA: [&str; 2] = [
    r#"[{"$group_key":"company","$set":{"name":"Acmé & <Söhne>\/+","old":1},"$time":1795894673123,"$token":"TOKEN","$group_id":"acme"},{"$group_key":"company","$set_once":{"founded":1999},"$time":1795894673123,"$token":"TOKEN","$group_id":"acme"},{"$group_key":"company","$union":{"tags":["a","b"]},"$time":1795894673124,"$token":"TOKEN","$group_id":"acme"}]"#,
    r#"[{"$group_key":"company","$remove":{"tags":"a"},"$time":1795894673125,"$token":"TOKEN","$group_id":"acme"},{"$group_key":"company","$unset":["old"],"$time":1795894673125,"$token":"TOKEN","$group_id":"acme","$ignore_time":true},{"$group_key":"company","$set":{"a":1},"$time":1795894673125,"$token":"TOKEN","$group_id":"globex"},{"$group_key":"company","$delete":{},"$time":1795894673126,"$token":"TOKEN","$group_id":"globex"}]"#,
];

/// mixpanel-java 1.7.0, commit 5f5c367c9465290035860995d9096a940eb6a3c5:
/// `src/main/java/com/mixpanel/mixpanelapi/MessageBuilder.java` line 826 (`groupMessage`; the members are
/// in the order of a hash map, and `$delete` is an empty object) and `MixpanelAPI.java` lines 343 and
/// 356 (`encodeDataString`, `sendData`): a list in base64 in a form; the body `1` is success.
#[test]
fn java() {
    let sdk = Sdk {
        head: "POST /groups?ip=0 HTTP/1.1\r\n\
               Content-Type: application/x-www-form-urlencoded;charset=utf8\r\n\
               User-Agent: Java/21.0.2\r\nHost: 127.0.0.1\r\n\
               Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2\r\n\
               Connection: keep-alive\r\n",
        body: |json| form(json).into_bytes(),
        success: |body| body == "1",
    };
    assert_acme_alone(&send(&sdk, &JAVA), acme());
}

/// The same with `useGzipCompression`: the form is compressed.
#[test]
fn java_with_gzip() {
    let sdk = Sdk {
        head: "POST /groups?ip=0 HTTP/1.1\r\n\
               Content-Type: application/x-www-form-urlencoded;charset=utf8\r\n\
               Content-Encoding: gzip\r\n\
               User-Agent: Java/21.0.2\r\nHost: 127.0.0.1\r\n\
               Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2\r\n\
               Connection: keep-alive\r\n",
        body: |json| gzip(form(json).as_bytes()),
        success: |body| body == "1",
    };
    assert_acme_alone(&send(&sdk, &JAVA), acme());
}

/// mixpanel-go 2.0.0-beta.2, commit fd9efa0a19ec8c90d4f146ece3f80a5017ceb37e: `ingestion.go` line 449 and
/// on (`GroupSet` and the others; the addresses end in fragments, which are not sent, and `$delete` is the
/// text `null`) and `http.go` line 247 (`doPeopleRequest`): a list of one update as JSON, in which Go
/// escapes `&`, `<` and `>`; a number other than 0 is success.
#[test]
fn go() {
    let sdk = Sdk {
        head: "POST /groups HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Go-http-client/1.1\r\n\
               Accept: text/plain\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n",
        body: |json| json.as_bytes().to_vec(),
        success: |body| body.parse::<i64>().is_ok_and(|code| code != 0),
    };
    let emulator = send(
        &sdk,
        &[
            r#"[{"$token":"TOKEN","$group_key":"company","$group_id":"acme","$set":{"name":"Acmé \u0026 \u003cSöhne\u003e/+","old":1}}]"#,
            r#"[{"$token":"TOKEN","$group_key":"company","$group_id":"acme","$set_once":{"founded":1999}}]"#,
            r#"[{"$token":"TOKEN","$group_key":"company","$group_id":"acme","$union":{"tags":["a","b"]}}]"#,
            r#"[{"$token":"TOKEN","$group_key":"company","$group_id":"acme","$remove":{"tags":"a"}}]"#,
            r#"[{"$token":"TOKEN","$group_key":"company","$group_id":"acme","$unset":["old"]}]"#,
            r#"[{"$token":"TOKEN","$group_key":"company","$group_id":"globex","$set":{"a":1}}]"#,
            r#"[{"$token":"TOKEN","$group_key":"company","$group_id":"globex","$delete":"null"}]"#,
        ],
    );
    assert_acme_alone(&emulator, acme());
}

/// The members `old` stays, since this SDK has no `$unset` for groups.
const PHP: [&str; 2] = [
    r#"[{"$token":"TOKEN","$group_key":"company","$group_id":"acme","$time":1795894673.1234,"$set":{"name":"Acm\u00e9 & <S\u00f6hne>\/+","old":1}},{"$token":"TOKEN","$group_key":"company","$group_id":"acme","$time":1795894673.1235,"$set_once":{"founded":1999}}]"#,
    r#"[{"$token":"TOKEN","$group_key":"company","$group_id":"acme","$time":1795894673.1236,"$union":{"tags":["a","b"]}},{"$token":"TOKEN","$group_key":"company","$group_id":"acme","$time":1795894673.1237,"$remove":{"tags":"a"},"$ignore_time":true},{"$token":"TOKEN","$group_key":"company","$group_id":"globex","$time":1795894673.1238,"$set":{"a":1}},{"$token":"TOKEN","$group_key":"company","$group_id":"globex","$time":1795894673.1239,"$delete":""}]"#,
];

fn acme_of_php() -> Value {
    let mut acme = acme();
    acme["old"] = 1.into();
    acme
}

/// The base64 as it is: a `+` in it is not escaped.
fn form_of_php(json: &str) -> Vec<u8> {
    let body = format!("data={}", BASE64_STANDARD.encode(json));
    body.into_bytes()
}

/// mixpanel-php, commit 4b0fafacf2129eff5d50721e129b07f0c32687e7: `lib/Producers/MixpanelGroups.php`
/// line 18 (`_constructPayload`) and `lib/ConsumerStrategies/CurlConsumer.php` line 124 (`_execute`): a
/// list in base64 in a form; the body `1` is success.
#[test]
fn php_with_curl() {
    let sdk = Sdk {
        head: "POST /groups HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\
               Content-Type: application/x-www-form-urlencoded\r\n",
        body: form_of_php,
        success: |body| body.trim() == "1",
    };
    assert_acme_alone(&send(&sdk, &PHP), acme_of_php());
}

/// The same with `lib/ConsumerStrategies/SocketConsumer.php` line 116 (`persist`), the other of its ways
/// to send; it writes `Content-length`, and reads the status alone.
#[test]
fn php_with_a_socket() {
    let sdk = Sdk {
        head: "POST /groups HTTP/1.1\r\nHost: 127.0.0.1\r\n\
               Content-Type: application/x-www-form-urlencoded\r\nAccept: application/json\r\n",
        body: form_of_php,
        success: |_| true,
    };
    assert_acme_alone(&send(&sdk, &PHP), acme_of_php());
}

const MOBILE: [&str; 2] = [
    r#"[{"$set":{"name":"Acmé & <Söhne>\/+","old":1},"$token":"TOKEN","$time":1795894673123,"$group_key":"company","$group_id":"acme","$mp_metadata":{"$mp_event_id":"b5e1f3","$mp_session_id":"7c0d","$mp_session_seq_id":0,"$mp_session_start_sec":1795894600}},{"$set_once":{"founded":1999},"$token":"TOKEN","$time":1795894673124,"$group_key":"company","$group_id":"acme","$mp_metadata":{"$mp_event_id":"b5e1f4","$mp_session_id":"7c0d","$mp_session_seq_id":1,"$mp_session_start_sec":1795894600}}]"#,
    r#"[{"$union":{"tags":["a","b"]},"$token":"TOKEN","$time":1795894673125,"$group_key":"company","$group_id":"acme","$mp_metadata":{"$mp_event_id":"b5e1f5","$mp_session_id":"7c0d","$mp_session_seq_id":2,"$mp_session_start_sec":1795894600}},{"$remove":{"tags":"a"},"$token":"TOKEN","$time":1795894673126,"$group_key":"company","$group_id":"acme","$mp_metadata":{"$mp_event_id":"b5e1f6","$mp_session_id":"7c0d","$mp_session_seq_id":3,"$mp_session_start_sec":1795894600}},{"$unset":["old"],"$token":"TOKEN","$time":1795894673127,"$group_key":"company","$group_id":"acme","$mp_metadata":{"$mp_event_id":"b5e1f7","$mp_session_id":"7c0d","$mp_session_seq_id":4,"$mp_session_start_sec":1795894600}}]"#,
];

/// mixpanel-android, commit ce46b763b9c25e18d424d39cda303b123f79d3cb, under
/// `analytics/src/main/java/com/mixpanel/android`: `mpmetrics/MixpanelAPI.java` line 2878 (`stdGroupMessage`),
/// `mpmetrics/AnalyticsMessages.java` line 645 (`sendData`) and `util/HttpService.java` line 412: a list in base64 in a
/// form, from the Android emulator, which has the host's 127.0.0.1 as 10.0.2.2. Any reply is success.
#[test]
fn android() {
    let sdk = Sdk {
        head: "POST /groups/?ip=1 HTTP/1.1\r\n\
               Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n\
               User-Agent: Dalvik/2.1.0 (Linux; U; Android 14; sdk_gphone64_x86_64)\r\n\
               Host: 10.0.2.2:8080\r\nConnection: Keep-Alive\r\nAccept-Encoding: gzip\r\n",
        body: |json| form(json).into_bytes(),
        success: |body| body == "1",
    };
    assert_eq!(
        send(&sdk, &MOBILE).profile("company", "acme").unwrap(),
        acme()
    );
}

/// mixpanel-swift, commit 8399b37fca5717ba8701e0d2af26b98ce48bcaf3: `Sources/Group.swift` line 36
/// (`addGroupRecordToQueueWithAction`), `Sources/SessionMetadata.swift` line 33 and `Sources/FlushRequest.swift` line 22: a
/// list as JSON; the body `1` is success.
#[test]
fn swift() {
    let sdk = Sdk {
        head: "POST /groups/?ip=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n\
               Connection: keep-alive\r\nAccept: */*\r\nUser-Agent: App/1 CFNetwork/1494.0.7 Darwin/23.4.0\r\n\
               Accept-Encoding: gzip, deflate\r\n",
        body: |json| json.as_bytes().to_vec(),
        success: |body| body == "1",
    };
    assert_eq!(
        send(&sdk, &MOBILE).profile("company", "acme").unwrap(),
        acme()
    );
}
