//! The client against the emulator: batches, limits, responses, settings.

use std::collections::HashSet;
use std::time::Duration;

use mixpanel_groups::{Client, Compression, Error, ErrorKind, Group, RetryPolicy};
use mixpanel_groups_emulator::{Emulator, Fault};
use proptest::prelude::*;
use serde_json::{Value, json};

fn client(emulator: &Emulator) -> Client {
    Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .retry(RetryPolicy::none())
        .build()
        .unwrap()
}

fn company(id: impl std::fmt::Display) -> Group<'static> {
    Group::new("company", id.to_string())
}

/// The updates of each request that the emulator received.
fn bodies(emulator: &Emulator) -> Vec<Vec<Value>> {
    let requests = emulator.requests();
    requests
        .iter()
        .map(|request| serde_json::from_str(&request.body).unwrap())
        .collect()
}

#[test]
fn one_update_needs_no_list() {
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator);
    assert_eq!(client.send(company("acme").delete()).unwrap().accepted, 1);
    assert_eq!(client.send([company("acme").delete()]).unwrap().accepted, 1);
}

#[test]
fn a_request_is_as_documented() {
    let emulator = Emulator::start().unwrap();
    let report = client(&emulator)
        .send([company("acme").set(json!({"plan": "free"}))])
        .unwrap();
    assert_eq!((report.sent, report.accepted, report.requests), (1, 1, 1));
    let requests = emulator.requests();
    let [request] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!(request.method, "POST");
    assert_eq!(request.path, "/groups");
    assert_eq!(request.query, "ip=0&strict=1&verbose=1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("content-encoding"), None);
    assert!(
        request
            .header("user-agent")
            .unwrap()
            .starts_with("mixpanel-groups/0.")
    );
    assert_eq!(
        request.body,
        r#"[{"$token":"TOKEN","$group_key":"company","$group_id":"acme","$set":{"plan":"free"}}]"#
    );
    assert_eq!(report.bytes, request.body.len() as u64);
}

#[test]
fn ten_thousand_updates_from_an_iterator() {
    let emulator = Emulator::start().unwrap();
    let updates = (0..10_000).map(|id| company(id).set(json!({"number": id})));
    let report = client(&emulator).send(updates).unwrap();
    assert_eq!(
        (report.sent, report.accepted, report.requests),
        (10_000, 10_000, 5)
    );
    assert_eq!(report.rejected, []);
    for id in 0..10_000 {
        let profile = emulator.profile("company", &id.to_string()).unwrap();
        assert_eq!(profile, json!({"number": id}));
    }
}

#[test]
fn nothing_to_say_is_not_sent() {
    let emulator = Emulator::start().unwrap();
    let acme = company("acme");
    let empty = [
        acme.set(json!({})),
        acme.set(json!({"gone": null})),
        acme.set(None::<()>),
        acme.union(json!({"list": []})),
        acme.union(json!({"list": [null]})),
        acme.unset([""; 0]),
        acme.remove("list", None::<()>),
    ];
    let report = client(&emulator).send(empty).unwrap();
    assert_eq!(report, Default::default());
    assert!(emulator.requests().is_empty());
}

#[test]
fn what_cannot_be_sent_is_rejected_by_name_and_the_rest_goes_on() {
    let emulator = Emulator::start().unwrap();
    let unserializable = std::collections::BTreeMap::from([((1, 2), 3)]);
    let acme = company("acme");
    let updates = [
        acme.set(json!({"a": 1})),
        company("").set(json!({"a": 1})),
        company("big").set(json!({"text": "x".repeat(1_000_000)})),
        acme.set(json!({"": 1})),
        acme.set(json!({"é".repeat(256): 1})),
        acme.set(json!({"é".repeat(255): 1})),
        acme.set(json!({"keys": 1})),
        acme.set(std::collections::BTreeMap::from([("bad", &unserializable)])),
        acme.set(17),
        acme.union(json!({"tags": "text"})),
        acme.union(json!({"tags": [{}]})),
        acme.remove("tags", ["a", "b"]),
        Group::new("", "acme").delete(),
        acme.clone().in_company("").delete(),
        Group::new("$user_id", "someone").delete(),
        acme.set(json!({"b": 2})),
    ];
    let report = client(&emulator).send(updates).unwrap();
    let rejected: Vec<_> = report.rejected.iter().map(ToString::to_string).collect();
    assert_eq!(
        rejected,
        [
            r#"record 1, $set of company "": "$group_id": the id is empty"#,
            r#"record 2, $set of company "big": record is 1000078 bytes; the limit is 1000000"#,
            r#"record 3, $set of company "acme": the property's name is empty"#,
            &format!(
                r#"record 4, $set of company "acme": "{}"…: the property's name is longer than 255 characters"#,
                "é".repeat(255)
            ),
            r#"record 7, $set of company "acme": "bad": key must be a string"#,
            r#"record 8, $set of company "acme": expected a map or a struct of properties"#,
            r#"record 9, $union of company "acme": "tags": `$union` takes a list"#,
            r#"record 10, $union of company "acme": "tags": `$union` adds text or numbers only"#,
            r#"record 11, $remove of company "acme": "tags": `$remove` takes one item, not a list or an object"#,
            r#"record 12, $delete of  "acme": "$group_key": the group key is empty"#,
            r#"record 13, $delete of company "acme": "$company_id": the id is empty"#,
            r#"record 14, $delete of $user_id "someone": "$company_id": an update of $user_id needs a company id: use `in_company`"#,
        ]
    );
    assert!(report.rejected.iter().all(|rejection| !rejection.by_server));
    assert_eq!((report.sent, report.accepted), (4, 4));
    assert_eq!(
        emulator.profile("company", "acme").unwrap().get("b"),
        Some(&json!(2))
    );
}

#[test]
fn failed_records_are_mapped_back_over_several_requests() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Reject(vec![1]));
    emulator.fail_next(Fault::Reject(vec![]));
    emulator.fail_next(Fault::Reject(vec![0, 2]));
    let client = Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .max_batch(3);
    let updates = (0..9).map(|id| match id {
        4 => company("").delete(), // refused before it is sent, and still counted
        5 => company(id).set(json!({})), // nothing to say, and still counted
        _ => company(id).set(json!({"number": id})),
    });
    let report = client.build().unwrap().send(updates).unwrap();
    let rejected: Vec<_> = report
        .rejected
        .iter()
        .map(|r| (r.position, r.group().unwrap().id().to_string(), r.by_server))
        .collect();
    // The requests hold 0 1 2, 3 6 7 and 8.
    assert_eq!(
        rejected,
        [
            (1, "1".to_owned(), true),
            (4, String::new(), false),
            (8, "8".to_owned(), true)
        ]
    );
    assert_eq!((report.sent, report.accepted, report.requests), (7, 5, 3));
    assert!(emulator.profile("company", "1").is_none());
    assert!(emulator.profile("company", "2").is_some());
}

