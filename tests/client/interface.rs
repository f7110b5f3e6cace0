//! What programs rely on beside sending: updates that cross threads, traits, settings as text and from a
//! config file, and errors that hand back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::error::Error as _;
use std::sync::mpsc;
use std::thread;

use mixpanel_groups::client::Batch;
use mixpanel_groups::event::Event;
use mixpanel_groups::outbox::OutboxEntry;
use mixpanel_groups::record::{Changes, RecordRef, Updates};
use mixpanel_groups::{
    Client, ClientBuilder, Compression, EncodedUpdate, Error, ErrorKind, Group, Id, MixpanelGroup,
    Operation, Region, Rejection, Report, RetryPolicy, Undelivered, Update,
};
use mixpanel_groups_emulator::Emulator;
use rayon::prelude::*;
use serde_json::json;

#[derive(Clone, MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: usize,
    seats: usize,
}

fn companies() -> Vec<Company> {
    (0..50).map(|id| Company { id, seats: id }).collect()
}

fn client(emulator: &Emulator) -> Client {
    let builder = Client::builder("TOKEN").endpoint(emulator.endpoint());
    builder.build().unwrap()
}

fn is_thread_safe<T: Send + Sync>() {}

#[test]
fn updates_cross_threads() {
    is_thread_safe::<Update<'_>>();
    is_thread_safe::<Updates<'_>>();
    is_thread_safe::<Changes<'_>>();
    is_thread_safe::<EncodedUpdate>();
    is_thread_safe::<Event>();
    is_thread_safe::<Error>();
    is_thread_safe::<Client>();
}

#[test]
fn a_receiver_of_encoded_updates_can_be_sent() {
    let emulator = Emulator::start().unwrap();
    let (sender, receiver) = mpsc::channel::<EncodedUpdate>();
    let producer = thread::spawn(move || {
        for company in companies() {
            let encoded = EncodedUpdate::new(&company.set()).unwrap().unwrap();
            sender.send(encoded).unwrap();
        }
    });
    let report = client(&emulator).send(receiver).unwrap();
    producer.join().unwrap();
    assert_eq!((report.accepted, report.is_all_accepted()), (50, true));
}

#[test]
fn rayon_encodes_updates() {
    let emulator = Emulator::start().unwrap();
    let companies = companies();
    let updates: Vec<Update<'_>> = companies.par_iter().map(MixpanelGroup::set).collect();
    let client = client(&emulator);
    updates.par_chunks(10).for_each(|updates| {
        client.send(updates).unwrap().into_result().unwrap();
    });
    assert_eq!(emulator.profiles().len(), 50);
}

#[test]
fn scoped_threads_and_tasks_share_updates() {
    let emulator = Emulator::start().unwrap();
    let (companies, client) = (companies(), client(&emulator));
    let updates: Vec<_> = companies.iter().flat_map(MixpanelGroup::updates).collect();
    thread::scope(|scope| {
        for half in updates.chunks(25) {
            let client = &client;
            scope.spawn(move || client.send(half).unwrap().into_result().unwrap());
        }
    });
    let owned: Vec<Update<'static>> = updates.into_iter().map(Update::into_owned).collect();
    let (copy, its_client) = (owned.clone(), client.clone());
    let spawned = thread::spawn(move || its_client.send(copy).unwrap().accepted);
    assert_eq!(spawned.join().unwrap(), 50);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let task = runtime.spawn(async move {
        let sent = tokio::task::spawn_blocking(move || client.send(owned).unwrap());
        sent.await.unwrap().accepted
    });
    assert_eq!(runtime.block_on(task).unwrap(), 50);
}

#[test]
fn a_full_batch_gives_the_update_back() {
    let company = Group::new("company", "acme");
    let mut batch = Batch::new("TOKEN");
    let text = "x".repeat(900_000);
    batch.push(company.set(json!({"a": text}))).unwrap();
    batch.push(company.set(json!({"b": text}))).unwrap();
    let third = company.set(json!({"c": text}));
    let error = batch.push(&third).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert_eq!(error.undelivered().updates().collect::<Vec<_>>(), [third]);
    assert_eq!(batch.len(), 2);
    batch.clear();
    batch
        .push(error.undelivered().updates().next().unwrap())
        .unwrap();
    assert!(batch.body().ends_with(b"x\"}}]"));
}

