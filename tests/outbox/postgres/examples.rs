//! The examples that need a server run, and print what their texts promise.

use std::env;
use std::process::Command;

use common::postgres::Harness;

/// What an example prints, in a database of its own.
fn run(example: &str, arguments: &[&str]) -> Option<String> {
    let harness = Harness::new()?;
    let database = format!("{}_{example}", harness.schema);
    let mut server = harness.client();
    server
        .batch_execute(&format!("CREATE DATABASE {database}"))
        .unwrap();
    let (user, port) = (
        harness.config.get_user().unwrap(),
        harness.config.get_ports()[0],
    );
    let postgres::config::Host::Tcp(host) = &harness.config.get_hosts()[0] else {
        panic!("a server on TCP");
    };
    // The gate has built it just now, with the tests.
    let built = env::current_exe().unwrap();
    let built = built.parent().unwrap().join("../examples").join(example);
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--locked", "--example", example, "--"]);
    if env::var_os("CI").is_some() {
        command = Command::new(built);
    }
    let run = command
        .args(arguments)
        .env(
            "DATABASE_URL",
            format!("postgres://{user}@{host}:{port}/{database}"),
        )
        .env_remove("MIXPANEL_TOKEN")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{errors}");
    server
        .batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)"))
        .unwrap();
    Some(String::from_utf8(run.stdout).unwrap())
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
