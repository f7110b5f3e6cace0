//! The page and what it asks for; `browser` shows it in a browser.

use std::collections::{BTreeMap, BTreeSet};

use mixpanel_groups::{Client, Event, Group};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::{Value, json};

use crate::wire::{Sender, raw};

fn get(emulator: &Emulator, path: &str) -> String {
    let host = emulator.endpoint().replace("http://", "");
    get_as(emulator, path, &host)
}

fn get_as(emulator: &Emulator, path: &str, host: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    raw(emulator, request.as_bytes())
}

pub(crate) fn view(emulator: &Emulator, path: &str) -> Value {
    let response = get(emulator, path);
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(head.contains("application/json"), "{response}");
    serde_json::from_str(body).unwrap()
}

fn client(emulator: &Emulator) -> Client {
    let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
    client.build().unwrap()
}

#[test]
fn it_is_one_file_that_needs_nothing_else() {
    let emulator = Emulator::start().unwrap();
    let page = get(&emulator, "/");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(
        page.contains("content-type: text/html; charset=utf-8\r\n"),
        "{page}"
    );
    assert!(page.contains("<title>Local Mixpanel</title>"));
    for elsewhere in [
        "http://",
        "https://",
        "src=",
        "@import",
        "innerHTML",
        "insertAdjacentHTML",
    ] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
}

#[test]
fn a_text_is_found_also_if_json_escapes_it() {
    let emulator = Emulator::start().unwrap();
    let properties = json!({"path": "C:\\a", "said": "\"hi\"\n"});
    let quoted = Group::new("company", "quoted").set(properties);
    assert_eq!(client(&emulator).send(quoted).unwrap().accepted, 1);
    for search in ["C:%5Ca", "%22hi%22", "said%22%3A"] {
        let view = view(&emulator, &format!("/emulator/groups?search={search}"));
        assert_eq!(view["groups"][0]["id"], "quoted", "{search}");
    }
}