#[test]
fn one_record_or_many_are_sent() {
    let emulator = Emulator::start().unwrap();
    let (client, company) = (client(&emulator), &companies()[0]);
    let accepted = |report: Result<Report, Error>| report.unwrap().accepted;
    assert_eq!(accepted(client.send(company.set())), 1);
    assert_eq!(accepted(client.send([company.set()])), 1);
    assert_eq!(accepted(client.send(company.updates())), 1);
    assert_eq!(accepted(client.send(&[company.set()])), 1);
    let event = Event::new("Purchase").distinct_id("").group(company);
    assert_eq!(accepted(client.import(&event)), 1);
    assert_eq!(accepted(client.import([&event])), 1);
    assert_eq!(accepted(client.import([event.clone()])), 1);
    assert_eq!(accepted(client.import(event)), 1);
    assert_eq!(emulator.events().len(), 1);
}

#[test]
fn rejections_become_an_error_on_request() {
    let nothing_good = [
        Group::new("company", "").delete(),
        Group::new("", "a").delete(),
    ];
    let report = Client::disabled().send(nothing_good).unwrap();
    assert_eq!((report.accepted, report.is_all_accepted()), (0, false));
    let error = report.clone().into_result().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(error.report(), Some(&report));
    assert_eq!(
        error.to_string(),
        r#"2 records were rejected, the first: record 0, $delete of company "": "$group_id": the id is empty"#
    );
    assert_eq!(
        serde_json::to_value(&report).unwrap(),
        json!({
            "sent": 0, "accepted": 0, "coalesced": 0, "requests": 0, "retries": 0, "bytes": 0,
            "rejected": [
                {"position": 0, "record": {"group_key": "company", "group_id": "", "operation": "$delete"},
                 "field": "$group_id", "message": "the id is empty", "by_server": false},
                {"position": 1, "record": {"group_key": "", "group_id": "a", "operation": "$delete"},
                 "field": "$group_key", "message": "the group key is empty", "by_server": false},
            ],
        })
    );
}

#[test]
fn errors_and_rejections_are_made_outside() {
    let update = EncodedUpdate::new(&Group::new("company", "acme").delete());
    let undelivered: Undelivered = update.unwrap().into_iter().collect();
    let cause = std::io::Error::other("disk on fire");
    let error = Error::new(ErrorKind::Io, "cannot write to the outbox").with_source(cause);
    assert_eq!(error.to_string(), "cannot write to the outbox");
    assert_eq!(
        format!("{error:#}"),
        "cannot write to the outbox: disk on fire"
    );
    assert!(error.source().is_some() && error.undelivered().is_empty());
    let error = error.with_undelivered(undelivered);
    assert_eq!(
        error.to_string(),
        "cannot write to the outbox (1 undelivered)"
    );
    assert_eq!(error.undelivered().updates().count(), 1);

    let record = RecordRef::update(&Group::new("company", "acme"), Operation::Set);
    let rejection = Rejection::new(record, Some("plan".to_owned()), "is not a plan");
    assert_eq!(
        rejection.to_string(),
        r#"record 0, $set of company "acme": "plan": is not a plan"#
    );
}

#[test]
fn an_entry_that_cannot_be_read_is_an_error() {
    let entry: OutboxEntry = OutboxEntry::read(7, "{");
    let read = |entry: OutboxEntry| -> Result<EncodedUpdate, Box<dyn std::error::Error>> {
        Ok(entry.update?)
    };
    let error = read(entry).unwrap_err();
    assert!(error.to_string().starts_with("not an update"), "{error}");
}

#[test]
fn ids_and_groups_are_keys() {
    let ids = [
        Id::from("b"),
        Id::from(7),
        Id::from("7"),
        Id::from("a").with_prefix("x_"),
    ];
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 3);
    let sorted: Vec<_> = ids.iter().collect::<BTreeSet<_>>().into_iter().collect();
    assert_eq!(
        sorted.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
        ["7", "b", "x_a"]
    );
    let long = "long ".repeat(20);
    let id = Id::from(7).with_prefix(&long).with_prefix("very ");
    assert_eq!(id.as_str(), format!("very {long}7"));

    let group = |id| Group::new("company", id);
    let seats = BTreeMap::from([
        (group(2), 20),
        (group(10), 100),
        (group(2).in_company(1), 3),
    ]);
    assert_eq!(seats.into_values().collect::<Vec<_>>(), [100, 20, 3]);
}

