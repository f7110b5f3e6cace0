//! An async web server that keeps Mixpanel in sync, with the outbox in PostgreSQL.
//!
//! ```sh
//! DATABASE_URL=postgres://user@localhost/scratch cargo run --example axum
//! curl -X POST 'http://127.0.0.1:8000/companies/acme/plan/enterprise' # from another terminal
//! curl http://127.0.0.1:8000/metrics
//! cargo run --example axum -- 0.0.0.0:9000 # reachable from other machines, on another port
//! ```
//!
//! With `--demo` it makes such requests to itself and ends. It creates the tables of the outbox in the schema `public`.
//!
//! A handler awaits the commit of its update, and of an event that links the user to the company. Other handlers run
//! meanwhile. The relay has threads of its own, which send what was committed, also by other servers. SIGTERM and Ctrl-C
//! end the server: it finishes its requests, and sends what waits, for at most ten seconds more. Mixpanel is a stand-in on
//! a loopback port, or with `MIXPANEL_TOKEN` set the real one.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use mixpanel_groups::buffered::Stats;
use mixpanel_groups::{BufferedClient, Client, Event, MixpanelGroup};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_postgres::PostgresOutbox;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

/// What a request changes: a struct may map only some of a group's properties.
#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct PlanChange {
    #[mixpanel(group_id)]
    company: String,
    plan: String,
}

/// What handlers share; clones are cheap.
#[derive(Clone)]
struct Shared {
    outbox: PostgresOutbox,
    relay: BufferedClient,
}

/// Publishes an update and an event. A handler that changes rows publishes in their transaction instead: see the guide's
/// page "With Diesel, sqlx and others".
async fn change_plan(
    State(shared): State<Shared>,
    Path((company, plan)): Path<(String, String)>,
) -> Result<&'static str, (StatusCode, &'static str)> {
    let change = PlanChange { company, plan };
    let event = Event::new("Plan Changed")
        .distinct_id("user123") // who is logged in
        .group(&change)
        .property("plan", &change.plan);
    let published = tokio::try_join!(
        shared.outbox.publish_async([change.set()]),
        shared.outbox.publish_async([event]),
    );
    match published {
        Ok(_) => Ok("changed\n"), // In the database, whatever happens to this process.
        Err(error) => {
            eprintln!("{error:#}"); // with its causes: for the log, not for the visitor
            Err((StatusCode::SERVICE_UNAVAILABLE, "try again later\n"))
        }
    }
}

async fn metrics(State(shared): State<Shared>) -> String {
    // Reads the depth from the database, so it blocks.
    let stats = spawn_blocking(move || [shared.relay.stats(), shared.relay.event_stats()]).await;
    let [updates, events] = stats.expect("no panic");
    let line = |kind: &str, stats: &Stats| {
        let waiting = stats
            .queued
            .map_or("unknown".to_owned(), |queued| queued.to_string());
        let Stats {
            accepted, rejected, ..
        } = stats;
        format!("{kind}: waiting {waiting}, accepted {accepted}, rejected {rejected}\n")
    };
    line("updates", &updates) + &line("events", &events)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL to a database")?;
    // Before anything is published, so that no signal ends the process on the spot.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let emulator = Emulator::start()?;
    let client = if std::env::var_os("MIXPANEL_TOKEN").is_some() {
        Client::from_env()?
    } else {
        Client::builder("PROJECT_TOKEN")
            .endpoint(emulator.endpoint())
            .build()?
    };
    // For TLS, see the README of mixpanel-groups-postgres.
    let outbox = PostgresOutbox::new(url.parse()?, postgres::NoTls)?;
    outbox.migrate()?; // Blocks; nothing else runs yet.
    let relay = client.buffered().outbox(outbox.clone()).start()?;

    let argument = std::env::args().nth(1);
    let demo = argument.as_deref() == Some("--demo");
    let address = match &argument {
        Some(_) if demo => "127.0.0.1:0",
        Some(address) => address,
        None => "127.0.0.1:8000",
    };
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("http://{address}");
    let router = Router::new()
        .route("/companies/{company}/plan/{plan}", post(change_plan))
        .route("/metrics", get(metrics))
        .with_state(Shared {
            outbox,
            relay: relay.clone(),
        });
    let end = async move {
        if demo {
            let requests = spawn_blocking(move || request_plans(&format!("http://{address}")));
            println!("{:?}", requests.await);
        } else {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
    };
    axum::serve(listener, router)
        .with_graceful_shutdown(end)
        .await?;

    let outcome = spawn_blocking(move || relay.shutdown(Duration::from_secs(10))).await?;
    println!("{outcome}");
    for ((key, id), profile) in emulator.profiles() {
        let events = emulator.events_of(&key, &id).len();
        println!(
            "{key} {id}: {}, events: {events}",
            serde_json::to_string(&profile)?
        );
    }
    Ok(())
}

fn request_plans(server: &str) -> Result<String, ureq::Error> {
    for (company, plan) in [("acme", "free"), ("globex", "free"), ("acme", "enterprise")] {
        ureq::post(format!("{server}/companies/{company}/plan/{plan}")).send_empty()?;
    }
    ureq::get(format!("{server}/metrics"))
        .call()?
        .body_mut()
        .read_to_string()
}
