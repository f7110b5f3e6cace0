//! Tokens and service accounts as they come from files and variables.

use std::env;

use common::is_own_process;
use mixpanel_groups::{Client, ClientBuilder, ErrorKind, Event, Group};
use mixpanel_groups_emulator::Emulator;

fn message(builder: ClientBuilder) -> String {
    let error = builder.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

#[test]
fn white_space_around_a_token_is_not_sent() {
    for token in ["TOKEN\n", "TOKEN\r\n", " TOKEN\t", "\u{a0}TOKEN", "TOKEN"] {
        let emulator = Emulator::builder().token("TOKEN").start().unwrap();
        let builder = Client::builder(token).endpoint(format!(" {}\n", emulator.endpoint()));
        let client = builder.build().unwrap();
        let report = client.send(Group::new("company", "acme").delete()).unwrap();
        assert_eq!(report.accepted, 1);
        let event = Event::new("Purchase").distinct_id("");
        assert_eq!(client.import(event).unwrap().accepted, 1);
        let body: serde_json::Value = serde_json::from_str(&emulator.requests()[0].body).unwrap();
        assert_eq!(body[0]["$token"], "TOKEN");
    }
}

#[test]
fn a_token_with_other_characters_is_an_error_that_does_not_show_it() {
    for (token, found) in [
        ("\"HUNTER2\"", "a double quote"),
        ("'HUNTER2'", "a single quote"),
        ("\u{feff}HUNTER2", "a byte order mark"),
        ("HUNTER2 HUNTER2", "a space"),
        ("HUNTER2\nHUNTER2", "a line break"),
        ("HUNTER2\0", "'\\0'"),
        ("HUNTER2=", "the character '='"),
        ("HUNTER2é", "the character 'é'"),
    ] {
        let expected = format!(
            "invalid project token: it contains {found}; copy it from the project's settings, \
             without quotes"
        );
        assert_eq!(message(Client::builder(token)), expected);
        assert_eq!(message(Client::builder("T").token(token)), expected);
    }
    for token in ["", " ", "\n"] {
        assert_eq!(
            message(Client::builder(token)),
            "the project token is empty"
        );
    }
}

#[test]
fn a_service_account_is_checked_as_the_token_is() {
    let account = |user: &str, secret: &str, project: &str| {
        Client::builder("T").service_account(user, secret, project)
    };
    account(" a.1f.mp-service-account\n", "secret\n", "7\n")
        .build()
        .unwrap();
    const USER: &str = "service account's user name";
    const SECRET: &str = "service account's secret";
    const ID: &str = "project id";
    for (user, secret, id, name, found) in [
        ("\"user\"", "HUNTER2", "7", USER, "a double quote"),
        ("us er", "HUNTER2", "7", USER, "a space"),
        ("us:er", "HUNTER2", "7", USER, "the character ':'"),
        ("user", "'HUNTER2'", "7", SECRET, "a single quote"),
        ("user", "\u{feff}HUNTER2", "7", SECRET, "a byte order mark"),
        ("user", "HUNTER2", "'7'", ID, "a single quote"),
        ("user", "HUNTER2", "\u{feff}7", ID, "a byte order mark"),
        ("user", "HUNTER2", "7&a", ID, "the character '&'"),
    ] {
        let text = message(account(user, secret, id));
        assert!(
            text.starts_with(&format!("invalid {name}: it contains {found};")),
            "{text}"
        );
        assert!(!text.contains("HUNTER2"), "{text}");
    }
    for (user, secret, id, name) in [
        (" ", "HUNTER2", "7", USER),
        ("user", "", "7", SECRET),
        ("user", "HUNTER2", "\n", ID),
    ] {
        let text = message(account(user, secret, id));
        assert_eq!(text, format!("the {name} is empty"));
    }
}

#[test]
fn a_mistake_in_the_environment_is_named() {
    let empty = |name: &str| format!("the environment variable {name} is empty");
    for (token, region, endpoint, expected) in [
        (" ", "eu", "https://example.com", empty("MIXPANEL_TOKEN")),
        ("T", "", "https://example.com", empty("MIXPANEL_REGION")),
        ("T", "eu", "", empty("MIXPANEL_ENDPOINT")),
        (
            "T",
            "de",
            "https://example.com",
            "unknown region \"de\": expected us, eu or in".to_owned(),
        ),
    ] {
        let variables = [
            ("MIXPANEL_TOKEN", token),
            ("MIXPANEL_REGION", region),
            ("MIXPANEL_ENDPOINT", endpoint),
            ("EXPECTED", &expected),
        ];
        if is_own_process(a_mistake_in_the_environment_is_named, &variables) {
            let error = Client::from_env().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(error.to_string(), env::var("EXPECTED").unwrap());
            return;
        }
    }
}