#[test]
fn a_record_that_mixpanel_refuses_is_reported_with_field_and_message() {
    let emulator = Emulator::start().unwrap();
    let bad = Group::new("$company_id", "acme")
        .in_company("globex")
        .set(json!({"a": 1}));
    let report = client(&emulator)
        .send([company("ok").set(json!({"a": 1})), bad])
        .unwrap();
    let [rejection] = &report.rejected[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        rejection.to_string(),
        r#"record 1, $set of $company_id "acme": "$company_id": a company's $group_id must be its $company_id"#
    );
    assert!(rejection.by_server);
    assert_eq!(report.accepted, 1);
}

#[test]
fn without_strict_one_valid_update_is_enough() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .strict(false);
    let report = client
        .build()
        .unwrap()
        .send([company("a").set(json!({"b": 1}))])
        .unwrap();
    assert_eq!(report.accepted, 1);
    assert_eq!(emulator.requests()[0].query, "ip=0&strict=0&verbose=1");
}

#[test]
fn bodies_are_compressed_if_asked_for() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T")
        .endpoint(emulator.endpoint())
        .compression(Compression::gzip(1));
    let updates = (0..500).map(|id| company(id).set(json!({"plan": "enterprise"})));
    let report = client.build().unwrap().send(updates).unwrap();
    assert_eq!(report.accepted, 500);
    let request = &emulator.requests()[0];
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    assert!(
        report.bytes < request.body.len() as u64 / 5,
        "{} bytes",
        report.bytes
    );
    assert_eq!(emulator.profiles().len(), 500);
}

