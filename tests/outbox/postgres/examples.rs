//! The examples that need a server run, and print what their texts promise.

use common::postgres::Harness;
use common::{Ended, Example};

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
