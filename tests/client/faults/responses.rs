//! What the server responds.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{LONG, eventually, is_own_process};
use mixpanel_groups::buffered::DeliveryEvent;
use mixpanel_groups::{
    BufferedClient, Client, Compression, ErrorKind, Event, Group, Report, RetryPolicy, Update,
};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use super::raw::{Raw, cut_off, read_head, read_head_and_body, response};
use super::{
    HOUR, assert_retried, assert_stops, builder, client, patient, quick, undelivered, update,
    updates,
};

fn send_to(raw: &Raw, count: usize) -> Report {
    let client = builder(&raw.endpoint).build().unwrap();
    client.send(updates(count)).unwrap()
}

fn rejected(report: &Report) -> Vec<usize> {
    report.rejected.iter().map(|r| r.position).collect()
}

#[test]
fn each_documented_success_accepts_all() {
    for body in [
        "1",
        "1\n",
        r#"{"status":1,"error":null}"#,
        r#"{"status":"OK","error":null}"#,
        r#"{"code":200,"num_good_events":3,"status":"OK"}"#,
        r#"{"code":200,"num_records_imported":3,"status":"OK"}"#,
        r#"{"code":200,"num_good_events":3,"status":1}"#,
        r#"{"code":200,"status":"OK","failed_records":[]}"#,
        r#"{"status":1,"error":""}"#,
    ] {
        let raw = Raw::responding(move |_| response(200, "", body));
        let report = send_to(&raw, 3);
        assert_eq!((report.accepted, report.requests), (3, 1), "{body}");
        assert_eq!(report.rejected, []);
    }
}

/// Responds so if any of the updates is bad, without saying which; the bad ones are 3 and 8 of 10.
fn assert_bisected(status: u16, refusal: &'static str, message: &str) {
    let raw = Raw::responding(move |body| {
        let is_bad = ["\"3\"", "\"8\""].iter().any(|id| body.contains(id));
        if is_bad {
            response(status, "", refusal)
        } else {
            response(200, "", "1")
        }
    });
    let report = send_to(&raw, 10);
    assert_eq!(rejected(&report), [3, 8], "{refusal}");
    assert_eq!((report.sent, report.accepted), (10, 8));
    assert_eq!(report.retries, 0, "splitting is not a retry");
    for rejection in &report.rejected {
        assert!(rejection.by_server);
        assert_eq!(rejection.message, message);
        let id = rejection.position;
        assert_eq!(rejection.group(), Some(&Group::new("company", id)));
    }
}

#[test]
fn a_refusal_of_all_is_bisected_until_the_bad_ones_are_found() {
    let silent = "the server gave no reason";
    assert_bisected(200, "0", silent);
    assert_bisected(200, r#"{"status":0,"error":"no good"}"#, "no good");
    assert_bisected(200, r#"{"status":0,"error":null}"#, silent);
    assert_bisected(400, "0", silent);
    assert_bisected(
        400,
        r#"{"code":400,"status":"Bad Request","error":"no good"}"#,
        "no good",
    );
    assert_bisected(400, r#"{"error":"no good","failed_records":[]}"#, "no good");
}

#[test]
fn a_list_of_failed_records_that_cannot_be_right_is_bisected() {
    for failed in [
        r#"{"error":"no good","failed_records":[{"index":0,"message":"a"},{"index":10}]}"#,
        r#"{"error":"no good","failed_records":[{"index":-1}]}"#,
        r#"{"error":"no good","failed_records":[{"index":"3"}]}"#,
        r#"{"error":"no good","failed_records":[{"index":3.5}]}"#,
        r#"{"error":"no good","failed_records":[{}]}"#,
        r#"{"error":"no good","failed_records":[null]}"#,
        r#"{"error":"no good","status":"OK","failed_records":[18446744073709551616]}"#,
    ] {
        assert_bisected(400, failed, "no good");
        assert_bisected(200, failed, "no good");
    }
}

#[test]
fn failed_records_are_rejected_and_the_rest_is_accepted() {
    for status in [200, 400] {
        let body = r#"{"code":400,"status":"Bad Request","error":"some failed","failed_records":[
            {"index":3,"field":"$set.a","message":"bad"}, {"index":1},
            {"index":3,"field":"$set.b","message":"again"}]}"#;
        let report = send_to(&Raw::responding(move |_| response(status, "", body)), 4);
        let rejected: Vec<_> = report.rejected.iter().map(ToString::to_string).collect();
        assert_eq!(
            rejected,
            [
                r#"record 1, $set of company "1": some failed"#,
                r#"record 3, $set of company "3": "$set.a": bad"#,
            ]
        );
        assert_eq!((report.accepted, report.requests), (2, 1));
    }
}

#[test]
fn long_words_of_the_server_are_cut() {
    let words = "é".repeat(100_000);
    let body = json!({"error": words, "failed_records": [{"index": 0}, {"index": 1}]});
    let report = send_to(
        &Raw::responding(move |_| response(400, "", &body.to_string())),
        3,
    );
    assert!(report.rejected.iter().all(|r| r.message == "é".repeat(250)));
    assert_eq!((report.rejected.len(), report.accepted), (2, 1));
}

#[test]
fn credentials_that_are_not_accepted_stop() {
    for status in [401, 403] {
        let error = assert_stops(Fault::Status(status));
        assert!(error.is_unauthorized() && !error.is_retryable());
        assert_eq!(error.status(), Some(status));
    }
}

#[test]
fn an_address_that_does_not_exist_stops() {
    let error = assert_stops(Fault::Status(404));
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::NotFound, Some(404))
    );
}

