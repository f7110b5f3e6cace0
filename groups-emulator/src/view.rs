//! The page that shows the emulator's state in a browser: one HTML file, and the JSON that it polls.
//!
//! Nothing is rendered under the memory's lock: what is shown is taken out of it, shared, and a search
//! takes the groups in parts. A view is one page long, and long values are cut. Viewers take turns.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use ureq_proto::http::{Method, Request, StatusCode, header};

use crate::memory::{KnownGroup, is_linked};
use crate::origin;
use crate::received::ReceivedRequest;
use crate::reply::Reply;
use crate::service::Service;
use crate::updates::AppliedUpdate;
use mixpanel_groups::Profile;

const PAGE: &str = include_str!("page.html");

/// The most groups in one view.
const MAX_GROUPS: usize = 200;
/// The most updates, events, requests, keys, and changes of an update, in one view.
const MAX_ITEMS: usize = 50;
/// The most properties of a profile in one view.
const MAX_PROPERTIES: usize = 500;
/// The most groups that are searched in one view; the page asks for the rest.
const MAX_SEARCHED: usize = 10_000;
/// The most groups or events that are taken under one lock.
const PART: usize = 500;
/// The longest text that is shown, in characters, and the most items of a list.
const MAX_TEXT: usize = 1_000;
const MAX_LIST: usize = 100;
/// The most members of an object that are shown: all of an event's.
const MAX_MEMBERS: usize = 255;

/// Returns whether the request is for the page or its JSON.
pub(crate) fn handles(request: &Request<()>) -> bool {
    let path = request.uri().path();
    let is_page = request.method() == Method::GET && path == "/";
    is_page || path.starts_with("/emulator/")
}

/// Returns the page, or a view as JSON. A view that has not changed since the version in the query is
/// left out: only the version comes back.
pub(crate) fn reply(request: &Request<()>, service: &Service) -> Reply {
    if let Err(reason) = origin::check_page(request) {
        return Reply::error(StatusCode::FORBIDDEN, &reason);
    }
    let query = request.uri().query().unwrap_or_default();
    let query: BTreeMap<Cow<'_, str>, Cow<'_, str>> =
        form_urlencoded::parse(query.as_bytes()).collect();
    let parameter = |name| query.get(name).map_or("", |value| &**value);
    let version = {
        let memory = service.memory();
        format!("{}-{}", memory.epoch, memory.version)
    };
    let is_known = parameter("since") == version;
    let mut view = match (request.uri().path(), request.method()) {
        ("/", _) => return Reply::html(PAGE).with_header(header::X_FRAME_OPTIONS, "DENY"),
        ("/emulator/reset", &Method::POST) => {
            service.reset();
            return Reply::empty();
        }
        ("/emulator/reset", _) => return Reply::method_not_allowed("POST"),
        (_, method) if method != Method::GET => return Reply::method_not_allowed("GET"),
        ("/emulator/groups" | "/emulator/group" | "/emulator/requests", _) if is_known => json!({}),
        ("/emulator/groups", _) => {
            let before = parameter("before").parse().unwrap_or(u64::MAX);
            groups(service, parameter("key"), parameter("search"), before)
        }
        ("/emulator/group", _) => group(service, parameter("key"), parameter("id")),
        ("/emulator/requests", _) => requests(service),
        (path, _) => return Reply::not_found(path),
    };
    view["version"] = version.into();
    Reply::json(StatusCode::OK, &view)
}

/// Returns the group keys, and a page of the groups that match, the last changed first. `only` is a
/// group key; `search` is found in ids and properties, ignoring case. An empty one matches everything.
/// `before` is the `next` of the page before.
fn groups(service: &Service, only: &str, search: &str, mut before: u64) -> Value {
    let search = search.trim().to_lowercase();
    let mut found = Vec::new();
    let mut searched = 0;
    let mut is_complete = false;
    while found.len() < MAX_GROUPS && searched < MAX_SEARCHED {
        let _turn = service.view_turn();
        let part: Vec<_> = {
            let memory = service.memory();
            let groups = memory.profiles.changed(0, before).take(PART);
            groups.map(KnownGroup::summary).collect()
        };
        if part.is_empty() {
            is_complete = true;
            break;
        }
        for group in part {
            if found.len() == MAX_GROUPS {
                break;
            }
            before = group.version;
            searched += 1;
            let text = || format!("{} {}", group.id, group.profile).to_lowercase();
            if (only.is_empty() || *only == *group.key)
                && (search.is_empty() || text().contains(&search))
            {
                found.push(group);
            }
        }
    }
    let groups = found.iter().map(|group| {
        json!({
            "key": *group.key,
            "id": *group.id,
            "name": group.profile.get("$name").map(shown),
            "exists": group.profile.exists(),
            "changed": group.at,
        })
    });
    let groups: Vec<_> = groups.collect();
    let memory = service.memory();
    let keys = memory.profiles.keys();
    let more_keys = keys.len().saturating_sub(MAX_ITEMS);
    let keys: Vec<_> = keys
        .take(MAX_ITEMS)
        .map(|(key, groups)| json!({"key": key, "groups": groups}))
        .collect();
    let totals = (
        memory.profiles.len(),
        memory.events.len(),
        memory.log.received,
        memory.log.failed,
    );
    drop(memory);
    json!({
        "keys": keys,
        "more_keys": more_keys,
        "groups": groups,
        "next": (!is_complete).then_some(before),
        "known": totals.0,
        "events": totals.1,
        "requests": totals.2,
        "failed": totals.3,
    })
}