#[test]
fn one_connection_is_kept_between_calls() {
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator);
    for round in 0..5 {
        client
            .clone()
            .send([company(round).set(json!({"a": 1}))])
            .unwrap()
            .into_result()
            .unwrap();
    }
    assert_eq!(emulator.requests().len(), 5);
    assert!(
        emulator
            .requests()
            .iter()
            .all(|request| request.connection == 0)
    );
}

#[test]
fn undelivered_updates_come_back_in_order_and_can_be_sent_again() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T")
        .endpoint(emulator.endpoint())
        .retry(RetryPolicy::none())
        .max_batch(10);
    let client = client.build().unwrap();
    emulator.fail_next(Fault::Reject(vec![]));
    emulator.fail_next(Fault::Status(503));
    let updates = (0..100).map(|id| company(id).set(json!({"number": id})));
    let error = client.send(updates).unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Server, Some(503))
    );
    assert!(error.is_retryable());
    let report = error.report().unwrap();
    assert_eq!((report.sent, report.accepted, report.requests), (20, 10, 2));
    let positions: Vec<_> = error.undelivered().positions().map(|(p, _)| p).collect();
    assert_eq!(positions, (10..100).collect::<Vec<_>>());

    let report = client.send(&error.into_undelivered()).unwrap();
    assert_eq!(report.accepted, 90);
    assert_eq!(emulator.profiles().len(), 100);
    let ids: Vec<_> = bodies(&emulator).concat();
    assert_eq!(ids.len(), 10 + 10 + 90);
}

