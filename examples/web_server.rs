//! A synchronous web server that keeps Mixpanel in sync without making its visitors wait.
//!
//! ```sh
//! cargo run --example web_server
//! curl -X POST 'http://127.0.0.1:8000/companies/acme/plan?enterprise' # from another terminal
//! curl http://127.0.0.1:8000/metrics
//! cargo run --example web_server -- 127.0.0.1:9000 # on another port
//! cargo run --example web_server -- --demo # makes such requests to itself and ends
//! ```
//!
//! Each request to change a company's plan publishes an update of the company and an event that links the user to it,
//! which takes about a microsecond each; background threads send them in batches. `/metrics` shows how many wait and
//! were accepted. SIGTERM and Ctrl-C end the server: it sends what waits, for at most five seconds, since the queue is in
//! memory. You see how many were accepted, the profiles and the events. Mixpanel is a stand-in on a loopback port, or with
//! `MIXPANEL_TOKEN` set the real one.

use std::error::Error;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mixpanel_groups::buffered::{OverflowPolicy, Stats};
use mixpanel_groups::{BufferedClient, Client, Event, MixpanelGroup};
use mixpanel_groups_emulator::Emulator;
use signal_hook::consts::{SIGINT, SIGTERM};
use tiny_http::{Method, Request, Response, Server};

/// What a request changes: a struct may map only some of a group's properties.
#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct PlanChange<'a> {
    #[mixpanel(group_id)]
    company: &'a str,
    plan: &'a str,
}

/// How many threads serve requests.
const THREADS: usize = 4;

/// How long requests in progress have to end.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Before anything is published, so that no signal ends the process on the spot.
    let is_ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_ending))?;
    }
    let emulator = Emulator::start()?;
    let client = if std::env::var_os("MIXPANEL_TOKEN").is_some() {
        Client::from_env()?
    } else {
        Client::builder("PROJECT_TOKEN")
            .endpoint(emulator.endpoint())
            .build()?
    };
    // A web server must not wait: when too much waits already, the update is an error.
    let buffered = client
        .buffered()
        .overflow(OverflowPolicy::Reject)
        .on_error(|event| eprintln!("mixpanel: {event}"))
        .start()?;

    let argument = std::env::args().nth(1);
    let demo = argument.as_deref() == Some("--demo");
    let address = match &argument {
        Some(_) if demo => "127.0.0.1:0",
        Some(address) => address,
        None => "127.0.0.1:8000",
    };
    let server = Server::http(address).map_err(|error| format!("{address}: {error}"))?;
    let address = server.server_addr().to_ip().ok_or("no address")?;
    println!("listening on http://{address}");
    let server = Arc::new(server);
    let start_thread = |_| {
        let (server, buffered) = (Arc::clone(&server), buffered.clone());
        thread::spawn(move || server.incoming_requests().for_each(|r| serve(r, &buffered)))
    };
    let threads: Vec<_> = (0..THREADS).map(start_thread).collect();
    if demo {
        make_requests(address);
    } else {
        while !is_ending.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(100));
        }
    }
    (0..THREADS).for_each(|_| server.unblock());
    // Not joined: a visitor who vanished must not keep what waits from being sent.
    let start = Instant::now();
    while !threads.iter().all(JoinHandle::is_finished) && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(10));
    }

    drop(server); // New visitors are refused.

    let drained = buffered.shutdown(Duration::from_secs(5));
    println!(
        "{} updates and {} events accepted; {drained}",
        drained.stats.accepted, drained.event_stats.accepted
    );
    for ((key, id), profile) in emulator.profiles() {
        let events = emulator.events_of(&key, &id).len();
        println!("{key} {id}: {profile}, events: {events}");
    }
    Ok(())
}

fn serve(request: Request, buffered: &BufferedClient) {
    let url = request.url().to_owned();
    let (path, plan) = url.split_once('?').unwrap_or((&url, ""));
    let parts: Vec<_> = path.split('/').skip(1).collect();
    let (status, response) = match (request.method(), &parts[..]) {
        (Method::Post, ["companies", company, "plan"]) => {
            // Here the server would change its own database first.
            let change = PlanChange { company, plan };
            let event = Event::new("Plan Changed")
                .distinct_id("user123") // who is logged in
                .group(&change)
                .property("plan", plan);
            let update = buffered.publish(change.set());
            for error in [update, buffered.publish(event)]
                .iter()
                .filter_map(|it| it.as_ref().err())
            {
                // The customer need not know: this is for the operators of the server.
                eprintln!("mixpanel: {error:#}");
            }
            (200, format!("{company} has the plan {plan} now\n"))
        }
        (Method::Get, ["metrics"]) => {
            let updates = metrics("updates", &buffered.stats());
            (200, updates + &metrics("events", &buffered.event_stats()))
        }
        _ => (
            404,
            "try POST /companies/NAME/plan?PLAN or GET /metrics\n".to_owned(),
        ),
    };
    if let Err(error) = request.respond(Response::from_string(response).with_status_code(status)) {
        eprintln!("the browser went away: {error}");
    }
}

/// Writes the counts for Prometheus, which writes what is unknown as NaN.
fn metrics(kind: &str, stats: &Stats) -> String {
    let queued = stats
        .queued
        .map_or("NaN".to_owned(), |queued| queued.to_string());
    let oldest = stats.oldest.unwrap_or_default().as_secs_f64();
    let metrics = [
        ("queued", queued),
        ("oldest_seconds", oldest.to_string()),
        ("accepted", stats.accepted.to_string()),
        ("rejected", stats.rejected.to_string()),
        ("dropped", stats.dropped.to_string()),
        ("retries", stats.retries.to_string()),
    ];
    let line = |(name, value)| format!("mixpanel_{name}{{kind=\"{kind}\"}} {value}\n");
    metrics.map(line).concat()
}

/// What a browser or `curl` would do.
fn make_requests(address: SocketAddr) {
    for request in [
        "POST /companies/acme/plan?free",
        "POST /companies/globex/plan?free",
        "POST /companies/acme/plan?enterprise",
        "GET /metrics",
    ] {
        match send(address, request) {
            Ok(response) => println!("> {request}\n{response}"),
            Err(error) => println!("> {request}\n{error}"),
        }
    }
}

fn send(address: SocketAddr, request: &str) -> std::io::Result<String> {
    use std::io::Write as _;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response
        .split_once("\r\n\r\n")
        .map_or(response.clone(), |(_, body)| body.to_owned()))
}