#[test]
fn groups_and_search() {
    let emulator = Emulator::start().unwrap();
    let of = |key: &str, id: &str, plan: &str| {
        Group::new(key.to_owned(), id.to_owned()).set(json!({"$name": id, "Plan": plan}))
    };
    let updates = [
        of("company", "acme", "free"),
        of("company", "globex", "Enterprise"),
        of("team", "a&b=c", "free"),
    ];
    client(&emulator)
        .send(updates)
        .unwrap()
        .into_result()
        .unwrap();
    client(&emulator)
        .send([Group::new("company", "globex").delete()])
        .unwrap()
        .into_result()
        .unwrap();

    let all = view(&emulator, "/emulator/groups");
    let keys = json!([{"key": "company", "groups": 2}, {"key": "team", "groups": 1}]);
    assert_eq!(
        (&all["keys"], &all["known"], &all["events"]),
        (&keys, &json!(3), &json!(0))
    );
    let ids = |query: &str| {
        let view = view(&emulator, &format!("/emulator/groups?{query}"));
        let groups = view["groups"].as_array().unwrap();
        let mut ids: Vec<_> = groups
            .iter()
            .map(|group| group["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids.join(" ")
    };
    assert_eq!(ids("key=company"), "acme globex");
    assert_eq!(ids("search=ACM"), "acme");
    assert_eq!(ids("search=plan%22%3A%22FREE"), "a&b=c acme");
    assert_eq!(ids("search=free&key=team"), "a&b=c");
    assert_eq!(ids("search=enterprise"), "", "it is deleted");
    assert_eq!(ids("search=a%26b%3Dc"), "a&b=c");
    assert_eq!(ids("search=TEAM"), "a&b=c", "a group key");
    let group = |id: &str| {
        all["groups"]
            .as_array()
            .unwrap()
            .iter()
            .find(|group| group["id"] == id)
            .unwrap()
    };
    assert_eq!(
        (&group("acme")["exists"], &group("acme")["name"]),
        (&json!(true), &json!("acme"))
    );
    assert_eq!(group("globex")["exists"], json!(false));

    // Nothing more is said of what is known already.
    let version = all["version"].as_str().unwrap();
    let since = format!("/emulator/groups?since={version}");
    assert_eq!(view(&emulator, &since), json!({"version": all["version"]}));
    client(&emulator)
        .send([of("team", "new", "free")])
        .unwrap()
        .into_result()
        .unwrap();
    assert_eq!(view(&emulator, &since)["known"], 4);
}

#[test]
fn groups_come_in_pages() {
    let emulator = Emulator::start().unwrap();
    let updates = (0..450).map(|id| Group::new("company", id).set(json!({"a": 1})));
    client(&emulator)
        .send(updates)
        .unwrap()
        .into_result()
        .unwrap();
    let mut path = "/emulator/groups".to_owned();
    let mut lengths = Vec::new();
    let mut ids = BTreeSet::new();
    loop {
        let page = view(&emulator, &path);
        let groups = page["groups"].as_array().unwrap();
        lengths.push(groups.len());
        ids.extend(
            groups
                .iter()
                .map(|group| group["id"].as_str().unwrap().to_owned()),
        );
        if page["next"].is_null() {
            break;
        }
        path = format!("/emulator/groups?before={}", page["next"]);
    }
    assert_eq!((lengths, ids.len()), (vec![200, 200, 50], 450));
}

#[test]
fn a_group_with_its_history_and_events() {
    let emulator = Emulator::start().unwrap();
    let acme = Group::new("company", "acme");
    client(&emulator)
        .send([
            acme.set(json!({"plan": "free"})),
            acme.unset(["none"]),
            acme.set(json!({"plan": "pro"})),
        ])
        .unwrap()
        .into_result()
        .unwrap();
    let events = ["first", "second"].map(|name| Event::new(name).distinct_id("").group(&acme));
    client(&emulator)
        .import(events)
        .unwrap()
        .into_result()
        .unwrap();
    let shown = view(&emulator, "/emulator/group?key=company&id=acme");
    assert_eq!(shown["profile"], json!({"plan": "pro"}));
    let history: Vec<_> = shown["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|past| {
            assert!(past["at"].as_u64().unwrap() > 1_700_000_000_000);
            (past["operation"].as_str().unwrap(), past["value"].clone())
        })
        .collect();
    let expected = [
        ("$set", json!({"plan": "pro"})),
        ("$unset", json!(["none"])),
        ("$set", json!({"plan": "free"})),
    ];
    assert_eq!(history, expected, "the newest first");
    let names: Vec<_> = shown["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["event"])
        .collect();
    assert_eq!(names, ["second", "first"]);

    let unknown = view(&emulator, "/emulator/group?key=company&id=none");
    assert_eq!(
        (&unknown["profile"], &unknown["history"]),
        (&Value::Null, &json!([]))
    );

    let many = (0..150).map(|number| acme.set(json!({"number": number})));
    client(&emulator).send(many).unwrap().into_result().unwrap();
    let shown = view(&emulator, "/emulator/group?key=company&id=acme");
    assert_eq!(
        shown["history"].as_array().unwrap().len(),
        50,
        "the last ones"
    );
    assert_eq!(shown["history"][49]["value"]["number"], 100);
}

#[test]
fn looking_on_is_no_request() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Status(503));
    for path in ["/", "/emulator/groups", "/emulator/group?key=a&id=b"] {
        assert!(get(&emulator, path).starts_with("HTTP/1.1 200 "), "{path}");
    }
    assert!(get(&emulator, "/emulator/other").starts_with("HTTP/1.1 404 "));
    assert!(emulator.requests().is_empty());
    assert_eq!(
        Sender::new(&emulator).send("", &json!([])).status,
        503,
        "the fault was kept"
    );
}