#[test]
fn too_large_is_halved_and_the_size_that_fits_is_remembered_by_all_connections() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::TooLarge(10));
    let client = builder(emulator.endpoint()).max_batch(100).connections(2);
    let report = client.build().unwrap().send(updates(2_000)).unwrap();
    assert_eq!((report.sent, report.accepted), (2_000, 2_000));
    assert_eq!((report.retries, report.rejected.len()), (0, 0));
    let requests = emulator.requests();
    let refused = requests.iter().filter(|r| r.status == Some(413)).count();
    // 100, 50, 25 and 13 are; the two connections may find that out at the same time.
    assert!((4..=8).contains(&refused), "{refused}");
}

#[test]
fn a_few_large_updates_do_not_make_every_request_small() {
    let emulator = Emulator::builder().max_body(10_000).start().unwrap();
    let large = (0..4).map(|id| Group::new("company", id).set(json!({"text": "x".repeat(6_000)})));
    let client = builder(emulator.endpoint()).max_batch(50).build().unwrap();
    let report = client.send(large.chain(updates(1_000))).unwrap();
    assert_eq!(report.accepted, 1_004);
    assert!(report.requests < 50, "{report}");
}

#[test]
fn one_update_that_is_too_large_is_rejected_by_name() {
    let emulator = Emulator::builder().max_body(10_000).start().unwrap();
    let large = Group::new("company", "large").set(json!({"text": "x".repeat(20_000)}));
    let all = updates(5).chain([large]).chain(updates(5));
    let report = client(&emulator).send(all).unwrap();
    let [rejection] = &report.rejected[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        rejection.to_string(),
        "record 5, $set of company \"large\": the request of 20082 bytes is too large for the server: \
         status 413, \"request exceeds max limit of 10000 bytes\""
    );
    assert_eq!(report.accepted, 10);
}

#[test]
fn one_update_that_is_too_large_for_a_proxy_is_rejected_by_its_size() {
    for (page, said) in [
        ("", " with an empty body"),
        ("<h1>Too Large</h1>", ", \"<h1>Too Large</h1>\""),
    ] {
        let emulator = Emulator::start().unwrap();
        let body = page.to_owned();
        emulator.fail_always(Fault::Response { status: 413, body });
        let report = client(&emulator).send(updates(1)).unwrap();
        let bytes = report.bytes;
        assert_eq!(
            report.rejected[0].message,
            format!("the request of {bytes} bytes is too large for the server: status 413{said}")
        );
        let compressed = builder(emulator.endpoint()).compression(Compression::gzip(1));
        let large = Group::new("company", 1).set(json!({"text": "x".repeat(2_000)}));
        let report = compressed.build().unwrap().send(large).unwrap();
        let bytes = report.bytes;
        assert_eq!(
            report.rejected[0].message,
            format!(
                "the request of {bytes} bytes (compressed) is too large for the server: status 413{said}"
            )
        );
    }
}

#[test]
fn overload_and_breakage_are_retried() {
    for status in [408, 429, 500, 502, 503, 504, 505, 599] {
        assert_retried(&[Fault::Status(status), Fault::Status(status)]);
    }
}

#[test]
fn what_is_retried_in_vain_comes_back() {
    for (status, kind) in [
        (429, ErrorKind::RateLimited),
        (503, ErrorKind::Server),
        (500, ErrorKind::Server),
        (408, ErrorKind::Timeout),
    ] {
        let emulator = Emulator::start().unwrap();
        emulator.fail_always(Fault::Status(status));
        let client = builder(emulator.endpoint()).retry(super::quick().attempts(3));
        let error = client.build().unwrap().send(updates(3)).unwrap_err();
        assert_eq!((error.kind(), error.status()), (kind, Some(status)));
        assert!(error.is_retryable());
        assert_eq!(error.is_rate_limited(), status == 429);
        assert_eq!(undelivered(&error), [0, 1, 2]);
        let report = error.report().unwrap();
        assert_eq!((report.requests, report.retries), (3, 2));
    }
}

#[test]
fn without_retry_nothing_is_sent_twice() {
    for fault in [
        Fault::Status(503),
        Fault::Status(500),
        Fault::CloseBefore,
        Fault::CloseAfter,
        Fault::CloseMidResponse,
    ] {
        let emulator = Emulator::start().unwrap();
        let client = builder(emulator.endpoint()).retry(RetryPolicy::none());
        let client = client.build().unwrap();
        client.send(updates(1)).unwrap().into_result().unwrap(); // The connection is a kept one then.
        emulator.fail_next(fault);
        let error = client.send(updates(3)).unwrap_err();
        assert_eq!(undelivered(&error), [0, 1, 2]);
        assert_eq!(emulator.requests().len(), 2);
    }
}

/// How long the client waits after that response.
fn wait_after(status: u16, after: &str) -> Duration {
    let emulator = Emulator::start().unwrap();
    let after = after.to_owned();
    emulator.fail_next(Fault::RetryAfter { status, after });
    first_wait(&emulator.endpoint())
}

/// How long the client waits after the first response, of which it is told by its progress.
fn first_wait(endpoint: &str) -> Duration {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut wait = None;
    let client = builder(endpoint).retry(patient().base_delay(Duration::ZERO));
    let error = client
        .build()
        .unwrap()
        .with_options()
        .cancel_on(&stop)
        .on_progress(|progress| {
            wait = wait.max(progress.backing_off);
            stop.store(wait.is_some(), std::sync::atomic::Ordering::Relaxed);
        })
        .send(updates(3))
        .unwrap_err();
    assert!(error.is_cancelled());
    assert_eq!(error.report().unwrap().retries, 0, "it was not sent again");
    wait.unwrap()
}

