//! What the tests of other languages do over HTTP: the methods of [`Emulator`](crate::Emulator) of the same names.
//!
//! The body of a fault is read as JSON, whatever its content type is: `curl -d` calls it a form.

use ureq_proto::http::{Method, StatusCode};

use crate::fault::Fault;
use crate::memory::Memory;
use crate::reply::Reply;
use crate::service::Service;

pub(crate) const UNKNOWN_PATH: &str = "unknown path: expected /emulator/snapshot, /emulator/fail_next, \
    /emulator/fail_always, /emulator/recover or /emulator/reset";

/// Returns the reply to a request for this path below `/emulator/`, or `None` if it is not one of these.
pub(crate) fn reply(name: &str, method: &Method, body: &[u8], service: &Service) -> Option<Reply> {
    Some(match (name, method) {
        ("snapshot", &Method::GET | &Method::HEAD) => snapshot(service),
        ("snapshot", _) => Reply::method_not_allowed("GET, HEAD"),
        ("reset", &Method::POST) => {
            service.reset();
            Reply::empty()
        }
        ("recover", &Method::POST) => {
            service.memory().recover();
            Reply::empty()
        }
        ("fail_next", &Method::POST) => inject(body, service, Memory::fail_next),
        ("fail_always", &Method::POST) => inject(body, service, Memory::fail_always),
        ("reset" | "recover" | "fail_next" | "fail_always", _) => Reply::method_not_allowed("POST"),
        _ => return None,
    })
}

fn snapshot(service: &Service) -> Reply {
    let _turn = service.view_turn();
    match serde_json::to_string(&service.snapshot()) {
        Ok(json) => Reply::json(StatusCode::OK, json),
        Err(error) => Reply::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn inject(body: &[u8], service: &Service, inject: fn(&mut Memory, Fault)) -> Reply {
    let fault = serde_json::from_slice(body).ok();
    let Some(fault) = fault.and_then(|fault| Fault::from_json(&fault)) else {
        let forms = Fault::FORMS.join("; ");
        let message = format!("not a fault that can be carried out: expected one of {forms}");
        return Reply::error(StatusCode::BAD_REQUEST, &message);
    };
    inject(&mut service.memory(), fault);
    Reply::empty()
}
