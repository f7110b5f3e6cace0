//! Events over the wire: what is imported, what is refused before, and what is never shown.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use mixpanel_groups::event::Time;
use mixpanel_groups::outbox::OutboxEntry;
use mixpanel_groups::record::{EncodedEvent, RecordRef};
use mixpanel_groups::{
    Client, ClientBuilder, Compression, Error, ErrorKind, Event, Group, MixpanelGroup, RetryPolicy,
};
use mixpanel_groups_emulator::{Emulator, Fault};
use proptest::prelude::*;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

fn client(emulator: &Emulator) -> ClientBuilder {
    Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .service_account("SERVICE_ACCOUNT", "SECRET", 12345)
        .retry(RetryPolicy::none())
}

/// Imports one event, which is accepted, and returns its properties as they arrived.
fn arrives(event: Event) -> Value {
    let emulator = Emulator::start().unwrap();
    let report = client(&emulator).build().unwrap().import([event]).unwrap();
    assert_eq!((report.accepted, &report.rejected[..]), (1, &[][..]));
    emulator.events()[0]["properties"].take()
}

/// Why an event is refused before it is sent, after the event's name and insert id.
fn refused(event: Event) -> String {
    let emulator = Emulator::start().unwrap();
    let events = [event.insert_id("id")];
    let report = client(&emulator).build().unwrap().import(&events).unwrap();
    assert!(emulator.requests().is_empty(), "{events:?}");
    let [rejection] = &report.rejected[..] else {
        panic!("{events:?} {report:?}")
    };
    assert!(!rejection.by_server);
    assert!(rejection.group().is_none() && rejection.operation().is_none());
    let error = events[0].to_json().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    assert_eq!(rejection.to_string(), format!("record 0, {error}"));
    let text = error.to_string();
    text.strip_prefix("event \"Purchase\" id: ")
        .unwrap_or(&text)
        .to_owned()
}

fn purchase() -> Event {
    Event::new("Purchase").distinct_id("user123")
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: &'static str,
    plan: &'static str,
}

const ACME: Company = Company {
    id: "mixpanel_inc",
    plan: "enterprise",
};

#[test]
fn a_request_is_as_documented() {
    let emulator = Emulator::start().unwrap();
    let event = purchase()
        .time(1_618_716_477)
        .insert_id("29fc2962-6d9c-455d-95ad-95b84f09b9e4")
        .group(&ACME)
        .property("amount", 99.99);
    let report = client(&emulator).build().unwrap().import([event]).unwrap();
    assert_eq!((report.sent, report.accepted, report.requests), (1, 1, 1));
    let request = &emulator.requests()[0];
    assert_eq!((&*request.method, &*request.path), ("POST", "/import"));
    assert_eq!(request.query, "strict=1&project_id=12345");
    assert_eq!(request.header("content-type"), Some("application/json"));
    let credentials = BASE64_STANDARD.encode("SERVICE_ACCOUNT:SECRET");
    let authorization = format!("Basic {credentials}");
    assert_eq!(request.header("authorization"), Some(&*authorization));
    assert_eq!(
        request.body,
        r#"[{"event":"Purchase","properties":{"time":1618716477,"distinct_id":"user123","#
            .to_owned()
            + r#""$insert_id":"29fc2962-6d9c-455d-95ad-95b84f09b9e4","company":"mixpanel_inc","#
            + r#""ip":0,"amount":99.99}}]"#
    );
}

#[test]
fn without_a_service_account_the_token_is_the_user_name() {
    let emulator = Emulator::builder().token("TOKEN").start().unwrap();
    let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
    client
        .build()
        .unwrap()
        .import([purchase()])
        .unwrap()
        .into_result()
        .unwrap();
    let request = &emulator.requests()[0];
    assert_eq!(request.query, "strict=1");
    let authorization = format!("Basic {}", BASE64_STANDARD.encode("TOKEN:"));
    assert_eq!(request.header("authorization"), Some(&*authorization));
}

#[test]
fn b2b_saas_company_analytics() {
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator).build().unwrap();
    let company = Group::new("company", "acme_corp");
    let profile = json!({
        "name": "Acme Corporation", "industry": "Technology", "employees": 500,
        "plan": "enterprise", "mrr": 5000, "seats": 100,
    });
    client
        .send([company.set(&profile)])
        .unwrap()
        .into_result()
        .unwrap();
    let event = Event::new("Feature Used")
        .distinct_id("ada@acme.example")
        .group(&company)
        .property("feature", "advanced_analytics");
    client.import([event]).unwrap().into_result().unwrap();

    assert_eq!(emulator.profile("company", "acme_corp").unwrap(), profile);
    let [event] = &emulator.events_of("company", "acme_corp")[..] else {
        panic!("{:?}", emulator.events())
    };
    assert_eq!(event["event"], "Feature Used");
    let properties = &event["properties"];
    assert_eq!(properties["distinct_id"], "ada@acme.example");
    assert_eq!(properties["company"], "acme_corp");
    assert_eq!(properties["feature"], "advanced_analytics");
}