#[test]
fn retry_after_is_honored_also_above_the_longest_delay() {
    let is_about = |wait: Duration, expected: Duration| {
        assert!(wait <= expected && wait > expected - HOUR / 2, "{wait:?}");
    };
    for status in [429, 503, 500] {
        is_about(wait_after(status, "3600"), HOUR);
        is_about(wait_after(status, "36000"), 10 * HOUR);
    }
}

#[test]
fn a_body_that_is_cut_off_does_not_hide_status_and_retry_after() {
    for status in [429, 503] {
        let raw = Raw::responding(move |_| cut_off(status, "retry-after: 7200\r\n"));
        let wait = first_wait(&raw.endpoint);
        assert!(wait > HOUR && wait <= 2 * HOUR, "{wait:?}");
    }
    for (status, kind) in [
        (429, ErrorKind::RateLimited),
        (500, ErrorKind::Server),
        (408, ErrorKind::Timeout),
        (403, ErrorKind::UnexpectedResponse),
        (200, ErrorKind::Network),
    ] {
        let raw = Raw::responding(move |_| cut_off(status, ""));
        let client = builder(&raw.endpoint).retry(quick().attempts(2));
        let error = client.build().unwrap().send(updates(1)).unwrap_err();
        assert_eq!(error.kind(), kind, "{status}");
        assert_eq!(error.report().unwrap().requests, 2, "{status}");
        assert_eq!(undelivered(&error), [0]);
    }
}

#[test]
fn one_record_that_a_firewall_blocks_is_found_although_its_page_is_cut_off() {
    let raw = Raw::responding(|body| {
        if body.contains("\"number\":3") {
            cut_off(403, "")
        } else {
            response(200, "", "1")
        }
    });
    let client = builder(&raw.endpoint).retry(quick().attempts(2));
    let error = client.build().unwrap().send(updates(8)).unwrap_err();
    assert_eq!(undelivered(&error), [3]);
    assert_eq!(error.report().unwrap().accepted, 7);
}

#[test]
fn a_retry_after_beyond_the_deadline_gives_up_at_once() {
    for status in [429, 503, 500] {
        for after in [
            "99999999999999999999999",
            "Fri, 31 Dec 2055 23:59:59 GMT",
            "301",
        ] {
            let emulator = Emulator::start().unwrap();
            let after = after.to_owned();
            emulator.fail_next(Fault::RetryAfter { status, after });
            let error = client(&emulator).send(updates(3)).unwrap_err();
            assert!(error.retry_after().unwrap() >= Duration::from_secs(301));
            assert_eq!(undelivered(&error), [0, 1, 2]);
            assert_eq!(error.report().unwrap().requests, 1);
        }
    }
}

#[test]
fn a_retry_after_as_a_date_is_by_the_servers_clock() {
    let raw = Raw::responding(|_| {
        let head = "date: Fri, 31 Dec 2055 23:00:00 GMT\r\n\
                    retry-after: Sat, 01 Jan 2056 00:00:00 GMT\r\n";
        response(429, head, "")
    });
    let wait = first_wait(&raw.endpoint);
    assert!(wait > HOUR / 2 && wait <= HOUR, "{wait:?}");
}

#[test]
fn a_retry_after_that_says_nothing_is_ignored() {
    for after in [
        "",
        "soon",
        "-5",
        "1.5",
        "0",
        "Thu, 01 Jan 1970 00:00:00 GMT",
    ] {
        let after = after.to_owned();
        assert_retried(&[Fault::RetryAfter { status: 503, after }]);
    }
}

#[test]
fn a_page_of_a_proxy_is_retried_if_its_status_says_so() {
    assert_retried(&[Fault::Html]);
}