/// `curl -I`, `wget --spider` and wait-on send `HEAD` until the program is ready.
#[test]
fn a_probe_is_no_request() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Status(503));
    let host = emulator.endpoint().replace("http://", "");
    for path in ["/", "/emulator/groups", "/emulator/group?key=a&id=b"] {
        let close = "connection: close\r\n";
        let request = |method: &str| {
            let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{close}\r\n");
            raw(&emulator, request.as_bytes())
        };
        let got = request("GET");
        let head = &got[..got.find("\r\n\r\n").unwrap() + 4];
        assert_eq!(request("HEAD"), head);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    assert!(emulator.requests().is_empty());
    let response = Sender::new(&emulator).send("", &json!([]));
    assert_eq!(response.status, 503, "the fault was kept");
}

/// Of their own accord, beside what a page names.
#[test]
fn what_browsers_ask_for_is_no_request() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Status(503));
    for path in [
        "/favicon.ico",
        "/apple-touch-icon-precomposed.png",
        "/.well-known/appspecific/com.chrome.devtools.json",
    ] {
        let response = get(&emulator, path);
        assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    }
    assert!(emulator.requests().is_empty());
    let sender = Sender::new(&emulator);
    assert_eq!(
        sender.send("", &json!([])).status,
        503,
        "the fault was kept"
    );
    // What a client sends there is under test.
    assert_eq!(sender.post("/favicon.ico", &[], b"").unwrap().status, 404);
    assert_eq!(emulator.requests().len(), 2);
}

/// A name that a stranger's page was loaded from may be made to point here.
#[test]
fn it_is_for_this_machine_only() {
    let emulator = Emulator::start().unwrap();
    for host in ["localhost:8080", "127.0.0.1", "[::1]:80"] {
        assert!(
            get_as(&emulator, "/emulator/groups", host).starts_with("HTTP/1.1 200 "),
            "{host}"
        );
    }
    for host in [
        "example.com:8080",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "",
    ] {
        for path in ["/", "/emulator/groups"] {
            assert!(
                get_as(&emulator, path, host).starts_with("HTTP/1.1 403 "),
                "{host}"
            );
        }
    }
}

/// The versions differ with each run.
fn without_versions(mut view: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for name in ["at", "changed", "version", "since", "time", "$insert_id"] {
                    members.remove(name);
                }
                members.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut view);
    view
}

fn since(emulator: &Emulator, path: &str, known: &Value) -> Value {
    let version = known["version"].as_str().unwrap();
    view(emulator, &format!("{path}&since={version}"))
}

fn send<'u>(emulator: &Emulator, updates: impl IntoIterator<Item = mixpanel_groups::Update<'u>>) {
    let report = client(emulator).send(updates.into_iter().collect::<Vec<_>>());
    report.unwrap().into_result().unwrap();
}