#[test]
fn multi_tenant_applications() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "workspace")]
    struct Workspace {
        #[mixpanel(group_id(prefix = "ws_"))]
        id: u32,
        name: &'static str,
    }
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator).build().unwrap();
    let workspaces = [(12345, "Marketing Team"), (12346, "Sales Team")];
    let workspaces = workspaces.map(|(id, name)| Workspace { id, name });
    client
        .send(workspaces.iter().map(Workspace::set))
        .unwrap()
        .into_result()
        .unwrap();
    let opened = |user: &str| Event::new("Document Opened").distinct_id(user);
    let events = [
        opened("ada").group(&workspaces[0]),
        opened("ada").group(&workspaces[1]),
        opened("grace").group(&workspaces[0]).group(&workspaces[1]),
    ];
    client.import(events).unwrap().into_result().unwrap();
    for id in ["ws_12345", "ws_12346"] {
        assert_eq!(emulator.events_of("workspace", id).len(), 2);
    }
    assert_eq!(emulator.events_of("workspace", "ws_1"), [] as [Value; 0]);
}

#[test]
fn a_link_alone_is_for_other_trackers() {
    let link: (String, Value) = ACME.link();
    assert_eq!(link, ("company".to_owned(), json!("mixpanel_inc")));
    assert_eq!(ACME.group().link(), link);
    let properties: serde_json::Map<_, _> = [link].into_iter().collect();
    assert_eq!(
        Value::Object(properties),
        json!({"company": "mixpanel_inc"})
    );
}

#[test]
fn groups_become_properties() {
    let (acme, globex) = (
        Group::new("company", "acme"),
        Group::new("company", "globex"),
    );
    let team = Group::new("team", 7);
    let one = arrives(purchase().group(&acme));
    assert_eq!(one["company"], "acme");
    let several = purchase()
        .group(&acme)
        .group(&team)
        .group(&globex)
        .group(acme);
    let several = arrives(several);
    assert_eq!(several["company"], json!(["acme", "globex"]));
    assert_eq!(several["team"], "7");

    let many = |count| (0..count).fold(purchase(), |event, id| event.group(Group::new("team", id)));
    assert_eq!(arrives(many(300))["team"].as_array().unwrap().len(), 300);
    // Were each compared with all others, this would take minutes.
    for count in [301, 100_000] {
        assert_eq!(
            refused(many(count)),
            r#""team": more than 300 groups of one key; Mixpanel ignores the others"#
        );
    }
    for count in [256, 100_000] {
        let keys = (0..count).map(|key| Group::new(format!("key_{key}"), 1));
        let many = keys.fold(purchase(), Event::group);
        assert_eq!(refused(many), "more than 254 properties");
    }
    let nowhere = purchase().group(Group::new("company", ""));
    assert_eq!(
        refused(nowhere),
        r#""company": a group's key or id is empty"#
    );
}

#[test]
fn hierarchical_groups_link_to_user_and_company_together() {
    let company = Group::new("$company_id", "acme").in_company("acme");
    let user = Group::new("$user_id", "u1").in_company("acme");
    let team = Group::new("team", "t1").in_company("acme");
    let lone_user = Group::new("$user_id", "u1");
    let both = |event: Event| {
        let properties = arrives(event);
        assert_eq!(properties["$company_id"], "acme");
        assert_eq!(properties["$user_id"], "u1");
        properties
    };
    both(purchase().group(&user));
    both(purchase().group(&company).group(&lone_user));
    both(
        purchase()
            .property("$user_id", "u1")
            .property("$company_id", "acme"),
    );
    let all = both(purchase().group(&company).group(&user).group(&team));
    assert_eq!(all["team"], "t1");

    let user_alone = r#""$user_id": `$company_id` is missing: without it, Mixpanel counts the user as another one"#;
    assert_eq!(refused(purchase().group(&lone_user)), user_alone);
    assert_eq!(refused(purchase().property("$user_id", "u1")), user_alone);
    let of_two = Group::new("$company_id", "acme").in_company("globex");
    let of_two = Event::new("Login").distinct_id("").group(of_two).to_json();
    let of_two = of_two.unwrap_err().to_string();
    assert!(of_two.contains("$company_id"), "{of_two}");
    let company_alone = "\"$company_id\": `$user_id` is missing: add the user's group, \
                         or use the distinct id \"\" for an event without a user";
    for group in [&company, &team] {
        assert_eq!(refused(purchase().group(group)), company_alone);
        let of_no_user = arrives(Event::new("Purchase").distinct_id("").group(group));
        assert_eq!(of_no_user["$company_id"], "acme");
    }
}