/// Shows the beginning of what it does not understand.
#[test]
fn a_response_that_is_not_mixpanels_is_retried() {
    let html = "<html><title>Welcome to the hotel's wireless network</title></html>";
    for (status, body, shown) in [
        (200, html, "status 200, \"<html><title>Welcome"),
        (400, html, "status 400, \"<html>"),
        (401, html, "status 401, \"<html>"),
        (403, html, "status 403, \"<html>"),
        (404, html, "status 404, \"<html>"),
        (403, r#"{"message":"Forbidden"}"#, "status 403, "),
        (401, "", "status 401 with an empty body"),
        (200, "", "status 200 with an empty body"),
        (400, "", "status 400 with an empty body"),
        (400, "1", "status 400, \"1\""),
        (400, r#"{"message":"Bad request"}"#, "status 400, "),
        (200, r#"{"code":200,"status":"O"#, "status 200, "),
        (200, "[]", "status 200, \"[]\""),
        (200, r#"{"unknown":true}"#, "status 200, "),
        (204, "", "status 204 with an empty body"),
        (418, "teapot", "status 418, \"teapot\""),
    ] {
        let fault = Fault::Response {
            status,
            body: body.to_owned(),
        };
        assert_retried(&[fault.clone(), fault.clone()]);
        let emulator = Emulator::start().unwrap();
        emulator.fail_always(fault);
        let error = client(&emulator).send(updates(3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedResponse);
        assert!(error.is_retryable() && !error.is_unauthorized());
        assert_eq!(error.status(), Some(status));
        assert!(error.to_string().contains(shown), "{error}");
        assert_eq!(undelivered(&error), [0, 1, 2]);
        assert_eq!(error.report().unwrap().retries, 6, "as often as others");
    }
}

/// A firewall that dislikes the texts of these updates, and responds in the place of Mixpanel.
fn firewall(disliked: &'static [usize]) -> Raw {
    firewall_with(disliked, || {
        response(403, "", "<html>Request blocked</html>")
    })
}

fn firewall_with(disliked: &'static [usize], page: impl Fn() -> Vec<u8> + Send + 'static) -> Raw {
    Raw::responding(move |body| {
        let dislikes = |id| body.contains(&format!("{{\"number\":{id}}}"));
        if disliked.iter().any(dislikes) {
            page()
        } else {
            response(200, "", "1")
        }
    })
}

#[test]
fn one_record_that_a_firewall_dislikes_comes_back_and_the_others_are_accepted() {
    for disliked in [&[0][..], &[7], &[20], &[0, 1], &[3, 20]] {
        let raw = firewall(disliked);
        let error = builder(&raw.endpoint)
            .build()
            .unwrap()
            .send(updates(21))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedResponse, "{error}");
        assert_eq!(error.status(), Some(403));
        assert_eq!(undelivered(&error), disliked);
        let report = error.report().unwrap();
        assert_eq!((report.sent, report.accepted), (21, 21 - disliked.len()));
        assert_eq!((report.rejected.len(), report.retries), (0, 6));
        // Seven attempts, and at most two for each halving of each.
        assert!(report.requests <= 7 + 10 * disliked.len(), "{report}");
    }
}

/// The default page of some web application firewalls is one of success, and others redirect.
#[test]
fn a_firewalls_page_of_any_status_below_500_may_be_about_one_record() {
    let pages: [fn() -> Vec<u8>; 5] = [
        || response(200, "", "<html>Request Rejected</html>"),
        || response(200, "", ""),
        || response(204, "", ""),
        || response(302, "location: http://127.0.0.1:1/blocked\r\n", ""),
        || response(307, "", "<html>Request Rejected</html>"),
    ];
    for page in pages {
        let raw = firewall_with(&[7], page);
        let client = builder(&raw.endpoint).build().unwrap();
        let error = client.send(updates(21)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedResponse, "{error}");
        assert_eq!(undelivered(&error), [7], "{error}");
        let report = error.report().unwrap();
        assert_eq!((report.accepted, report.retries), (20, 6));
        assert!(report.requests <= 7 + 10, "{report}");
    }
}

/// Some in a row, as many as there are: one of the others shows that it is their text.
#[test]
fn neighbors_that_a_firewall_dislikes_do_not_stop_the_others() {
    for disliked in [
        &[0, 1, 2][..],
        &[0, 1, 2, 3],
        &[0, 1, 2, 3, 4, 5, 6, 7],
        &[17, 18, 19],
    ] {
        let raw = firewall(disliked);
        let client = builder(&raw.endpoint).build().unwrap();
        // What comes back is sent again, since any one may be the one that is tried.
        let mut left: Vec<_> = updates(21).collect();
        let mut accepted = 0;
        let is_any_other_good = disliked.len() == 3;
        while left.len() > disliked.len() {
            let error = client.send(&left).unwrap_err();
            accepted += error.report().unwrap().accepted;
            let undelivered = undelivered(&error);
            if is_any_other_good {
                assert_eq!(undelivered, disliked, "at once");
            }
            left = undelivered.into_iter().map(|at| left[at].clone()).collect();
        }
        assert_eq!(accepted, 21 - disliked.len());
    }
}

/// No rest of the batch can show it, so the next batch does.
#[test]
fn neighbors_at_the_end_of_a_batch_do_not_stop_the_others() {
    for disliked in [&[7, 8, 9][..], &[37, 38, 39]] {
        let raw = firewall(disliked);
        let client = builder(&raw.endpoint).max_batch(10).build().unwrap();
        let error = client.send(updates(40)).unwrap_err();
        assert_eq!(undelivered(&error), disliked);
        assert_eq!(error.report().unwrap().accepted, 37);
    }
}

#[test]
fn a_wall_before_small_batches_stops_the_call() {
    let raw = Raw::responding(|_| response(403, "", "<html>banned</html>"));
    let client = builder(&raw.endpoint).max_batch(1).build().unwrap();
    let error = client.send(updates(40)).unwrap_err();
    assert_eq!(undelivered(&error).len(), 40);
    let report = error.report().unwrap();
    assert_eq!((report.sent, report.requests), (4, 3 * 7 + 1), "{report}");
}

#[test]
fn a_background_client_gives_up_neighbors_that_are_blocked() {
    let raw = firewall(&[0, 1, 2, 3]);
    let client = builder(&raw.endpoint).build().unwrap();
    let buffered = client
        .buffered()
        .flush_interval(Duration::from_millis(1))
        .start()
        .unwrap();
    buffered.publish_all(updates(21)).unwrap();
    let outcome = buffered.flush(LONG);
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (17, 4));
}

/// Where everything is blocked from some moment on, it is not for the text of those that are tried first.
/// Whether so many wait behind it that the delivery is given up, or so few that each is tried.
#[test]
fn a_wall_in_the_middle_of_a_delivery_rejects_nothing() {
    for behind in [7, 2] {
        assert_nothing_is_rejected_behind_a_wall(behind);
    }
}

fn assert_nothing_is_rejected_behind_a_wall(behind: usize) {
    let raw = Raw::responding(|body| {
        if body.contains("{\"number\":0}") {
            response(200, "", "1")
        } else {
            response(403, "", "<html>Please log in</html>")
        }
    });
    let client = builder(&raw.endpoint).max_batch(2).build().unwrap();
    let deliveries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&deliveries);
    let buffered = client.buffered().on_error(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let buffered = buffered
        .flush_interval(Duration::from_millis(1))
        .start()
        .unwrap();
    buffered.publish_all(updates(2 + behind)).unwrap();
    eventually("delivered five times", || {
        deliveries.load(Ordering::SeqCst) >= 5
    });
    let outcome = buffered.shutdown(Duration::ZERO);
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (2, 0));
    assert_eq!(outcome.undelivered.len(), behind);
}

/// Returns a client, and the updates that it is told are rejected.
fn telling(client: &Client) -> (BufferedClient, Arc<Mutex<Vec<String>>>) {
    let rejected = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&rejected);
    let buffered = client.buffered().on_error(move |event| {
        if let DeliveryEvent::Rejected(json, _) = event {
            told.lock().unwrap().push(json.to_string());
        }
    });
    (buffered.start().unwrap(), rejected)
}

/// Three updates of one group, which are merged into one.
fn merged() -> [Update<'static>; 3] {
    let acme = Group::new("company", "acme");
    ["plan", "note", "seats"].map(|name| acme.set(json!({name: format!("the {name}")})))
}

#[test]
fn of_updates_that_were_merged_only_those_are_rejected_that_are_refused_alone() {
    let raw = Raw::responding(|body| {
        if body.contains("the note") {
            response(
                400,
                "",
                r#"{"code":400,"error":"no","status":"Bad Request"}"#,
            )
        } else {
            response(200, "", "1")
        }
    });
    let client = builder(&raw.endpoint).build().unwrap();
    let (buffered, rejected) = telling(&client);
    buffered.publish_all(merged()).unwrap();
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (2, 1));
    assert!(matches!(&rejected.lock().unwrap()[..], [one] if one.contains("the note")));
}

