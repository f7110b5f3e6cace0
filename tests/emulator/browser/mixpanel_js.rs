//! Mixpanel's own SDK for browsers, on a page of another port, and a page of another site.
//!
//! Needs Chromium and npm. Without them the tests say so and are skipped, but not where `CI` is set.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::say_missing;
use mixpanel_groups_emulator::Emulator;
use serde_json::json;
use tiny_http::{Header, Response, Server};

use super::chromium::Browser;

/// Long enough for anything; reached only where a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// The SDK's one file; nothing if it cannot be installed.
fn sdk() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    let mut install = Command::new("tests/emulator/sdks/install.sh");
    let output = install.arg("browser").arg(&folder).output().unwrap();
    if output.status.success() {
        return Some(folder.join("node_modules/mixpanel-browser/dist/mixpanel.umd.js"));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    say_missing(format!("the SDK for browsers: {said}"));
    None
}

/// A server of one script and an empty page that loads it. It ends when it is dropped.
struct Site(Arc<Server>);

impl Site {
    fn start(script: Vec<u8>) -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
        let site = Self(Arc::clone(&server));
        thread::spawn(move || {
            for request in server.incoming_requests() {
                let (kind, content) = match request.url() {
                    "/sdk.js" => ("text/javascript", script.clone()),
                    _ => ("text/html", b"<script src=/sdk.js></script>".to_vec()),
                };
                let header = Header::from_bytes("content-type", kind).unwrap();
                let _ = request.respond(Response::from_data(content).with_header(header));
            }
        });
        site
    }

    fn address(&self, host: &str) -> String {
        format!(
            "http://{host}:{}/",
            self.0.server_addr().to_ip().unwrap().port()
        )
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.0.unblock();
    }
}

#[test]
fn mixpanel_js_from_a_page_of_another_port() {
    let Some((sdk, mut browser)) = sdk().zip(Browser::start()) else {
        return;
    };
    let site = Site::start(std::fs::read(sdk).unwrap());
    let emulator = Emulator::start().unwrap();
    let at = emulator.endpoint();
    // To the browser, localhost is another site than 127.0.0.1.
    for host in ["localhost", "127.0.0.1"] {
        browser.open(&site.address(host));
        browser.wait("typeof mixpanel !== 'undefined'");
        let init = |name: &str, more: &str| {
            format!(
                "mixpanel.init('TOKEN', {{api_host: '{at}', debug: false, autocapture: false, \
                 track_pageview: false, ignore_dnt: true, {more}}}, '{name}')"
            )
        };
        // By default it sends in batches, and here at once.
        browser.eval(&format!(
            "{}; 0",
            init("batched", "batch_flush_interval_ms: 10")
        ));
        browser.eval("mixpanel.batched.get_group('company', 'batched').set({plan: 'free'}); 0");
        browser.eval(&format!(
            "{}; 0",
            init("xhr", "batch_requests: false, api_transport: 'XHR'")
        ));
        browser.eval(
            "window.told = []; mixpanel.xhr.get_group('company', 'xhr')\
             .set({plan: 'free'}, response => told.push(response)); 0",
        );
        browser.wait("told.length === 1");
        let told = browser.eval("JSON.stringify(told)");
        assert_eq!(told, "[1]", "the callback sees the reply");
        let beacon = init(
            "beacon",
            "batch_requests: false, api_transport: 'sendBeacon'",
        );
        browser.eval(&format!("{beacon}; 0"));
        browser.eval("mixpanel.beacon.get_group('company', 'beacon').set({plan: 'free'}); 0");
        let body = json!([{
            "$token": "TOKEN", "$group_key": "company", "$group_id": "fetch", "$set": {"plan": "free"},
        }]);
        browser.eval(&format!(
            "window.fetched = null; fetch('{at}/groups?strict=1', {{method: 'POST', \
             headers: {{'content-type': 'application/json'}}, body: JSON.stringify({body})}}) \
             .then(response => response.json()).then(json => {{ fetched = json.num_good_events; }}); 0"
        ));
        browser.wait("fetched === 1");
        for id in ["batched", "xhr", "beacon", "fetch"] {
            let profile = emulator.wait_for(PATIENCE, |e| e.profile("company", id));
            let profile = profile.unwrap_or_else(|error| panic!("{host} {id}: {error}"));
            assert_eq!(profile.get("plan"), Some(&json!("free")), "{host} {id}");
        }
        let requests = emulator.requests();
        let text = |r: &&mixpanel_groups_emulator::ReceivedRequest| {
            r.header("content-type")
                .is_some_and(|kind| kind.starts_with("text/plain"))
        };
        assert_eq!(
            requests.iter().filter(text).count(),
            1,
            "the beacon: {requests:?}"
        );
        assert!(
            requests.iter().any(|request| request.path == "/groups/"),
            "{requests:?}"
        );
        emulator.reset();
    }
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let site = Site::start(Vec::new());
    let emulator = Emulator::start().unwrap();
    let at = emulator.endpoint();
    browser.open(&site.address("evil.example"));
    browser.wait("location.host.startsWith('evil.example')");
    let delete = r#"{"$token":"T","$group_key":"company","$group_id":"acme","$set":{"a":1}}"#;
    browser.eval(&format!(
        "new Image().src = '{at}/groups?data=' + encodeURIComponent('{delete}'); \
         fetch('{at}/groups', {{method: 'POST', mode: 'no-cors', body: '{delete}'}}).catch(() => 0); 0"
    ));
    let refused = emulator.wait_for(PATIENCE, |e| {
        let requests = e.requests();
        (requests.len() == 2).then_some(requests)
    });
    for request in refused.unwrap() {
        assert_eq!(request.status, Some(403), "{request:?}");
    }
    assert!(emulator.profiles().is_empty());
}