/// The user has one identity in each company: which one this event is of, nobody could say.
#[test]
fn the_event_of_a_user_is_of_one_user_and_one_company() {
    let user = || Group::new("$user_id", "u1").in_company("acme");
    let team = Group::new("team", 1).in_company("globex");
    let other = Group::new("$user_id", "u2").in_company("acme");
    let two_companies =
        r#""$company_id": both "acme" and "globex", but an event with `$user_id` has one"#;
    let two_users = r#""$user_id": both "u1" and "u2", but an event with `$user_id` has one"#;
    assert_eq!(
        refused(purchase().group(user()).group(&team)),
        two_companies
    );
    assert_eq!(refused(purchase().group(user()).group(&other)), two_users);
    let properties = json!({"$user_id": "u1", "$company_id": ["acme", "acme", "globex"]});
    assert_eq!(refused(purchase().properties(properties)), two_companies);

    let one = arrives(purchase().group(user()).group(user()));
    assert_eq!(
        (&one["$company_id"], &one["$user_id"]),
        (&json!("acme"), &json!("u1"))
    );
    let of_no_user = Event::new("Purchase").distinct_id("").group(&team);
    let of_two = arrives(of_no_user.group(Group::new("team", 2).in_company("acme")));
    assert_eq!(of_two["$company_id"], json!(["globex", "acme"]));
}

/// As if the property had not been named: the check of Hierarchical Groups and the `ip` go by what is sent.
#[test]
fn a_property_that_is_null_leaves_its_name_free() {
    #[derive(Serialize)]
    struct Address {
        ip: Option<&'static str>,
    }
    let nothing = None::<&str>;
    for event in [
        purchase().property("ip", nothing),
        purchase().properties(&Address { ip: None }),
    ] {
        assert_eq!(arrives(event.clone())["ip"], 0);
        let encoded = EncodedEvent::new(&event).unwrap();
        let json = encoded.as_json();
        assert_eq!(EncodedEvent::from_json(json).unwrap().as_json(), json);
    }
    let company = Group::new("$company_id", "acme").in_company("acme");
    let user_is_null = purchase().group(&company).property("$user_id", nothing);
    assert!(refused(user_is_null).starts_with("\"$company_id\": "));
    let later = purchase().property("plan", nothing).property("plan", "pro");
    assert_eq!(arrives(later)["plan"], "pro");
}

/// Many SDKs write the project's token there.
#[test]
fn a_token_among_the_properties_is_sent_and_not_shown() {
    let nested = json!({"token": "A_SECRET", "n": 1});
    let event = purchase()
        .property("a", nested)
        .property("token", "A_SECRET");
    let event = event.property("last", "shown");
    assert_eq!(arrives(event.clone())["token"], "A_SECRET");
    let encoded = EncodedEvent::new(&event).unwrap();
    let entry = OutboxEntry::read(7, encoded.as_json());
    assert_eq!(entry.update, Ok(encoded.clone()));
    for shown in [
        format!("{event:?}"),
        format!("{encoded:?}"),
        format!("{entry:?}"),
    ] {
        assert!(!shown.contains("A_SECRET"), "{shown}");
        let rest = r#""n":1,"token":"[hidden]"},"token":"[hidden]","last":"shown""#;
        assert!(shown.contains(rest), "{shown}");
    }
}

#[test]
fn a_long_list_that_is_read_stays_as_it_is_written_or_is_refused() {
    let read = |list: &[String]| {
        let event = json!({"event": "Purchase", "properties": {
            "time": 1_700_000_000, "distinct_id": "user123", "$insert_id": "id", "tags": list, "no": null,
        }});
        let encoded = EncodedEvent::from_json(&event.to_string());
        encoded.map(|event| serde_json::from_str::<Value>(event.as_json()).unwrap())
    };
    let groups: Vec<_> = (0..260).map(|id| id.to_string()).collect();
    let properties = &read(&groups).unwrap()["properties"];
    assert_eq!(properties["tags"], json!(groups));
    assert_eq!(properties.get("no"), None);
    for distinct in [1, 100, 259] {
        let list: Vec<_> = (0..260).map(|id| (id % distinct).to_string()).collect();
        let error = read(&list).unwrap_err().to_string();
        let why = r#""tags": a list of 260 items; the limit is 254"#;
        assert!(error.ends_with(why), "{error}");
        let short = &list[..254];
        assert_eq!(read(short).unwrap()["properties"]["tags"], json!(short));
    }
}