fn blocks_the_note() -> Raw {
    Raw::responding(|body| {
        if body.contains("the note") {
            response(403, "", "<html>Forbidden</html>")
        } else {
            response(200, "", "1")
        }
    })
}

fn others() -> impl Iterator<Item = Update<'static>> {
    (0..3).map(|id| Group::new("company", id).set(json!({"number": id})))
}

#[test]
fn of_updates_that_were_merged_only_those_are_rejected_that_are_blocked_alone() {
    let acme = Group::new("company", "acme");
    // The first one is merged into the third, which waits for the second.
    let waiting = [
        acme.unset(["plan"]),
        acme.union(json!({"notes": ["the note"]})),
        acme.set(json!({"plan": "pro"})),
    ];
    for updates in [merged(), waiting] {
        let raw = blocks_the_note();
        let client = builder(&raw.endpoint).build().unwrap();
        let (buffered, rejected) = telling(&client);
        buffered.publish_all(updates).unwrap();
        buffered.publish_all(others()).unwrap();
        let outcome = buffered.shutdown(LONG);
        assert!(outcome.is_complete(), "{outcome:?}");
        assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (5, 1));
        assert!(matches!(&rejected.lock().unwrap()[..], [one] if one.contains("the note")));
    }
}

/// Whatever the connection that others take: they are accepted before it is known that this one is blocked.
#[test]
fn an_update_that_is_blocked_alone_on_its_connection_is_rejected_too() {
    let raw = blocks_the_note();
    for id in 0..3 {
        let client = builder(&raw.endpoint).connections(2).build().unwrap();
        let other = move || Group::new("company", id).set(json!({"number": id}));
        let (tell, told) = mpsc::channel();
        let buffered = client.buffered().on_error(move |event| {
            let _ = tell.send(matches!(event, DeliveryEvent::Rejected(..)));
        });
        let buffered = buffered.flush_interval(Duration::from_millis(1));
        let buffered = buffered.start().unwrap();
        let acme = Group::new("company", "acme");
        let blocked = acme.set(json!({"note": "the note"}));
        buffered.publish_all([blocked, other()]).unwrap();
        for deliveries in 1.. {
            if told.recv_timeout(LONG).expect("it is told") {
                break;
            }
            assert!(deliveries < 10, "it is rejected some time");
            buffered.publish(other()).unwrap();
        }
        assert!(buffered.shutdown(LONG).is_complete());
    }
}

#[test]
fn what_follows_a_blocked_update_of_its_group_comes_back_with_it() {
    let raw = firewall(&[1]);
    let update = |(number, id): (usize, &'static str)| {
        Group::new("company", id).set(json!({"number": number}))
    };
    let ids = ["a", "b", "b", "a", "b", "c", "b"];
    let client = builder(&raw.endpoint).max_batch(5).build().unwrap();
    let error = client
        .send(ids.into_iter().enumerate().map(update))
        .unwrap_err();
    assert_eq!(undelivered(&error), [1, 2, 4, 6]);
    assert_eq!(error.report().unwrap().accepted, 3);
}

/// They do not cut the others into requests of a few.
#[test]
fn what_waits_for_a_blocked_update_takes_no_requests() {
    let raw = firewall(&[0]);
    let update = |number: usize| {
        let id = if number % 2 == 0 { 0 } else { number };
        Group::new("company", id).set(json!({"number": number}))
    };
    let client = builder(&raw.endpoint).max_batch(150).build().unwrap();
    let error = client.send((0..400).map(update)).unwrap_err();
    let even: Vec<_> = (0..400).step_by(2).collect();
    assert_eq!(undelivered(&error), even);
    let report = error.report().unwrap();
    assert_eq!(report.accepted, 200);
    assert!(report.requests < 30, "{report}");
}