#[test]
fn updates_are_compared_by_what_is_sent() {
    let acme = Company { id: 7, seats: 5 };
    let group = Group::new("company", "7");
    assert_eq!(acme.set(), group.set(json!({"seats": 5})));
    assert_ne!(acme.set(), group.set(json!({"seats": 6})));
    assert_ne!(acme.set(), acme.delete());
    assert_eq!(
        Group::new("company", "").delete(),
        Group::new("company", "").delete()
    );
    let encoded = EncodedUpdate::new(&acme.set()).unwrap().unwrap();
    let owned: Update<'static> = encoded.clone().into();
    assert_eq!(
        (owned.operation(), &owned),
        (Some(Operation::Set), &acme.set())
    );
    assert_eq!(Update::from(&encoded), owned);
    let client = Client::disabled();
    assert_eq!(client.send(&encoded).unwrap().accepted, 1);
    assert_eq!(client.send(encoded).unwrap().accepted, 1);
}

#[test]
fn nothing_to_send_is_none() {
    let nothing = Group::new("company", "acme").set(json!({}));
    assert_eq!(nothing.to_json().unwrap(), None);
    assert_eq!(EncodedUpdate::new(&nothing).unwrap(), None);
    assert_eq!(format!("{nothing:?}"), "Update(nothing to send)");
}

/// The texts are what `Display` writes, and `FromStr` reads them again.
#[test]
fn settings_are_text() {
    for region in [Region::Us, Region::Eu, Region::In] {
        assert_eq!(region.to_string().parse::<Region>().unwrap(), region);
    }
    for compression in [
        Compression::None,
        Compression::gzip(1),
        Compression::gzip(9),
    ] {
        assert_eq!(
            compression.to_string().parse::<Compression>().unwrap(),
            compression
        );
    }
    assert_eq!("gzip".parse::<Compression>().unwrap(), Compression::gzip(6));
    for operation in Operation::ALL {
        assert_eq!(
            operation.to_string().parse::<Operation>().unwrap(),
            *operation
        );
    }
    let message = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    assert_eq!(
        message("moon".parse::<Region>().unwrap_err()),
        "unknown region \"moon\": expected us, eu or in"
    );
    assert_eq!(
        message("gzip:10".parse::<Compression>().unwrap_err()),
        "unknown compression \"gzip:10\": expected none, gzip or gzip:1 to gzip:9"
    );
    assert_eq!(
        message("$add".parse::<Operation>().unwrap_err()),
        "unknown operation \"$add\": expected one of $set, $set_once, $union, $unset, $remove, $delete"
    );
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let builder = || Client::builder("TOKEN");
    let zero = std::time::Duration::ZERO;
    let rows: [(ClientBuilder, &str); 11] = [
        (Client::builder(" "), "the project token is empty"),
        (
            builder().max_batch(0),
            "invalid max_batch 0: expected 1 to 2000",
        ),
        (
            builder().max_batch(2_001),
            "invalid max_batch 2001: expected 1 to 2000",
        ),
        (
            builder().connections(0),
            "invalid connections 0: expected 1 to 256",
        ),
        (
            builder().connections(257),
            "invalid connections 257: expected 1 to 256",
        ),
        (
            builder().max_body(99),
            "invalid max_body 99: expected at least 100",
        ),
        (builder().timeout(zero), "invalid timeout: it is zero"),
        (
            builder().connect_timeout(zero),
            "invalid connect_timeout: it is zero",
        ),
        (
            builder().compression(Compression::gzip(10)),
            "invalid gzip level 10: expected 1 to 9",
        ),
        (
            builder().retry(RetryPolicy::default().attempts(0)),
            "invalid retry policy: 0 attempts; for no retries use 1",
        ),
        (
            builder().proxy("ftp://user:PASSWORD@proxy"),
            "invalid proxy ftp://proxy: unknown scheme; expected http, https, socks4, socks4a, socks5 or socks5h",
        ),
    ];
    for (builder, expected) in rows {
        let error = builder.build().unwrap_err();
        assert_eq!(
            (error.kind(), &*error.to_string()),
            (ErrorKind::Config, expected)
        );
    }
}

#[test]
fn all_settings_come_from_a_config_file() {
    let emulator = Emulator::start().unwrap();
    let config = format!(
        r#"
        token = "TOKEN"
        endpoint = "{}"
        allow_plain_http = false
        max_batch = 2
        max_body = 1000
        connections = 1
        compression = "gzip:1"
        timeout = "10s"
        connect_timeout = 2.5
        strict = true
        no_proxy = true
        service_account = {{ user = "USER", secret = "SECRET", project_id = 7 }}
        [retry]
        attempts = 5
        base_delay = "10ms"
        max_delay = "1m"
        deadline = 300
        "#,
        emulator.endpoint()
    );
    let builder: ClientBuilder = toml::from_str(&config).unwrap();
    let shown = format!("{builder:?}");
    assert!(
        !shown.contains("TOKEN") && !shown.contains("SECRET"),
        "{shown}"
    );
    assert!(
        shown.contains("attempts: 5") && shown.contains("timeout: 10s"),
        "{shown}"
    );
    let client = builder.build().unwrap();
    let report = client
        .send(companies().iter().map(MixpanelGroup::set))
        .unwrap();
    assert_eq!((report.accepted, report.requests), (50, 25));
    let event = Event::new("Purchase").distinct_id("");
    assert_eq!(client.import(event).unwrap().accepted, 1);
    assert!(
        emulator
            .requests()
            .last()
            .unwrap()
            .query
            .contains("project_id=7")
    );
}