/// Each of them was compared with all others.
#[test]
fn a_huge_list_of_texts_is_refused_at_once() {
    let list: Vec<_> = (0..200_000).map(|id| id.to_string()).collect();
    let event = json!({"event": "Purchase", "properties": {
        "time": 1_700_000_000, "distinct_id": "user123", "$insert_id": "id", "team": list,
    }});
    let error = EncodedEvent::from_json(&event.to_string()).unwrap_err();
    assert!(error.to_string().contains("200000"), "{error}");
}

/// What some parser cannot read is an error before a hook, or whoever reads it back, would have to.
#[test]
fn raw_values_that_cannot_be_read_are_errors() {
    let deep = |levels| "[".repeat(levels) + &"]".repeat(levels);
    let (deep, deeper) = (deep(121), deep(1000));
    for json in [
        r#""\ud800""#,
        r#"["\ud800"]"#,
        "1e999",
        r#"{"a":1e999}"#,
        &deep,
        &deeper,
    ] {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        assert!(
            refused(purchase().property("raw", raw)).starts_with("\"raw\": "),
            "{json}"
        );
    }
}

#[test]
fn lists_are_bounded_at_every_depth() {
    let list = |items: usize| vec![1; items];
    assert_eq!(
        arrives(purchase().property("numbers", list(254)))["numbers"],
        json!(list(254))
    );
    let expected = r#""numbers": a list of 255 items; the limit is 254"#;
    assert_eq!(refused(purchase().property("numbers", list(255))), expected);
    for nested in [json!({"a": list(255)}), json!([1, list(255)])] {
        assert_eq!(refused(purchase().property("numbers", nested)), expected);
    }
}

#[test]
fn properties_come_one_by_one_or_from_maps_and_structs() {
    #[derive(Serialize)]
    struct Item {
        name: &'static str,
        color: Option<&'static str>,
        tags: [u8; 2],
    }
    let item = Item {
        name: "Coffee",
        color: None,
        tags: [1, 2],
    };
    let event = purchase()
        .property("amount", 5)
        .property("nothing", None::<u8>)
        .properties(&item)
        .properties(BTreeMap::from([("é \" \\", "text")]))
        .properties(json!({"nested": {"a": {"b": {"c": [null]}}}}));
    let properties = arrives(event);
    let mut properties = properties.as_object().unwrap().clone();
    properties.retain(|name, _| !["time", "distinct_id", "$insert_id", "ip"].contains(&&**name));
    let expected = json!({
        "amount": 5, "name": "Coffee", "tags": [1, 2], "é \" \\": "text",
        "nested": {"a": {"b": {"c": [null]}}},
    });
    assert_eq!(Value::Object(properties), expected);
}

#[test]
fn each_event_has_a_time_and_an_insert_id_of_its_own() {
    let before = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let events: Vec<_> = (0..10_000).map(|_| purchase()).collect();
    let ids = events.iter().map(|event| {
        let event: Value = serde_json::from_str(&event.to_json().unwrap()).unwrap();
        let time = u128::from(event["properties"]["time"].as_u64().unwrap());
        assert!(before <= time && time < before + 3_600_000);
        let id = event["properties"]["$insert_id"]
            .as_str()
            .unwrap()
            .to_owned();
        let uuid: uuid::Uuid = id.parse().unwrap();
        assert_eq!(
            (uuid.get_version_num(), uuid.get_variant()),
            (4, uuid::Variant::RFC4122)
        );
        assert_eq!(uuid.to_string(), id);
        id
    });
    assert_eq!(ids.collect::<HashSet<_>>().len(), events.len());
}

#[test]
fn events_are_compared_by_what_is_sent() {
    let event = purchase();
    assert_eq!(event, event.clone());
    assert_ne!(event, purchase(), "another insert id");
    let made = || {
        Event::new("Renewed")
            .time(1_700_000_000)
            .insert_id("renewal-7")
    };
    let linked = |group: &'static str| {
        made()
            .distinct_id("user123")
            .group(Group::new("company", group))
    };
    assert_eq!(linked("acme"), linked("acme"));
    assert_ne!(linked("acme"), linked("globex"));
    assert_eq!(made(), made(), "both lack a distinct id");
    assert_ne!(made(), linked("acme"));
}