#[test]
fn a_known_list_of_groups_is_told_what_changed() {
    let emulator = Emulator::start().unwrap();
    let group = |id: usize| Group::new("company", id);
    send(
        &emulator,
        (0..450).map(|id| group(id).set(json!({"plan": "free"}))),
    );
    // A group that is changed, a new one, and what becomes of each in a list.
    for (path, changed, new, listed, unlisted) in [
        (
            "/emulator/groups?key=",
            7,
            451,
            ["7", "451"].as_slice(),
            [].as_slice(),
        ),
        ("/emulator/groups?search=FREE", 8, 452, &["452"], &["8"]),
        ("/emulator/groups?key=team", 9, 453, &[], &["9", "453"]),
    ] {
        let known = view(&emulator, path);
        let updates = [(new, "free"), (changed, "pro")];
        send(
            &emulator,
            updates.map(|(id, plan)| group(id).set(json!({"plan": plan}))),
        );
        let difference = since(&emulator, path, &known);
        let ids = |name: &str| {
            let groups = difference[name].as_array().unwrap().iter();
            groups
                .map(|group| group["id"].as_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (ids("groups"), ids("unlisted")),
            (listed.to_vec(), unlisted.to_vec()),
            "{path}"
        );
        assert_eq!(difference.get("next"), None);
    }
    // More than a page comes as a whole.
    let known = view(&emulator, "/emulator/groups?key=");
    send(
        &emulator,
        (0..201).map(|id| group(id).set(json!({"plan": "new"}))),
    );
    let whole = since(&emulator, "/emulator/groups?key=", &known);
    assert_eq!(whole.get("since"), None);
    assert_eq!(whole["groups"].as_array().unwrap().len(), 200);
    // So does what follows a version of another emulator, or of the time before a reset.
    emulator.reset();
    let whole = since(&emulator, "/emulator/groups?key=", &known);
    assert_eq!((whole.get("since"), &whole["groups"]), (None, &json!([])));
}

#[test]
fn a_known_group_is_told_what_changed() {
    let emulator = Emulator::start().unwrap();
    let acme = Group::new("company", "acme");
    let path = "/emulator/group?key=company&id=acme";
    let large: Value = (0..400)
        .map(|n| (format!("p{n:03}"), json!("x".repeat(200))))
        .collect();
    send(&emulator, [acme.set(&large)]);
    let known = view(&emulator, path);
    assert_eq!(known["profile"].as_object().unwrap().len(), 400);

    // Another group's update changes nothing here.
    send(
        &emulator,
        [Group::new("company", "globex").set(json!({"a": 1}))],
    );
    let nothing = without_versions(since(&emulator, path, &known));
    let expected = json!({
        "exists": true, "existed": true, "set": {}, "removed": [], "properties": 400, "updates": 1, "history": [], "events": [],
    });
    assert_eq!(nothing, expected);

    send(
        &emulator,
        [acme.set(json!({"p000": "new"})), acme.unset(["p001"])],
    );
    let event = Event::new("Purchase").distinct_id("").group(&acme);
    client(&emulator)
        .import([event])
        .unwrap()
        .into_result()
        .unwrap();
    let difference = since(&emulator, path, &known);
    assert!(difference.to_string().len() < 2_000, "{difference}");
    let difference = without_versions(difference);
    assert_eq!(difference["set"], json!({"p000": "new"}));
    assert_eq!(difference["removed"], json!(["p001"]));
    assert_eq!(difference["properties"], 399);
    assert_eq!(difference["history"].as_array().unwrap().len(), 2);
    assert_eq!(difference["history"][0]["operation"], "$unset");
    assert_eq!(difference["events"][0]["event"], "Purchase");

    let known = view(&emulator, path);
    send(&emulator, [acme.delete()]);
    let difference = since(&emulator, path, &known);
    assert_eq!(
        (&difference["exists"], &difference["set"]),
        (&json!(false), &json!({}))
    );

    // More updates than a view shows come as a whole.
    let known = view(&emulator, path);
    send(&emulator, (0..60).map(|n| acme.set(json!({"n": n}))));
    let whole = since(&emulator, path, &known);
    assert_eq!(
        (whole.get("since"), &whole["profile"]),
        (None, &json!({"n": 59}))
    );
}

/// An event of the same identity takes the place of the one that the page shows, and may be of another group.
#[test]
fn a_known_group_whose_event_was_replaced_comes_as_a_whole() {
    let emulator = Emulator::start().unwrap();
    let acme = Group::new("company", "acme");
    let path = "/emulator/group?key=company&id=acme";
    let import = |id: &str, company: &str| {
        let properties = json!({
            "time": 1_618_716_477, "distinct_id": "", "$insert_id": id, "company": company,
        });
        let body = json!([{"event": "E", "properties": properties}]).to_string();
        let headers = [crate::wire::JSON[0], ("authorization", "Basic VE9LRU46")];
        let sender = Sender::new(&emulator);
        let response = sender.post("/import", &headers, body.as_bytes());
        assert_eq!(response.unwrap().status, 200);
    };
    send(
        &emulator,
        [acme.set(json!({"a": 1})), acme.set(json!({"a": 2}))],
    );
    import("i1", "acme");
    for (company, left) in [("acme", 1), ("globex", 0)] {
        let known = view(&emulator, path);
        import("i1", company);
        send(&emulator, [acme.set(json!({"company": company}))]);
        let whole = since(&emulator, path, &known);
        assert_eq!(whole.get("since"), None, "{company}");
        assert_eq!(whole["events"].as_array().unwrap().len(), left);
        // What comes after that is sent alone again.
        import(&format!("after-{company}"), "other");
        assert_ne!(since(&emulator, path, &whole).get("since"), None);
    }
}

/// Updates with a mistyped id, say: they are shown, and create no group.
#[test]
fn a_group_that_never_existed_is_not_a_deleted_one() {
    let emulator = Emulator::start().unwrap();
    let group = |id: &'static str| Group::new("company", id);
    send(
        &emulator,
        [
            group("unset").unset(["a"]),
            group("remove").remove("list", "a"),
            group("delete").delete(),
            group("deleted").union(json!({"list": ["a"]})),
            group("deleted").delete(),
            group("deleted").unset(["a"]),
            group("there").set(json!({"a": 1})),
        ],
    );
    let groups = view(&emulator, "/emulator/groups");
    let groups = groups["groups"].as_array().unwrap();
    let listed: BTreeMap<_, _> = groups
        .iter()
        .map(|group| {
            let id = group["id"].as_str().unwrap();
            (id, (&group["exists"], &group["existed"]))
        })
        .collect();
    let [no, yes] = [&json!(false), &json!(true)];
    let expected = [
        ("unset", (no, no)),
        ("remove", (no, no)),
        ("delete", (no, no)),
        ("deleted", (no, yes)),
        ("there", (yes, yes)),
    ];
    assert_eq!(listed, BTreeMap::from(expected));
    for (id, (_, existed)) in listed {
        let path = format!("/emulator/group?key=company&id={id}");
        let known = view(&emulator, &path);
        assert_eq!(known["existed"], *existed, "{id}");
        send(&emulator, [group("other").set(json!({"a": 1}))]);
        let difference = since(&emulator, &path, &known);
        assert_eq!(difference["existed"], *existed, "{id}");
    }
    assert_eq!(emulator.updates().len(), 6, "what arrived for them");
}

#[test]
fn known_requests_are_not_repeated() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    for _ in 0..20 {
        sender.send("", &json!({}));
    }
    let known = view(&emulator, "/emulator/requests?a=b");
    assert_eq!(known["failures"].as_array().unwrap().len(), 20);
    sender.send("", &json!([]));
    let difference = since(&emulator, "/emulator/requests?a=b", &known);
    assert_eq!(difference["requests"].as_array().unwrap().len(), 1);
    assert_eq!(difference["requests"][0]["number"], 20);
    assert_eq!(difference["received"], 21);
}

