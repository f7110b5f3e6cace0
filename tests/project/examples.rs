//! The examples run, and do what their headers promise. Those that need a database are tested with its outbox.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use common::{Example, LONG};
use mixpanel_groups::{Client, Group};
use mixpanel_groups_emulator::Emulator;
use serde_json::json;

const COMPANIES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/data/fortune1000_2022.csv"
);

/// Returns what an example prints that succeeds and warns of nothing.
#[track_caller]
fn printed(example: &str, arguments: &[&str]) -> String {
    let ended = Example::run(Example::command(example).args(arguments));
    assert!(ended.status.success(), "{}{}", ended.printed, ended.errors);
    assert_eq!(ended.errors, "");
    ended.printed
}

/// Makes a request to `host:port`, as a browser does, and returns the status line and the body.
#[track_caller]
fn request(address: &str, head: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    write!(
        stream,
        "{head} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

const ALL_SENT: &str = ": 994 companies, 0 malformed rows\nsent 994, accepted 994, rejected 0; ";

#[test]
fn backfill_sends_the_whole_file() {
    let printed = printed("backfill", &[COMPANIES]);
    assert!(printed.contains(ALL_SENT), "{printed}");
    assert!(printed.contains(", retries 0, "), "{printed}");
}

#[test]
fn backfill_sends_the_whole_file_to_a_server_that_misbehaves() {
    let printed = printed("backfill", &[COMPANIES, "--faults"]);
    assert!(printed.contains(ALL_SENT), "{printed}");
    assert!(!printed.contains(", retries 0, "), "{printed}");
}

#[test]
fn backfill_names_the_line_of_a_malformed_row_and_sends_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("companies.csv");
    let emulator = Emulator::start().unwrap();
    let companies = fs::read_to_string(COMPANIES).unwrap();
    let mut lines: Vec<_> = companies.lines().collect();
    let malformed = lines[2].replace("no", "perhaps");
    lines[2] = &malformed; // Amazon
    lines[4] = "cvshealth,CVS Health";
    fs::write(&file, lines.join("\n")).unwrap();

    let mut command = Example::command("backfill");
    command
        .arg(&file)
        .env("MIXPANEL_TOKEN", "any")
        .env("MIXPANEL_ENDPOINT", emulator.endpoint());
    let ended = Example::run(&mut command);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.errors);
    let errors: Vec<_> = ended.errors.lines().collect();
    let [amazon, cvs] = errors[..] else {
        panic!("{errors:?}");
    };
    assert!(
        amazon.contains("line: 3") && amazon.contains("perhaps"),
        "{amazon}"
    );
    assert!(cvs.contains("line: 5"), "{cvs}");
    assert!(
        ended
            .printed
            .contains(": 992 companies, 2 malformed rows\nsent 992, accepted 992, rejected 0; "),
        "{}",
        ended.printed
    );
    assert_eq!(emulator.profiles().len(), 992);
    assert!(emulator.profile("company", "amazon").is_none());
    assert!(emulator.profile("company", "apple").is_some());
}

#[test]
fn backfill_of_something_that_cannot_be_read_fails() {
    let folder = tempfile::tempdir().unwrap();
    let is_missing = folder.path().join("missing.csv");
    for path in [folder.path(), &is_missing] {
        let ended = Example::run(Example::command("backfill").arg(path));
        assert_eq!(ended.status.code(), Some(1));
        let error = format!("Error: \"{}: ", path.display());
        assert!(ended.errors.starts_with(&error), "{}", ended.errors);
    }
}

#[test]
fn nightly_sync_sends_what_changed() {
    let printed = printed("nightly_sync", &[]);
    let nights: Vec<_> = printed.split_inclusive(" profiles\n").collect();
    let [first, second, third] = nights[..] else {
        panic!("{printed}");
    };
    let reports = [
        (
            first,
            "First night: 994 companies, 0 known from before",
            1940,
        ),
        (
            second,
            "Second night: 994 companies, 994 known from before",
            8,
        ),
        (
            third,
            "Third night: 994 companies, 994 known from before",
            0,
        ),
    ];
    for (night, title, updates) in reports {
        let report = format!("{title}\n  sent {updates}, accepted {updates}, rejected 0;");
        assert!(night.starts_with(&report), "{night}");
        assert!(night.ends_with("  Mixpanel has 994 profiles\n"), "{night}");
    }
    let shown = |night: &str| night.lines().filter(|it| it.starts_with("  {")).count();
    assert_eq!([first, second, third].map(shown), [8, 8, 0], "{printed}");
    assert!(first.contains("… and 1932 more"), "{first}");
}