#[test]
fn times() {
    let time = |event: Event| arrives(event)["time"].clone();
    let then = UNIX_EPOCH + Duration::from_millis(1_618_716_477_001);
    assert_eq!(time(purchase().time(then)), 1_618_716_477_001_i64);
    assert_eq!(time(purchase().time(1_618_716_477)), 1_618_716_477);
    assert_eq!(
        time(purchase().time(1_618_716_477_001_u64)),
        1_618_716_477_001_i64
    );
    assert_eq!(time(purchase().time(31_536_000)), 31_536_000);
    let said = time(purchase().time(Time::from_secs(1_618_716_477)));
    assert_eq!(said, 1_618_716_477_000_i64);
    let said = time(purchase().time(Time::from_millis(1_618_716_477_001)));
    assert_eq!(said, 1_618_716_477_001_i64);
    let millis = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let soon = millis(SystemTime::now() + Duration::from_mins(59));
    time(purchase().time(soon));
    time(purchase().time(u64::try_from(soon / 1000).unwrap()));

    let early = r#""time": it is before 1971"#;
    assert_eq!(refused(purchase().time(31_535_999)), early);
    assert_eq!(refused(purchase().time(-1)), early);
    assert_eq!(refused(purchase().time(UNIX_EPOCH)), early);
    assert_eq!(
        refused(purchase().time(UNIX_EPOCH - Duration::from_hours(1))),
        early
    );
    // A clock that started at 1970. As a number of seconds, the same would be in 2008.
    let january = UNIX_EPOCH + Duration::from_secs(14 * 86_400);
    assert_eq!(refused(purchase().time(january)), early);
    let january = Time::from_millis(14 * 86_400_000);
    assert_eq!(refused(purchase().time(january)), early);
    assert_eq!(
        refused(purchase().time(Time::from_secs(14 * 86_400))),
        early
    );
    assert_eq!(time(purchase().time(14 * 86_400_000)), 14 * 86_400_000);
    let guessed = purchase().insert_id("id").time(14 * 86_400_000);
    assert_ne!(guessed.clone(), guessed.clone().time(january));
    assert_eq!(guessed.clone(), guessed.time(14 * 86_400_000_u64));
    let late = r#""time": it is more than an hour ahead"#;
    let ahead = millis(SystemTime::now() + Duration::from_mins(61));
    assert_eq!(refused(purchase().time(ahead)), late);
    assert_eq!(
        refused(purchase().time(u64::try_from(ahead / 1000).unwrap())),
        late
    );
    assert_eq!(refused(purchase().time(i64::MAX)), late);
    // Milliseconds that were taken for seconds.
    let mistaken = Time::from_secs(1_618_716_477_001);
    assert_eq!(refused(purchase().time(mistaken)), late);
    assert_eq!(refused(purchase().time(Time::from_secs(i64::MAX))), late);
    assert_eq!(refused(purchase().time(Time::from_secs(i64::MIN))), early);
    assert_eq!(refused(purchase().time(u128::MAX)), late);
}

const PLACEHOLDERS: [&str; 17] = [
    "00000000-0000-0000-0000-000000000000",
    "anon",
    "anonymous",
    "nil",
    "none",
    "null",
    "n/a",
    "na",
    "undefined",
    "unknown",
    "<nil>",
    "0",
    "-1",
    "true",
    "false",
    "[]",
    "{}",
];

