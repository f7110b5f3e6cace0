//! What holds for any response of a server: for the property test below, and for the fuzz target.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use ureq::{Body, http};

use crate::client::batch::opening;
use crate::client::delivery::{Delivery, Resources, Route};
use crate::client::records::{Limits, Records};
use crate::client::transport::MAX_RESPONSE;
use crate::client::transport::{Request, Response, Transport, TransportError, read};
use crate::client::{Compression, RetryPolicy};
use crate::group::Group;
use crate::record::error::outcome;
use crate::record::{Error, ErrorKind, Update};

/// A response of any server: status, `Retry-After` and body.
pub type AnyResponse = (u16, Vec<u8>, Vec<u8>);

/// Delivers that many updates to a server that gives these responses, one a request, and is gone
/// then.
///
/// # Panics
/// If an update ends in no place or in two.
pub fn check(responses: Vec<AnyResponse>, updates: usize) {
    let server = Arc::new(Server {
        responses: Mutex::new(responses.into()),
        may_have_accepted: Mutex::default(),
    });
    let route = Route {
        url: String::new(),
        authorization: None,
        opening: opening("TOKEN"),
        name: Update::name,
        limits: Limits::default(),
        compression: Compression::None,
        retry: RetryPolicy::default()
            .attempts(3)
            .base_delay(Duration::ZERO)
            .max_delay(Duration::ZERO)
            // A longer `Retry-After` is not waited for.
            .deadline(Duration::from_secs(1)),
    };
    let mut batch = Records::default();
    for position in 0..updates {
        let update = Group::new("company", position).delete();
        batch
            .push(position, &route.opening, &update)
            .expect("the update is valid");
    }
    let delivery = Delivery::new(&route, Resources::of(vec![server.clone()]));
    delivery.offer(0, batch).expect("the lane has room");
    delivery.close();
    delivery.run_lane(0);
    let (_, result) = delivery.finish();

    let panicked = result.as_ref().map_err(Error::kind) == Err(ErrorKind::Io);
    assert!(!panicked, "the lane panicked, with the message above");
    let (report, undelivered) = outcome(&result);
    let report = report.expect("a delivery has a report, however it ends");
    let mut not_accepted = HashSet::new();
    for rejection in &report.rejected {
        assert!(not_accepted.insert(rejection.position), "rejected twice");
        let id = rejection.group().map(|group| group.id().to_string());
        assert_eq!(id, Some(rejection.position.to_string()), "mixed up");
    }
    for (position, _) in undelivered.positions() {
        assert!(not_accepted.insert(position), "undelivered, and elsewhere");
    }
    assert!(not_accepted.iter().all(|position| *position < updates));
    assert_eq!(report.accepted + not_accepted.len(), updates);
    let accepted: HashSet<_> = (0..updates).filter(|p| !not_accepted.contains(p)).collect();
    let seen = server.may_have_accepted.lock();
    assert!(accepted.is_subset(&seen.unwrap_or_else(PoisonError::into_inner)));
}

struct Server {
    responses: Mutex<VecDeque<AnyResponse>>,
    /// The updates of requests whose response had a status which accepts any.
    may_have_accepted: Mutex<HashSet<usize>>,
}

impl Transport for Server {
    fn post(&self, request: Request<'_>) -> Result<Response, TransportError> {
        let gone = || TransportError {
            error: Error::new(ErrorKind::Network, "the server is gone"),
            failure: None,
        };
        let responses = &mut *self
            .responses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (status, retry_after, body) = responses.pop_front().ok_or_else(gone)?;
        let mut response = http::Response::builder().status(100 + status % 900);
        if let Ok(value) = http::HeaderValue::from_bytes(&retry_after) {
            response = response.header("Retry-After", value);
        }
        let response = response
            .body(Body::builder().data(body))
            .expect("the status is one");
        let (response, _) = read(response).map_err(|_| gone())?;
        assert!(response.body.len() as u64 <= MAX_RESPONSE);
        if matches!(response.status, 200..300 | 400) {
            let updates: Vec<Value> = serde_json::from_slice(request.body).expect("a list");
            let ids = updates.iter().map(|update| &update["$group_id"]);
            let positions = ids.map(|id| id.as_str().unwrap_or(""));
            let positions = positions.map(|id| id.parse::<usize>().expect("a number"));
            let seen = &mut self.may_have_accepted.lock();
            seen.as_mut()
                .unwrap_or_else(|poisoned| poisoned.get_mut())
                .extend(positions);
        }
        Ok(response)
    }

    fn abort(&self) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Numbers that are the status `status` to `check`.
    fn status(status: u16) -> u16 {
        status - 100
    }