#[test]
fn mistakes_in_a_config_file_are_named() {
    let message = |config: &str| match toml::from_str::<ClientBuilder>(config) {
        Ok(builder) => builder.build().unwrap_err().to_string(),
        Err(error) => error.message().to_owned(),
    };
    assert_eq!(message(""), "the project token is empty");
    assert_eq!(
        message("token = 'T'\nregion = 'moon'"),
        "unknown region \"moon\": expected us, eu or in"
    );
    assert!(
        message("regoin = 'eu'").starts_with("unknown field `regoin`, expected one of `token`, ")
    );
    assert_eq!(
        message("timeout = 'soon'"),
        "invalid value: string \"soon\", expected a duration such as \"30s\" or a number of seconds"
    );
    assert_eq!(
        message("timeout = -1"),
        "invalid value: integer `-1`, expected a duration such as \"30s\" or a number of seconds"
    );
    assert_eq!(
        message("region = 'eu'\nendpoint = 'https://example.com'"),
        "`region` excludes `endpoint`"
    );
    assert_eq!(
        message("root_certificates = '-'\nplatform_verifier = true"),
        "`root_certificates` excludes `platform_verifier`"
    );
    assert_eq!(
        message("token = 'T'\nroot_certificates = '-'"),
        "invalid root_certificates: it contains no certificate; expected PEM, which begins with \
         -----BEGIN CERTIFICATE-----"
    );
    assert_eq!(
        message("token = 'T'\nconnections = 0"),
        "invalid connections 0: expected 1 to 256"
    );
}

#[test]
fn mistakes_in_a_config_file_show_no_secret() {
    let message = |config: &str| {
        let error = serde_json::from_str::<ClientBuilder>(config).unwrap_err();
        let message = error.to_string();
        message[..message.find(" at line").unwrap()].to_owned()
    };
    for secret in ["12345678", "-12345678", "1234.5678", "1e300"] {
        for config in [
            format!(r#"{{"token":{secret}}}"#),
            format!(r#"{{"token":"t","proxy":{secret}}}"#),
            format!(r#"{{"service_account":{{"user":"u","secret":{secret},"project_id":1}}}}"#),
            format!(r#"{{"service_account":{{"user":{secret},"secret":"s","project_id":1}}}}"#),
        ] {
            let expected = "expected text (the value is not shown)";
            assert_eq!(message(&config), expected, "{config}");
        }
    }
    for (secret, is_a) in [("\"u:hushhush\"", "text"), ("12345678", "integer")] {
        let expected = format!("invalid type: {is_a}, expected settings, each with its name");
        for config in [
            format!(r#"{{"token":"t","service_account":{secret}}}"#),
            format!(r#"{{"token":"t","retry":{secret}}}"#),
        ] {
            assert_eq!(message(&config), expected, "{config}");
        }
    }
}

/// Each of the two gets the settings that have its names.
#[test]
fn a_client_and_other_settings_may_be_flattened_into_one_section() {
    #[derive(serde::Deserialize)]
    struct Other {
        listen: String,
    }
    #[derive(serde::Deserialize)]
    struct App {
        #[serde(flatten)]
        mixpanel: ClientBuilder,
        #[serde(flatten)]
        other: Other,
    }
    let config = json!({"token": "T", "timeout": "10s", "retry": {"attempts": 2}, "listen": ":80"});
    let app: App = serde_json::from_value(config).unwrap();
    assert!(app.mixpanel.build().is_ok());
    assert_eq!(app.other.listen, ":80");
}

/// As `serde_json` presents it if another crate enables `arbitrary_precision`.
#[test]
fn a_fraction_of_seconds_may_be_a_map() {
    let config = |number: &str| {
        let number = json!({"$serde_json::private::Number": number});
        serde_json::from_value::<ClientBuilder>(json!({"token": "T", "timeout": number}))
    };
    assert!(config("1.5").unwrap().build().is_ok());
    for wrong in ["-1.5", "x"] {
        let error = config(wrong).unwrap_err().to_string();
        assert!(error.contains("expected a duration"), "{error}");
    }
}