#[test]
fn distinct_ids() {
    assert_eq!(
        arrives(Event::new("Purchase").distinct_id(""))["distinct_id"],
        ""
    );
    assert_eq!(
        arrives(Event::new("Purchase").distinct_id(42))["distinct_id"],
        "42"
    );
    assert_eq!(
        refused(Event::new("Purchase")),
        r#""distinct_id": missing; use "" for an event without a user"#
    );
    for id in PLACEHOLDERS {
        let expected = format!(r#""distinct_id": {id:?} is a placeholder, not an id"#);
        assert_eq!(refused(purchase().distinct_id(id)), expected);
    }
    assert_eq!(
        refused(purchase().distinct_id(0)),
        refused(purchase().distinct_id("0"))
    );
}

#[test]
fn insert_ids() {
    let valid = ["a", "0f", "A-z-09", &"x".repeat(36)];
    for id in valid {
        assert_eq!(arrives(purchase().insert_id(id))["$insert_id"], id);
    }
    let rule = "invalid insert id: expected 1 to 36 of the characters A-Z, a-z, 0-9 and -";
    let invalid = ["", "a b", "a_b", "é", "a\n", &"x".repeat(37)];
    for (id, why) in invalid
        .map(|id| (id, rule.to_owned()))
        .into_iter()
        .chain(PLACEHOLDERS.map(|id| {
            let has_others = id.contains(['/', '<', '[', '{']);
            (
                id,
                if has_others {
                    rule.to_owned()
                } else {
                    format!("{id:?} is a placeholder, not an id")
                },
            )
        }))
    {
        let error = purchase().insert_id(id).to_json().unwrap_err();
        let shown = format!(" {id}").replace('\n', " "); // an error is one line
        let shown = if id.is_empty() { "" } else { &shown };
        let expected = format!(r#"event "Purchase"{shown}: "$insert_id": {why}"#);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn names_and_numbers_of_properties() {
    let many = |count: usize| -> BTreeMap<String, usize> {
        (0..count)
            .map(|number| (format!("property {number}"), number))
            .collect()
    };
    // Time, distinct id, insert id and `ip` are four.
    arrives(purchase().properties(many(250)));
    assert_eq!(
        refused(purchase().properties(many(251))),
        "255 properties; the limit is 254"
    );
    arrives(
        purchase()
            .properties(many(250))
            .property("absent", None::<u8>),
    );
    arrives(purchase().property("nested", many(254)));
    assert_eq!(
        refused(purchase().property("nested", [many(255)])),
        r#""nested": 255 properties; the limit is 254"#
    );
    let twice = "two properties have this name";
    assert_eq!(
        refused(purchase().property("a", 1).property("a", 2)),
        format!(r#""a": {twice}"#)
    );
    for (name, method) in [
        ("time", "time"),
        ("distinct_id", "distinct_id"),
        ("$insert_id", "insert_id"),
    ] {
        let why = format!("a property cannot have this name: call `Event::{method}` instead");
        assert_eq!(
            refused(purchase().properties(json!({name: 1}))),
            format!("\"{name}\": {why}")
        );
        assert_eq!(
            refused(purchase().group(Group::new(name, "a"))),
            format!("\"{name}\": {why}")
        );
    }
    let linked = purchase().group(&ACME);
    assert_eq!(
        refused(linked.property("company", 1)),
        format!(r#""company": {twice}"#)
    );
    let linked = purchase().property("company", 1).group(&ACME);
    assert_eq!(refused(linked), format!(r#""company": {twice}"#));
    assert_eq!(
        refused(purchase().property("", 1)),
        "the property's name is empty"
    );
    let long = "é".repeat(256);
    assert_eq!(
        refused(purchase().property(&long, 1)),
        format!(
            r#""{}"…: the property's name is longer than 255 characters"#,
            "é".repeat(255)
        )
    );
    assert_eq!(
        refused(purchase().properties([1])),
        "expected a map or a struct of properties"
    );
    let unserializable = BTreeMap::from([((1, 2), 3)]);
    assert_eq!(
        refused(purchase().property("bad", unserializable)),
        r#""bad": key must be a string"#
    );
    let nameless = Event::new("").distinct_id("user123").insert_id("id");
    assert_eq!(
        nameless.to_json().unwrap_err().to_string(),
        "event \"\" id: the event's name is empty"
    );
}

#[test]
fn nesting_and_size() {
    let nested = |levels: usize, list: bool| {
        (0..levels).fold(json!("x"), |value, _| {
            if list {
                json!([{"k": value}])
            } else {
                json!({"k": value})
            }
        })
    };
    for list in [false, true] {
        arrives(purchase().property("nested", nested(3, list)));
        let refused = |levels| refused(purchase().property("nested", nested(levels, list)));
        for levels in [4, 60] {
            assert_eq!(
                refused(levels),
                r#""nested": objects are nested in more than 3 levels"#
            );
        }
        assert_eq!(refused(500), r#""nested": nested in more than 120 levels"#);
    }
    let of = |bytes: usize| {
        let event = purchase().insert_id("id").time(1_618_716_477);
        let bare = event.clone().property("t", "").to_json().unwrap().len();
        event.property("t", "x".repeat(bytes - bare))
    };
    arrives(of(1_000_000));
    let emulator = Emulator::start().unwrap();
    let report = client(&emulator)
        .build()
        .unwrap()
        .import([of(1_000_001)])
        .unwrap();
    assert_eq!(
        report.rejected[0].to_string(),
        r#"record 0, event "Purchase" id: record is 1000001 bytes; the limit is 1000000"#
    );
    assert!(emulator.requests().is_empty());
}

#[test]
fn bodies_are_compressed_unless_told_otherwise() {
    let emulator = Emulator::start().unwrap();
    let events: Vec<_> = (0..100)
        .map(|number| purchase().property("number", number))
        .collect();
    let updates = || (0..100).map(|id| Group::new("company", id).set(json!({"plan": "free"})));
    let encodings = |client: ClientBuilder| {
        let client = client.build().unwrap();
        assert_eq!(client.import(&events).unwrap().accepted, 100);
        assert_eq!(client.send(updates()).unwrap().accepted, 100);
        let requests = emulator.requests();
        let last = requests[requests.len() - 2..].iter();
        last.map(|request| request.header("content-encoding").is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(encodings(client(&emulator)), [true, false]);
    assert_eq!(
        encodings(client(&emulator).compression(Compression::None)),
        [false, false]
    );
    assert_eq!(
        encodings(client(&emulator).compression(Compression::gzip(1))),
        [true, true]
    );
    assert_eq!(
        emulator.events().len(),
        100,
        "each once, though they came three times"
    );
}

#[test]
fn batches_have_two_thousand_events_or_ten_megabytes() {
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator).build().unwrap();
    let report = client.import((0..4_001).map(|_| purchase())).unwrap();
    assert_eq!((report.accepted, report.requests), (4_001, 3));
    assert_eq!(emulator.events().len(), 4_001);

    let text = "x".repeat(900_000);
    let report = client
        .import((0..12).map(|_| purchase().property("text", &text)))
        .unwrap();
    assert_eq!((report.accepted, report.requests), (12, 2));
    let largest = emulator
        .requests()
        .iter()
        .map(|request| request.body.len())
        .max();
    assert!(
        (9_000_000..10_000_000).contains(&largest.unwrap()),
        "{largest:?}"
    );
}

#[test]
fn what_mixpanel_refuses_is_reported_with_the_events_name() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Reject(vec![1]));
    let events = ["first", "second", "third"].map(|id| purchase().insert_id(id));
    let report = client(&emulator).build().unwrap().import(&events).unwrap();
    assert_eq!((report.sent, report.accepted), (3, 2));
    let [rejection] = &report.rejected[..] else {
        panic!("{report:?}")
    };
    assert_eq!((rejection.position, rejection.by_server), (1, true));
    let RecordRef::Event {
        name, insert_id, ..
    } = &rejection.record
    else {
        panic!("{rejection:?}")
    };
    assert_eq!((&**name, &**insert_id), ("Purchase", "second"));
    assert!(
        rejection
            .to_string()
            .starts_with("record 1, event \"Purchase\" second: ")
    );
}

#[test]
fn without_strict_the_count_tells_that_an_event_was_dropped() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Reject(vec![0]));
    emulator.fail_next(Fault::Reject(vec![0])); // sent alone, to find out which it was
    let client = client(&emulator).strict(false).build().unwrap();
    let report = client.import([purchase(), purchase()]).unwrap();
    assert_eq!((report.accepted, report.rejected.len()), (1, 1));
    assert_eq!(report.rejected[0].position, 0);
    assert_eq!(emulator.requests()[0].query, "strict=0&project_id=12345");
    assert_eq!(emulator.events().len(), 1);
}

#[test]
fn undelivered_events_come_back_as_they_were() {
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator).max_batch(10).build().unwrap();
    emulator.fail_next(Fault::Reject(vec![]));
    emulator.fail_next(Fault::CloseAfter);
    let events: Vec<_> = (0..35)
        .map(|number| {
            let event = purchase()
                .group(Group::new("team", number))
                .group(Group::new("team", "all"));
            event
                .property("é\"", number)
                .property("nested", json!({"list": [1.5e300, null, {}]}))
        })
        .collect();
    let error = client.import(&events).unwrap_err();
    assert!(error.is_retryable());
    let report = error.report().unwrap();
    assert_eq!((report.sent, report.accepted), (20, 10));
    let undelivered = error.undelivered();
    assert_eq!((undelivered.len(), undelivered.is_empty()), (25, false));
    assert_eq!(
        (
            undelivered.updates().count(),
            undelivered.positions().count()
        ),
        (0, 0),
        "no updates"
    );
    let json =
        |event: &Event| -> Value { serde_json::from_str(&event.to_json().unwrap()).unwrap() };
    let back: Vec<_> = undelivered.events().map(|event| json(&event)).collect();
    assert_eq!(back, events[10..].iter().map(json).collect::<Vec<_>>());

    let report = client.import(&error.into_undelivered()).unwrap();
    assert_eq!(report.accepted, 25);
    assert_eq!(emulator.events().len(), 35);
}

#[test]
fn importing_has_the_options_of_sending() {
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator).connections(3).build().unwrap();
    let mut seen = 0;
    let events = (0..5_000).map(|_| purchase());
    let report = client
        .with_options()
        .on_progress(|progress| seen = progress.accepted)
        .import(events);
    assert_eq!((report.unwrap().accepted, seen), (5_000, 5_000));

    // There is nothing to coalesce: each event stays.
    let events = (0..3_000).map(|_| purchase().insert_id("same"));
    let report = client.with_options().coalesce().import(events).unwrap();
    assert_eq!((report.sent, report.accepted), (3_000, 3_000));

    let disabled = Client::disabled();
    assert_eq!(disabled.import([purchase()]).unwrap().accepted, 1);

    let stop = std::sync::atomic::AtomicBool::new(true);
    let error = client
        .with_options()
        .cancel_on(&stop)
        .import([purchase()])
        .unwrap_err();
    assert!(error.is_cancelled());
    assert_eq!(error.undelivered().events().count(), 1);
}

#[test]
fn wrong_credentials_are_an_error_and_never_shown() {
    let start = || {
        Emulator::builder()
            .service_account("SERVICE_ACCOUNT", "other", 12345)
            .start()
    };
    let emulator = start().unwrap();
    let builder = client(&emulator);
    let shown = format!("{builder:?}");
    let client = builder.build().unwrap();
    let error = client.import([purchase()]).unwrap_err();
    assert!(error.is_unauthorized());
    assert_eq!(emulator.events(), [] as [Value; 0]);
    let event = error.undelivered().events().next().unwrap();
    let encoded = BASE64_STANDARD.encode("SERVICE_ACCOUNT:SECRET");
    for shown in [
        shown,
        format!("{client:?} {:?}", client.with_options()),
        format!("{error:?} {error} {:?}", error.undelivered()),
        format!("{event:?} {}", event.to_json().unwrap()),
        format!("{emulator:?} {:?}", emulator.requests()),
    ] {
        for secret in ["SECRET", "SERVICE_ACCOUNT", "TOKEN", &encoded] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn wrong_settings_are_errors_that_do_not_show_them() {
    let build = |user: &str, secret: &str, project: &str| {
        let client = Client::builder("TOKEN")
            .service_account(user, secret, project)
            .build();
        let error: Error = client.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(!text.contains("hunter2"), "{text}");
        text
    };
    for (user, secret, project, expected) in [
        (
            "",
            "hunter2",
            "1",
            "the service account's user name is empty",
        ),
        ("a", "", "1", "the service account's secret is empty"),
        ("a", "hunter2", "", "the project id is empty"),
    ] {
        assert_eq!(build(user, secret, project), expected);
    }
    for (user, project, expected) in [
        (
            "a:b",
            "1",
            "invalid service account's user name: it contains the character ':'",
        ),
        (
            "a",
            "hunter2&strict=0",
            "invalid project id: it contains the character '&'",
        ),
        ("a", "1 2", "invalid project id: it contains a space"),
    ] {
        let text = build(user, "hunter2", project);
        assert!(text.starts_with(expected), "{text}");
    }
}

/// Names and texts of every kind, and those that mean something.
fn word() -> impl Strategy<Value = String> {
    const KNOWN: [&str; 8] = [
        "ip",
        "0",
        "team",
        "$company_id",
        "$user_id",
        "plan",
        "seats",
        "é\"\\\u{0}",
    ];
    prop_oneof![
        9 => prop::sample::select(&KNOWN[..]).prop_map(str::to_owned),
        1 => ".+",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        Just(json!(0)),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        word().prop_map(Value::from),
        (250..257_usize).prop_map(|items| (0..items).map(|item| item.to_string()).collect()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(word(), inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What can be published can be read back from an outbox, by a hook and after a shutdown, and is the same.
    #[test]
    fn every_event_that_can_be_sent_survives_the_way_through_an_outbox(
        properties in prop::collection::vec((word(), value()), 0..4),
        groups in prop::collection::vec((word(), word(), prop::option::of(word())), 0..3),
        team in prop_oneof![Just(0), 250..310_usize],
        distinct_id in prop::sample::select(&["", "user123"][..]),
    ) {
        let event = Event::new("Purchase").distinct_id(distinct_id);
        let event = properties.iter().fold(event, |event, (name, value)| event.property(name, value));
        let event = (0..team).fold(event, |event, id| event.group(Group::new("team", id)));
        let event = groups.iter().fold(event, |event, (key, id, company)| {
            let group = Group::new(&**key, &**id);
            event.group(match company {
                Some(company) => group.in_company(&**company),
                None => group,
            })
        });
        let Ok(encoded) = EncodedEvent::new(&event) else {
            return Ok(());
        };
        let json = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let read = EncodedEvent::from_json(encoded.as_json()).unwrap();
        prop_assert_eq!(json(read.as_json()), json(encoded.as_json()));
        let back = Event::from(encoded.clone()).to_json().unwrap();
        prop_assert_eq!(json(&back), json(encoded.as_json()));
    }
}