#[test]
fn tracking_plan_has_a_row_for_each_property() {
    let printed = printed("tracking_plan", &[]);
    let expected = "## Group key `company`\n
| property | operation | field | meaning |
|---|---|---|---|
| $name | `$set` | `name` | The name that Mixpanel shows for the group. |
| Plan | `$set` | `plan` | `free` \\| `team` \\| `enterprise` |
| Industry | `$set` | `industry` | Left out where it is not known. |
| FoundingYear | `$set_once` | `founding_year` | Kept from the first time it is sent. |
| Integrations | `$union` | `integrations` | Other products that the company connected, each of them once. |
| Seats Purchased | `$set` | `seats` |  |
";
    assert_eq!(printed, expected);
}

#[test]
fn web_server_publishes_an_update_and_an_event_for_a_request() {
    let emulator = Emulator::start().unwrap();
    let mut command = Example::command("web_server");
    command
        .arg("127.0.0.1:0")
        .env("MIXPANEL_TOKEN", "any")
        .env("MIXPANEL_ENDPOINT", emulator.endpoint());
    let server = Example::start(&mut command);
    let address = &*server.wait_for("listening on http://");

    let (status, body) = request(address, "POST /companies/acme/plan?enterprise");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(body, "acme has the plan enterprise now\n");
    let acme = emulator.wait_for(LONG, |it| it.profile("company", "acme"));
    assert_eq!(acme.unwrap().to_string(), r#"{"plan":"enterprise"}"#);
    let (_, metrics) = request(address, "GET /metrics");
    assert!(
        metrics.contains("mixpanel_queued{kind=\"updates\"} "),
        "{metrics}"
    );
    assert!(request(address, "GET /").0.starts_with("HTTP/1.1 404"));

    // What waits is sent before it ends.
    request(address, "POST /companies/globex/plan?free");
    server.signal("TERM");
    let ended = server.end();
    assert!(ended.status.success(), "{}", ended.errors);
    assert_eq!(ended.errors, "");
    let expected = "2 updates and 2 events accepted; nothing is left to send";
    assert!(ended.printed.contains(expected), "{}", ended.printed);
    assert!(emulator.profile("company", "globex").is_some());
    assert_eq!(emulator.events_of("company", "acme").len(), 1);
}

#[test]
fn web_server_makes_requests_to_itself() {
    let printed = printed("web_server", &["--demo"]);
    let acme = r#"company acme: {"plan":"enterprise"}, events: 2"#;
    let globex = r#"company globex: {"plan":"free"}, events: 1"#;
    let accepted = "3 updates and 3 events accepted; nothing is left to send";
    for promised in [acme, globex, accepted] {
        assert!(printed.contains(promised), "{promised}: {printed}");
    }
}

#[test]
fn local_mixpanel_accepts_updates_and_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    let start = || {
        let mut command = Example::command("local_mixpanel");
        let command = command.args(["--port", "0", "--keep"]).arg(&state);
        let example = Example::start(command);
        let address = example.wait_for("listens on http://");
        (example, address)
    };
    let group = |address: &str| request(address, "GET /emulator/group?key=company&id=acme").1;

    let (example, address) = start();
    let (status, page) = request(&address, "GET /");
    assert!(
        status.ends_with("200 OK") && page.contains("Local Mixpanel"),
        "{status}{page}"
    );
    let client = Client::builder("any")
        .endpoint(format!("http://{address}"))
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap();
    let acme = Group::new("company", "acme").set(json!({"plan": "pro"}));
    client.send([acme]).unwrap().into_result().unwrap();
    let expected = r#""profile":{"plan":"pro"}"#;
    assert!(group(&address).contains(expected));

    common::eventually("saved", || {
        fs::read_to_string(&state).is_ok_and(|kept| kept.contains("acme"))
    });
    example.signal("INT");
    let ended = example.end();
    assert_eq!(ended.errors, "");
    let (_again, address) = start();
    assert!(group(&address).contains(expected));
}