#[test]
fn wrong_settings_are_errors_that_say_what_to_write() {
    let message = |client: Result<Client, Error>| {
        let error = client.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    assert_eq!(message(Client::new("")), "the project token is empty");
    for (endpoint, why) in [
        ("", "empty string"),
        ("api.mixpanel.com", "missing scheme"),
        (
            "ftp://api.mixpanel.com",
            "the scheme is neither `https` nor `http`",
        ),
        (
            "https://api.mixpanel.com/groups",
            "unexpected path or query",
        ),
        ("https://api.mixpanel.com?x=1", "unexpected path or query"),
        (
            "https://api.mixpanel.com:99999",
            "the port is not a number from 1 to 65535",
        ),
        (
            "https://api.mixpanel.com:+443",
            "the port is not a number from 1 to 65535",
        ),
        ("https://", "invalid"),
        ("not a url", "invalid"),
    ] {
        let text = message(Client::builder("T").endpoint(endpoint).build());
        assert!(text.contains(why), "{endpoint}: {text}");
        assert!(
            text.contains("such as \"https://api.mixpanel.com\""),
            "{text}"
        );
    }
    for endpoint in [
        "http://api.mixpanel.com",
        "http://localhost.example.com",
        "http://128.0.0.1",
    ] {
        let text = message(Client::builder("T").endpoint(endpoint).build());
        let why = "plain `http` sends token and data unencrypted";
        assert!(text.contains(why) && !text.contains("such as"), "{text}");
    }
    let text = message(
        Client::builder("T")
            .endpoint("https://user:hunter2@host")
            .build(),
    );
    assert!(!text.contains("hunter2"), "{text}");
    for endpoint in [
        "http://127.0.0.1:80",
        "http://localhost/",
        "http://[::1]:8080",
        "https://api.mixpanel.com",
    ] {
        Client::builder("T").endpoint(endpoint).build().unwrap();
    }
    Client::builder("T")
        .endpoint("http://mixpanel.test")
        .allow_plain_http(true)
        .build()
        .unwrap();
}

#[test]
fn no_secret_is_shown() {
    let emulator = Emulator::builder().token("other").start().unwrap();
    let builder = Client::builder("SECRET").endpoint(emulator.endpoint());
    let shown = format!("{builder:?}");
    let client = builder.build().unwrap();
    let error = client
        .send([company("acme").set(json!({"a": 1}))])
        .unwrap_err();
    assert!(error.is_unauthorized());
    let text = "status 401, \"a project token is missing or unknown\" (1 undelivered)";
    assert!(error.to_string().ends_with(text), "{error}");
    let update = error.undelivered().updates().next().unwrap();
    for shown in [
        shown,
        format!("{client:?}"),
        format!("{:?}", client.with_options()),
        format!("{error:?} {error}"),
        format!("{update:?}"),
        update.to_json().unwrap().unwrap(),
        format!("{:?}", error.undelivered()),
    ] {
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}

#[test]
fn the_client_can_be_shared_and_its_errors_passed_on() {
    fn is_shared<T: Send + Sync + Clone + 'static>() {}
    fn is_error<T: std::error::Error + Send + Sync + 'static>() {}
    is_shared::<Client>();
    is_error::<Error>();
}

#[test]
fn an_endpoint_without_a_server_is_an_error_with_its_cause() {
    let emulator = Emulator::start().unwrap();
    let endpoint = emulator.endpoint();
    drop(emulator);
    let client = Client::builder("T")
        .endpoint(&endpoint)
        .retry(RetryPolicy::none());
    let error = client
        .build()
        .unwrap()
        .send([company("acme").delete()])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    let text = format!("{endpoint}: the connection failed (1 undelivered)");
    assert_eq!(error.to_string(), text, "the cause is in the source");
    assert!(
        format!("{error:#}").starts_with(&format!("{text}: Connection refused")),
        "{error}"
    );
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(error.undelivered().len(), 1);
}

#[test]
fn a_server_that_does_not_respond_is_a_timeout() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Delay(Duration::from_secs(60)));
    let client = Client::builder("T")
        .endpoint(emulator.endpoint())
        .timeout(Duration::from_millis(50))
        .retry(RetryPolicy::none());
    let error = client
        .build()
        .unwrap()
        .send([company("acme").delete()])
        .unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_mix_of_sizes_is_split_within_the_limits(
        sizes in prop::collection::vec(0..3_000_usize, 0..60),
        max_batch in 1..20_usize,
        max_body in 3_100..10_000_usize,
        connections in 1..4_usize,
    ) {
        let emulator = Emulator::start().unwrap();
        let client = Client::builder("T")
            .endpoint(emulator.endpoint())
            .max_batch(max_batch)
            .max_body(max_body)
            .connections(connections)
            .build()
            .unwrap();
        let groups = 5;
        let updates = sizes.iter().enumerate().map(|(position, size)| {
            let text = "x".repeat(*size);
            company(position % groups).set(json!({"position": position, "text": text}))
        });
        let report = client.send(updates).unwrap();
        prop_assert_eq!((report.sent, report.accepted), (sizes.len(), sizes.len()));

        let mut seen = HashSet::new();
        let mut last = vec![None; groups];
        for request in emulator.requests() {
            prop_assert!(request.body.len() <= max_body);
            let updates: Vec<Value> = serde_json::from_str(&request.body).unwrap();
            prop_assert!((1..=max_batch).contains(&updates.len()));
            for update in updates {
                let position = usize::try_from(update["$set"]["position"].as_u64().unwrap()).unwrap();
                prop_assert!(seen.insert(position), "sent twice");
                prop_assert_eq!(update["$set"]["text"].as_str().unwrap().len(), sizes[position]);
                let last = &mut last[position % groups];
                prop_assert!(last.is_none_or(|last| last < position), "out of order");
                *last = Some(position);
            }
        }
        prop_assert_eq!(seen.len(), sizes.len());
    }
}