/// A wall that blocks everything is not asked about each record.
#[test]
fn where_everything_is_blocked_a_few_requests_are_enough() {
    for status in [403, 200, 302] {
        let raw = Raw::responding(move |_| response(status, "", "<html>Please log in</html>"));
        let client = builder(&raw.endpoint).build().unwrap();
        let error = client.send(updates(2_000)).unwrap_err();
        assert_eq!(undelivered(&error), (0..2_000).collect::<Vec<_>>());
        let report = error.report().unwrap();
        assert_eq!((report.sent, report.accepted), (2_000, 0));
        assert!(report.requests < 7 + 20, "{report}");
    }
}

/// A page about one record's text must not stop the others, whatever `Retry-After` it has.
#[test]
fn the_parts_of_a_blocked_request_do_not_wait_for_its_retry_after() {
    for policy in [quick(), quick().attempts(1).deadline(2 * HOUR)] {
        let raw = firewall_with(&[7], || {
            response(403, "retry-after: 3600\r\n", "<html>Request blocked</html>")
        });
        let client = builder(&raw.endpoint).retry(policy).build().unwrap();
        let error = client.send(updates(21)).unwrap_err();
        assert_eq!(error.retry_after(), Some(HOUR));
        assert_eq!(undelivered(&error), [7]);
        let report = error.report().unwrap();
        assert_eq!((report.accepted, report.retries), (20, 0));
        assert!(report.requests <= 1 + 10, "{report}");
    }
}

/// Nor in the background.
#[test]
fn the_queue_does_not_wait_for_the_retry_after_of_blocked_updates() {
    for disliked in [&[7][..], &[20], &[7, 8, 9], &[18, 19, 20]] {
        let raw = firewall_with(disliked, || {
            response(403, "retry-after: 3600\r\n", "<html>Request blocked</html>")
        });
        let client = builder(&raw.endpoint).build().unwrap();
        let buffered = client.buffered().flush_interval(Duration::from_millis(1));
        let buffered = buffered.start().unwrap();
        buffered.publish_all(updates(21)).unwrap();
        eventually("given up", || buffered.stats().rejected == disliked.len());
        buffered.publish(update(30)).unwrap();
        let all = 22 - disliked.len();
        eventually("sent", || buffered.stats().accepted == all);
    }
}

/// A ban is of everything, however little waits.
#[test]
fn the_queue_waits_for_the_retry_after_of_a_ban() {
    let raw = Raw::responding(|_| response(403, "retry-after: 3600\r\n", "<html>banned</html>"));
    let client = builder(&raw.endpoint).build().unwrap();
    let buffered = client.buffered().flush_interval(Duration::from_millis(1));
    let buffered = buffered.start().unwrap();
    buffered.publish(update(1)).unwrap();
    eventually("blocked", || buffered.stats().requests > 0);
    std::thread::sleep(Duration::from_millis(200));
    assert!(buffered.stats().requests < 4);
}

/// Applies what it should, and counts what it applied, without saying which is bad: 3 and 8 of 10.
fn assert_bisected_by_count(response_to: fn(usize, usize) -> String) {
    let raw = Raw::responding(move |body| {
        let records = body.matches("$group_id").count();
        let is_bad = |id| usize::from(body.contains(id));
        let bad = is_bad("\"3\"") + is_bad("\"8\"");
        response(200, "", &response_to(records, records - bad))
    });
    let report = send_to(&raw, 10);
    assert_eq!(rejected(&report), [3, 8]);
    assert_eq!(report.accepted, 8);
}

#[test]
fn a_count_that_contradicts_is_bisected() {
    assert_bisected_by_count(|_, good| {
        format!(r#"{{"code":200,"status":"OK","num_good_events":{good}}}"#)
    });
    assert_bisected_by_count(|_, good| {
        format!(r#"{{"code":200,"status":1,"num_records_imported":{good}}}"#)
    });
    // A list that names another number of records than the count leaves out.
    assert_bisected_by_count(|records, good| match records - good {
        0 => "1".to_owned(),
        _ if records == 1 => r#"{"status":0,"error":"bad"}"#.to_owned(),
        _ => r#"{"code":400,"status":"Bad Request","error":"bad","num_good_events":0,
            "failed_records":[{"index":0,"message":"bad"}]}"#
            .to_owned(),
    });
}

#[test]
fn a_count_and_a_list_that_agree_are_believed() {
    let body = r#"{"code":400,"status":"Bad Request","error":"bad","num_records_imported":3,
        "failed_records":[{"index":2,"message":"bad"}]}"#;
    let report = send_to(&Raw::responding(move |_| response(400, "", body)), 4);
    assert_eq!((report.accepted, report.requests), (3, 1));
    assert_eq!(rejected(&report), [2]);
}