#[test]
fn no_view_is_larger_than_a_megabyte() {
    let emulator = Emulator::builder()
        .truncate_like_mixpanel(false)
        .start()
        .unwrap();
    let sender = Sender::new(&emulator);
    let list: Vec<_> = (0..900)
        .map(|n| format!("{n} {}", "x".repeat(990)))
        .collect();
    for n in 0..60 {
        let update = crate::wire::update("acme", "$set", json!({format!("list{n}"): list}));
        assert_eq!(sender.send("", &update).body, "1");
    }
    for path in [
        "/emulator/groups",
        "/emulator/group?key=company&id=acme",
        "/emulator/requests",
    ] {
        let len = get(&emulator, path).len();
        assert!(len < 1_000_000, "{path}: {len} bytes");
    }
}

#[test]
fn a_hundred_thousand_groups_are_searched_in_parts() {
    let emulator = Emulator::start().unwrap();
    let updates = (0..100_000).map(|id| {
        let plan = if id == 0 { "the oldest" } else { "free" };
        Group::new("company", id).set(json!({"plan": plan}))
    });
    assert_eq!(client(&emulator).send(updates).unwrap().accepted, 100_000);
    let first = view(&emulator, "/emulator/groups");
    assert_eq!(first["known"], 100_000);
    assert_eq!(first["groups"].as_array().unwrap().len(), 200);
    // The last of ten parts has it.
    let mut before = u64::MAX.to_string();
    let mut found = Vec::new();
    for _ in 0..10 {
        let path = format!("/emulator/groups?search=the+oldest&before={before}");
        let part = view(&emulator, &path);
        found.push(part["groups"].as_array().unwrap().len());
        before = part["next"].to_string();
    }
    assert_eq!(found, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}
