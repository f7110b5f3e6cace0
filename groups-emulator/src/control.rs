//! What the tests of other languages do over HTTP: the methods of [`Emulator`](crate::Emulator) of the same names.
//!
//! The body of a fault is read as JSON, whatever its content type is: `curl -d` calls it a form.

use ureq_proto::http::{Method, StatusCode};

use crate::fault::Fault;
use crate::memory::Memory;
use crate::reply::Reply;
use crate::service::Service;

const COMMANDS: [&str; 4] = ["reset", "fail_next", "fail_always", "recover"];

/// Returns the reply to a request for this path below `/emulator/`, or `None` if it is not one of these.
pub(crate) fn reply(name: &str, method: &Method, body: &[u8], service: &Service) -> Option<Reply> {
    if name == "snapshot" {
        return Some(if [Method::GET, Method::HEAD].contains(method) {
            snapshot(service)
        } else {
            Reply::method_not_allowed("GET, HEAD")
        });
    }
    if !COMMANDS.contains(&name) {
        return None;
    }
    if *method != Method::POST {
        return Some(Reply::method_not_allowed("POST"));
    }
    Some(match name {
        "reset" => {
            service.reset();
            Reply::empty()
        }
        "recover" => {
            service.memory().recover();
            Reply::empty()
        }
        "fail_next" => inject(body, service, Memory::fail_next),
        _ => inject(body, service, Memory::fail_always),
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
    match fault.and_then(|fault| Fault::from_json(&fault)) {
        Some(fault) => {
            inject(&mut service.memory(), fault);
            Reply::empty()
        }
        None => {
            let message = format!("not a fault: expected one of {}", Fault::FORMS.join("; "));
            Reply::error(StatusCode::BAD_REQUEST, &message)
        }
    }
}