#[test]
fn a_count_that_fits_nothing_is_unexpected() {
    for count in ["5", "\"3\"", "1.5", "-1", "[]"] {
        let body = format!(r#"{{"status":"OK","num_good_events":{count}}}"#);
        let raw = Raw::responding(move |_| response(200, "", &body));
        let client = builder(&raw.endpoint).build().unwrap();
        let error = client.send(updates(3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedResponse, "{count}");
        assert_eq!(undelivered(&error), [0, 1, 2]);
    }
}

#[test]
fn an_error_is_not_acceptance() {
    for body in [
        r#"{"status":"OK","error":"quota exceeded"}"#,
        r#"{"status":1,"error":"quota exceeded","num_good_events":3}"#,
        r#"{"status":1,"error":{"why":"quota exceeded"}}"#,
    ] {
        let report = send_to(&Raw::responding(move |_| response(200, "", body)), 3);
        assert_eq!((report.accepted, report.rejected.len()), (0, 3), "{body}");
        assert!(report.rejected[0].message.contains("quota exceeded"));
    }
}

#[test]
fn an_echo_of_the_request_shows_no_secret() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    const SECRET: &str = "fedcba9876543210";
    let echoes: [fn(&str) -> Vec<u8>; 7] = [
        |body| {
            response(400, "", &json!({"status": "error", "error": body, "failed_records": [{"index": 0, "message": body, "field": body}]}).to_string())
        },
        |body| {
            response(
                401,
                "",
                &json!({"status": "error", "error": body}).to_string(),
            )
        },
        |body| response(403, "", &format!("<pre>{body}</pre>")),
        |body| response(503, "", &body[..body.len().min(30)]),
        // As a parser of JSON quotes what is around an error.
        |body| response(503, "", &format!("near: {}", &body[body.len() / 2 - 20..])),
        |body| response(503, "", &body.to_uppercase()),
        |body| response(503, "", &body[body.len() - 160..]),
    ];
    for echo in echoes {
        let raw = Raw::start(move |stream, _| {
            let request = read_head_and_body(&stream).unwrap();
            let _ = (&stream).write_all(&echo(&request));
        });
        let client = Client::builder(TOKEN)
            .endpoint(&raw.endpoint)
            .retry(quick().attempts(2))
            .service_account("user", SECRET, 1)
            .build()
            .unwrap();
        let update = client.send(updates(1)).map(|report| format!("{report:?}"));
        let event = Event::new("Purchase").distinct_id("");
        let event = client.import([event]).map(|report| format!("{report:?}"));
        for result in [update, event] {
            let shown = match result {
                Ok(report) => report,
                Err(error) => format!("{error:#} {error:?}"),
            };
            let shown = shown.to_lowercase();
            for secret in [TOKEN, SECRET, "dxnlcjpmzwrjymE5oDc2NTQzMjEw"] {
                for part in secret.to_lowercase().as_bytes().windows(8) {
                    let part = str::from_utf8(part).unwrap();
                    assert!(!shown.contains(part), "{part} in {shown}");
                }
            }
        }
    }
}

/// What the library has logged.
struct Logged(Mutex<String>);

static LOGGED: Logged = Logged(Mutex::new(String::new()));

impl log::Log for Logged {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("mixpanel_groups")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut lines = self.0.lock().unwrap();
            lines.push_str(&format!("{}\n", record.args()));
        }
    }

    fn flush(&self) {}
}

#[test]
fn an_echo_of_an_encoded_or_short_secret_shows_none() {
    // In a process of its own, which has one logger.
    if !is_own_process(an_echo_of_an_encoded_or_short_secret_shows_none, &[]) {
        return;
    }
    const TOKEN: &str = "x7q";
    const SECRET: &str = "p&s/w+r<d";
    log::set_logger(&LOGGED).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let echoes = [
        "the token x7q.",
        "p&s/w+r<d",
        "p%26s%2Fw%2Br%3Cd",
        "p&amp;s/w+r&lt;d",
        "p\\u0026s\\/w+r\\u003Cd",
        // `user:` and the secret, in both alphabets of base64.
        "dXNlcjpwJnMvdytyPGQ=",
        "dXNlcjpwJnMvdytyPGQ",
        // The token, as `/import` gets it without an account.
        "eDdxOg==",
    ];
    let hidden = [&echoes[1..], &[TOKEN]].concat();
    let check = |shown: &str| {
        assert!(shown.contains("[hidden]"), "{shown}");
        for secret in &hidden {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    };
    let responses: [fn(&str) -> Vec<u8>; 5] = [
        |echo| {
            let failed = json!([{"index": 0, "message": echo, "field": echo}]);
            let body = json!({"status": "error", "error": echo, "failed_records": failed});
            response(400, "", &body.to_string())
        },
        |echo| {
            response(
                400,
                "",
                &json!({"status": 0, "error": {echo: echo}}).to_string(),
            )
        },
        |echo| {
            response(
                401,
                "",
                &json!({"status": "error", "error": echo}).to_string(),
            )
        },
        |echo| response(403, "", &format!("<pre>{echo}</pre>")),
        |echo| response(503, "", echo),
    ];
    for response in responses {
        for echo in echoes {
            let raw = Raw::responding(move |_| response(echo));
            let builder = Client::builder(TOKEN)
                .endpoint(&raw.endpoint)
                .retry(quick().attempts(2));
            let builder = match echo {
                "eDdxOg==" => builder,
                _ => builder.service_account("user", SECRET, 1),
            };
            let client = builder.build().unwrap();
            match client.send(updates(1)) {
                Ok(report) => check(&format!("{} {report:?}", report.rejected[0])),
                Err(error) => check(&format!("{error:#} {error:?}")),
            }
        }
    }
    check(&LOGGED.0.lock().unwrap());
}

#[test]
fn ten_megabytes_of_response_are_not_read() {
    let raw = Raw::responding(|_| response(200, "", &"[".repeat(10_000_000)));
    let client = builder(&raw.endpoint).build().unwrap();
    let error = client.send(updates(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedResponse);
    assert!(error.to_string().len() < 1_000);
    assert_eq!(undelivered(&error), [0, 1, 2]);
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Emulator::start().unwrap();
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}/groups\r\n", elsewhere.endpoint());
        let raw = Raw::responding(move |_| response(status, &location, ""));
        let client = builder(&raw.endpoint).build().unwrap();
        let error = client.send(updates(3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedResponse, "{error}");
        assert_eq!(error.status(), Some(status));
        assert_eq!(undelivered(&error), [0, 1, 2]);
    }
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn compressed_requests_are_split_and_retried_as_others() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::TooLarge(40));
    emulator.fail_next(Fault::Status(503));
    emulator.fail_next(Fault::Reject(vec![7]));
    let client = builder(emulator.endpoint()).compression(Compression::gzip(6));
    let report = client.build().unwrap().send(updates(100)).unwrap();
    assert_eq!(rejected(&report), [7]);
    assert_eq!(
        (report.accepted, report.retries, report.requests),
        (99, 1, 4)
    );
    assert_eq!(emulator.profiles().len(), 99);
    let requests = emulator.requests();
    let gzip = Some("gzip");
    assert!(
        requests
            .iter()
            .all(|r| r.header("content-encoding") == gzip)
    );
}