    fn any_status() -> impl Strategy<Value = u16> {
        const KNOWN: &[u16] = &[
            200, 200, 200, 204, 302, 400, 400, 400, 401, 404, 413, 413, 429, 500, 503,
        ];
        prop_oneof![
            4 => prop::sample::select(KNOWN).prop_map(status),
            1 => any::<u16>(),
        ]
    }

    fn any_retry_after() -> impl Strategy<Value = Vec<u8>> {
        let known = [
            "0",
            "7",
            "99999999999999999999",
            "-1",
            "1.5",
            "soon",
            "",
            "\u{e9}",
        ];
        let dates = [
            "Fri, 31 Dec 2055 23:59:59 GMT",
            "Thu, 01 Jan 1970 00:00:00 GMT",
        ];
        let known = [&known[..], &dates[..]].concat();
        prop_oneof![
            prop::sample::select(known).prop_map(|text| text.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..40),
        ]
    }

    /// Whatever may stand where a number or a text is wanted.
    fn any_scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            8 => (0..8_u64).prop_map(Value::from),
            1 => any::<u64>().prop_map(Value::from),
            1 => any::<i64>().prop_map(Value::from),
            1 => any::<f64>().prop_map(Value::from),
            1 => any::<bool>().prop_map(Value::from),
            1 => Just(Value::Null),
            1 => Just(json!([])),
            2 => prop::sample::select(vec!["", "OK", "ok", "0", "1", "é"]).prop_map(Value::from),
            1 => Just("é".repeat(600).into()),
        ]
    }

    fn any_response_of_strict() -> impl Strategy<Value = Vec<u8>> {
        let failed = (any_scalar(), any_scalar(), any_scalar(), 0..20_u8).prop_map(
            |(index, field, message, keys)| {
                let mut failed = json!({"index": index, "field": field, "message": message});
                if let (Some(key), Some(members)) = (
                    ["index", "field", "message"].get(usize::from(keys)),
                    failed.as_object_mut(),
                ) {
                    members.remove(*key);
                }
                if keys == 19 { index } else { failed }
            },
        );
        let failed = prop::collection::vec(failed, 0..4);
        (any_scalar(), any_scalar(), any_scalar(), failed).prop_map(
            |(code, status, error, failed)| {
                let response = json!({
                    "code": code, "status": status, "error": error, "failed_records": failed,
                });
                response.to_string().into_bytes()
            },
        )
    }

    fn any_body() -> impl Strategy<Value = Vec<u8>> {
        const DOCUMENTED: &[&str] = &[
            "1",
            "0",
            r#"{"status":1,"error":null}"#,
            r#"{"status":0,"error":"some message"}"#,
            r#"{"code":200,"num_good_events":3,"status":"OK"}"#,
            r#"{"code":400,"status":"Bad Request","error":"some data points in the request failed validation","num_records_imported":2,"failed_records":[{"index":0,"field":"$set.a","message":"bad"},{"index":2,"field":"","message":"worse"}]}"#,
            r#"{"error":"no such project","status":"error"}"#,
            r#"{"code":413,"error":"request exceeds max limit of 2097152 bytes","status":"Request Entity Too Large"}"#,
            "<html><body>502 Bad Gateway</body></html>",
        ];
        let documented = prop::sample::select(DOCUMENTED).prop_map(str::as_bytes);
        let mutations =
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4), 1..4);
        let mutated = (documented.clone(), mutations).prop_map(|(bytes, mutations)| {
            let mut bytes = bytes.to_vec();
            for (at, byte, kind) in mutations {
                let at = at.index(bytes.len() + 1);
                match kind {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, byte),
                    _ if at == bytes.len() => {}
                    2 => drop(bytes.remove(at)),
                    _ => bytes[at] = byte,
                }
            }
            bytes
        });
        prop_oneof![
            2 => documented.prop_map(<[u8]>::to_vec),
            2 => mutated,
            3 => any_response_of_strict(),
            1 => prop::collection::vec(any::<u8>(), 0..60),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        fn every_update_has_one_place_whatever_the_response(
            responses in prop::collection::vec((any_status(), any_retry_after(), any_body()), 1..5),
            updates in 1..7_usize,
        ) {
            check(responses, updates);
        }
    }

    #[test]
    fn a_long_response_is_kept_to_one_mebibyte() {
        let brackets = "[".repeat(3 << 20).into_bytes();
        let failed = json!({"index": 0}).to_string() + ",";
        let failed = failed.repeat(200_000);
        let strict = format!(r#"{{"code":400,"failed_records":[{failed}{{}}]}}"#).into_bytes();
        for body in [brackets, strict, vec![b' '; 3 << 20], vec![0; 3 << 20]] {
            for number in [200, 400, 413, 503] {
                check(vec![(status(number), vec![], body.clone())], 3);
            }
        }
    }
}
