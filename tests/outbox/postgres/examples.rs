//! The examples that need a server run, and print what their texts promise.

use common::postgres::Harness;
use common::{Ended, Example, eventually};
use mixpanel_groups::Group;
use mixpanel_groups_emulator::{Emulator, Fault};
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::NoTls;
use serde_json::json;

/// A database of its own for an example.
struct Database {
    harness: Harness,
    name: String,
}

impl Database {
    /// Nothing, if there is no server.
    fn new(example: &str) -> Option<Self> {
        let harness = Harness::new()?;
        let name = format!("{}_{example}", harness.schema);
        let database = Self { harness, name };
        database.execute(&format!("CREATE DATABASE {}", database.name));
        Some(database)
    }

    fn execute(&self, statement: &str) {
        self.harness.client().batch_execute(statement).unwrap();
    }

    fn url(&self) -> String {
        let config = &self.harness.config;
        let (user, port) = (config.get_user().unwrap(), config.get_ports()[0]);
        let postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else {
            panic!("a server on TCP");
        };
        format!("postgres://{user}@{host}:{port}/{}", self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // What is left of a test that failed goes with the server.
        if !std::thread::panicking() {
            self.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

/// Returns what an example prints.
fn run(example: &str, arguments: &[&str]) -> Option<String> {
    let database = Database::new(example)?;
    let mut command = Example::command(example);
    let Ended {
        status,
        printed,
        errors,
    } = Example::run(command.args(arguments).env("DATABASE_URL", database.url()));
    assert!(status.success(), "{printed}{errors}");
    Some(printed)
}

#[test]
fn diesel() {
    let Some(printed) = run("diesel", &[]) else {
        return;
    };
    assert!(
        printed.contains("rolled back: a company has at least one seat"),
        "{printed}"
    );
    let acme = r#"company acme: {"plan":"enterprise","seats":40}"#;
    let globex = r#"company globex: {"plan":"free","seats":1}"#;
    assert!(
        printed.contains(acme) && printed.contains(globex),
        "{printed}"
    );
}

#[test]
fn axum() {
    let Some(printed) = run("axum", &["--demo"]) else {
        return;
    };
    let acme = r#"company acme: {"plan":"enterprise"}, events: 2"#;
    let globex = r#"company globex: {"plan":"free"}, events: 1"#;
    assert!(printed.contains("rejected 0"), "{printed}");
    assert!(
        printed.contains(acme) && printed.contains(globex),
        "{printed}"
    );
}

/// As a container's runtime ends it.
#[test]
fn axum_sends_what_waits_when_it_is_to_end() {
    let Some(database) = Database::new("axum_end") else {
        return;
    };
    let emulator = Emulator::start().unwrap();
    for (signal, id) in [("TERM", "acme"), ("INT", "globex")] {
        let mut command = Example::command("axum");
        let server = Example::start(
            command
                .arg("127.0.0.1:0")
                .env("DATABASE_URL", database.url())
                .env("MIXPANEL_TOKEN", "any")
                .env("MIXPANEL_ENDPOINT", emulator.endpoint()),
        );
        let address = server.wait_for("http://");
        let plan = format!("http://{address}/companies/{id}/plan/pro");
        ureq::post(plan).send_empty().unwrap();
        server.signal(signal);
        let ended = server.end();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.errors);
        let printed = ended.printed;
        assert!(
            printed.ends_with("\nnothing is left to send\n"),
            "{printed}"
        );
        let profile = emulator.profile("company", id).unwrap();
        assert_eq!(profile.to_string(), r#"{"plan":"pro"}"#);
    }
}

#[test]
fn relay() {
    let Some(database) = Database::new("relay") else {
        return;
    };
    let emulator = Emulator::start().unwrap();
    for (signal, id) in [("TERM", "acme"), ("INT", "globex")] {
        let mut command = Example::command("relay");
        let relay = Example::start(
            command
                .env("DATABASE_URL", database.url())
                .env("MIXPANEL_TOKEN", "any")
                .env("MIXPANEL_ENDPOINT", emulator.endpoint()),
        );
        relay.wait_for("events: waiting 0, accepted 0, rejected 0"); // The tables are there.
        let mut application = postgres::Client::connect(&database.url(), NoTls).unwrap();
        let outbox = PostgresOutbox::new(database.url().parse().unwrap(), NoTls).unwrap();
        let mut publish = |plan: &str| {
            let mut transaction = application.transaction().unwrap();
            let update = Group::new("company", id).set(json!({"plan": plan}));
            outbox.publish_in(&mut transaction, update).unwrap();
            transaction.commit().unwrap();
        };
        let plan = || Some(emulator.profile("company", id)?.to_string());
        publish("free");
        eventually("sent", || plan().as_deref() == Some(r#"{"plan":"free"}"#));

        // What waits when the signal comes is sent before it ends.
        let before = emulator.requests().len();
        emulator.fail_next(Fault::Status(503));
        publish("pro");
        eventually("requested", || emulator.requests().len() > before);
        relay.signal(signal);
        let ended = relay.end();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.errors);
        let printed = ended.printed;
        assert!(
            printed.ends_with("\nnothing is left to send\n"),
            "{printed}"
        );
        assert_eq!(plan().as_deref(), Some(r#"{"plan":"pro"}"#));
        let waiting = application.query_one("SELECT count(*) FROM mixpanel_outbox", &[]);
        assert_eq!(waiting.unwrap().get::<_, i64>(0), 0);
    }
}