#[test]
fn what_is_refused_for_its_compression_is_sent_without() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Status(415));
    let client = builder(emulator.endpoint()).compression(Compression::gzip(1));
    let client = client.build().unwrap();
    let report = client.send(updates(4_000)).unwrap();
    assert_eq!(
        (
            report.sent,
            report.accepted,
            report.retries,
            report.requests
        ),
        (4_000, 4_000, 1, 3)
    );
    let requests = emulator.requests();
    let encodings: Vec<_> = requests
        .iter()
        .map(|request| request.header("content-encoding"))
        .collect();
    assert_eq!(encodings, [Some("gzip"), None, None]);
}

#[test]
fn what_is_sent_without_compression_has_the_attempts_that_are_left() {
    let emulator = Emulator::start().unwrap();
    for status in [503, 503, 415, 503, 503, 503] {
        emulator.fail_next(Fault::Status(status));
    }
    let client = builder(emulator.endpoint())
        .compression(Compression::gzip(1))
        .retry(quick().attempts(3));
    let error = client.build().unwrap().send(updates(4_000)).unwrap_err();
    let report = error.report().unwrap();
    assert_eq!((report.requests, report.retries), (4, 3), "{error}");
}

/// What cannot read gzip may refuse it as it refuses a record.
#[test]
fn what_is_refused_as_a_record_for_its_compression_is_sent_without() {
    let refusal = r#"{"code":400,"error":"not JSON","status":"Bad Request"}"#;
    let requests = refused_with_gzip(&[(400, refusal)]);
    assert_eq!(requests, [true, false, false]);
}

/// Then it is not for the compression.
#[test]
fn what_is_refused_without_compression_too_goes_on_with_it() {
    let refusal = (200, r#"{"status":0,"error":"one is bad"}"#);
    let requests = refused_with_gzip(&[refusal, refusal]);
    // The first batch twice, its halves, and the second batch.
    assert_eq!(requests, [true, false, true, true, true]);
}

/// A body that is not compressed is longer, and a firewall can read it.
#[test]
fn what_is_not_accepted_without_compression_shows_nothing() {
    let refusal = (200, r#"{"status":0,"error":"one is bad"}"#);
    for plain in [(413, ""), (403, "<html>")] {
        let requests = refused_with_gzip(&[refusal, plain]);
        assert_eq!(requests, [true, false, true, true, true]);
    }
}

/// One record has no other half that would show which of the two it is.
#[test]
fn what_is_blocked_without_compression_is_not_rejected() {
    let emulator = Emulator::start().unwrap();
    for (status, body) in [(200, r#"{"status":0,"error":"no"}"#), (403, "<html>")] {
        let body = body.to_owned();
        emulator.fail_next(Fault::Response { status, body });
    }
    let client = builder(emulator.endpoint()).compression(Compression::gzip(1));
    let large = Group::new("company", 1).set(json!({"text": "x".repeat(2_000)}));
    let error = client.build().unwrap().send(large).unwrap_err();
    assert_eq!(undelivered(&error), [0]);
    assert!(error.report().unwrap().rejected.is_empty());
}

/// Where the plain body is too large for a proxy, gzip may be what is refused all the same.
#[test]
fn only_what_is_accepted_shows_that_gzip_is_read() {
    let raw = Raw::start(|stream, _| {
        let Ok(head) = read_head(&stream) else { return };
        let mut body = vec![0; head.len];
        let _ = (&stream).read_exact(&mut body);
        let reply = match body.first() {
            Some(b'[') if body.len() > 5_000 => response(413, "", ""),
            Some(b'[') => response(200, "", "1"),
            _ => response(400, "", r#"{"error":"not JSON","status":0}"#),
        };
        let _ = (&stream).write_all(&reply);
    });
    let client = builder(&raw.endpoint).compression(Compression::gzip(1));
    let large = |id: usize| Group::new("company", id).set(json!({"text": "x".repeat(1_500)}));
    let report = client.build().unwrap().send((0..8).map(large)).unwrap();
    assert_eq!((report.accepted, report.rejected.len()), (8, 0), "{report}");
}

/// Sends two batches, whose first requests are refused so, and returns which requests were compressed. In the end all are
/// accepted.
fn refused_with_gzip(refusals: &[(u16, &str)]) -> Vec<bool> {
    let emulator = Emulator::start().unwrap();
    for (status, body) in refusals {
        let (status, body) = (*status, (*body).to_owned());
        emulator.fail_next(Fault::Response { status, body });
    }
    let client = builder(emulator.endpoint()).compression(Compression::gzip(1));
    let report = client.build().unwrap().send(updates(4_000)).unwrap();
    assert_eq!(report.accepted, 4_000);
    let requests = emulator.requests().into_iter();
    requests
        .map(|request| request.header("content-encoding").is_some())
        .collect()
}