/// Returns one group: its profile, and its last updates and events, the newest first.
fn group(service: &Service, key: &str, id: &str) -> Value {
    let _turn = service.view_turn();
    let group = service.memory().profiles.get(key, id).cloned();
    let group = group.as_ref();
    let history = group.map(|group| {
        let newest = group.history.iter().rev().take(MAX_ITEMS);
        newest
            .map(|update| update_to_json(update))
            .collect::<Vec<_>>()
    });
    let profile = group.map(|group| &*group.profile);
    json!({
        "profile": profile.map(shown_profile),
        "properties": profile.map_or(0, |profile| profile.iter().count()),
        "updates": group.map_or(0, |group| group.history.len()),
        "history": history.unwrap_or_default(),
        "events": events_of(service, key, id),
    })
}

fn shown_profile(profile: &Profile) -> Value {
    if !profile.exists() {
        return Value::Null;
    }
    let properties = profile.iter().take(MAX_PROPERTIES);
    properties
        .map(|(name, value)| (name.to_owned(), shown(value)))
        .collect()
}

fn update_to_json(update: &AppliedUpdate) -> Value {
    let changes = update.changes.iter().take(MAX_ITEMS).map(|change| {
        let mut json = json!({"name": change.name});
        for (member, value) in [("before", &change.before), ("after", &change.after)] {
            if let Some(value) = value {
                json[member] = shown(value);
            }
        }
        json
    });
    json!({
        "at": update.at,
        "version": update.version,
        "operation": update.operation.name(),
        "value": shown(&update.value),
        "changes": changes.collect::<Vec<_>>(),
        "more_changes": update.changes.len().saturating_sub(MAX_ITEMS),
        "request": update.request,
    })
}

fn events_of(service: &Service, key: &str, id: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut before = u64::MAX;
    loop {
        let part = service.memory().events.before(before, PART);
        let Some((oldest, _)) = part.last() else {
            return found;
        };
        before = *oldest;
        for (_, event) in part {
            if is_linked(&event, key, id) {
                found.push(shown(&event));
                if found.len() == MAX_ITEMS {
                    return found;
                }
            }
        }
    }
}

/// Returns the last requests, the newest first, without their bodies.
fn requests(service: &Service) -> Value {
    let (requests, received, failed) = {
        let memory = service.memory();
        (memory.log.all(), memory.log.received, memory.log.failed)
    };
    let shown = requests.iter().rev().take(MAX_ITEMS).map(request_to_json);
    json!({
        "requests": shown.collect::<Vec<_>>(),
        // Failed ones may be older than the last requests of all.
        "failures": requests
            .iter()
            .rev()
            .filter(|request| request.is_failed())
            .take(MAX_ITEMS)
            .map(request_to_json)
            .collect::<Vec<_>>(),
        "received": received,
        "failed": failed,
    })
}

fn request_to_json(request: &Arc<ReceivedRequest>) -> Value {
    let dropped = request.dropped.iter().take(MAX_ITEMS);
    json!({
        "number": request.number,
        "at": request.at,
        "method": request.method,
        "path": cut(&request.path),
        "status": request.status,
        "accepted": request.accepted,
        "dropped": dropped.collect::<Vec<_>>(),
        "more_dropped": request.dropped.len().saturating_sub(MAX_ITEMS),
        "error": request.error.as_deref().map(cut),
        "is_failed": request.is_failed(),
    })
}

/// Returns a value with long texts and lists cut, which then end in a text that says so.
fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) => cut(text).into(),
        Value::Array(items) => {
            let mut shown: Vec<_> = items.iter().take(MAX_LIST).map(shown).collect();
            if items.len() > MAX_LIST {
                shown.push(format!("… and {} more", items.len() - MAX_LIST).into());
            }
            shown.into()
        }
        Value::Object(members) => {
            let mut shown: serde_json::Map<_, _> = members
                .iter()
                .take(MAX_MEMBERS)
                .map(|(name, value)| (name.clone(), shown(value)))
                .collect();
            if members.len() > MAX_MEMBERS {
                let more = members.len() - MAX_MEMBERS;
                shown.insert("…".into(), format!("and {more} more").into());
            }
            shown.into()
        }
        other => other.clone(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
