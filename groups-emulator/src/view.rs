//! The page that shows the emulator's state in a browser: one HTML file, and the JSON that it polls.
//!
//! A poll names the version that the page shows, and gets what came after it; the whole view, one page
//! long, only where there is more than that. Long values are cut, and so is a view that is too large.
//! Nothing is rendered under the memory's lock: what is shown is taken out of it, shared, and a search
//! takes the groups in parts. Viewers take turns.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use ureq_proto::http::{Method, Request, StatusCode, header};

use crate::control;
use crate::cutter::{Cutter, cut};
use crate::memory::{GroupSummary, KnownGroup, is_linked};
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

/// Paths that begin like this are asked for by browsers of their own accord: for an icon, or as a tool
/// for developers that looks for settings. There is nothing.
const BROWSER_PATHS: [&str; 3] = ["/favicon.ico", "/apple-touch-icon", "/.well-known/"];

/// Returns whether the request is for the page or its JSON, or one that a browser adds to it.
pub(crate) fn handles(request: &Request<()>) -> bool {
    let path = request.uri().path();
    let is_browser = || BROWSER_PATHS.iter().any(|begin| path.starts_with(begin));
    path.starts_with("/emulator/") || (only_looks(request) && (path == "/" || is_browser()))
}

/// Returns whether the method is `GET`, or `HEAD` as of programs that wait until something listens.
fn only_looks(request: &Request<()>) -> bool {
    [Method::GET, Method::HEAD].contains(request.method())
}

/// Returns the page, a view as JSON, or what [`control`] replies. Of a view that has not changed since the
/// version in the query, only the version comes back. `None` stands for a body that is too large.
pub(crate) fn reply(request: &Request<()>, body: Option<&[u8]>, service: &Service) -> Reply {
    if let Err(reason) = origin::check_page(request, &service.settings.allowed) {
        return Reply::error(StatusCode::FORBIDDEN, &reason);
    }
    let Some(body) = body else {
        return Reply::too_large(service.max_body(None), "bytes");
    };
    let control = request.uri().path().strip_prefix("/emulator/");
    let control = control.and_then(|name| control::reply(name, request.method(), body, service));
    if let Some(reply) = control {
        return reply;
    }
    let query = request.uri().query().unwrap_or_default();
    let query: BTreeMap<Cow<'_, str>, Cow<'_, str>> =
        form_urlencoded::parse(query.as_bytes()).collect();
    let parameter = |name| query.get(name).map_or("", |value| &**value);
    let (epoch, version) = {
        let memory = service.memory();
        (memory.epoch.clone(), memory.version)
    };
    // What the page knows, if it is of this memory.
    let since = parameter("since").strip_prefix(&*epoch);
    let since = since.and_then(|version| version.strip_prefix('-')?.parse().ok());
    let since = since.filter(|since| *since <= version);
    let is_known = since == Some(version);
    let mut view = match (request.uri().path(), request.method()) {
        ("/", _) => return Reply::html(PAGE).with_header(header::X_FRAME_OPTIONS, "DENY"),
        ("/emulator/groups" | "/emulator/group" | "/emulator/requests", _)
            if !only_looks(request) =>
        {
            return Reply::method_not_allowed("GET, HEAD");
        }
        ("/emulator/groups" | "/emulator/group" | "/emulator/requests", _) if is_known => json!({}),
        ("/emulator/groups", _) => {
            let before = parameter("before").parse().unwrap_or(u64::MAX);
            let filter = Filter::new(parameter("key"), parameter("search"));
            let changed = since.and_then(|since| changed_groups(service, &filter, since));
            let mut view = changed.unwrap_or_else(|| groups(service, &filter, before));
            add_totals(&mut view, service);
            view
        }
        ("/emulator/group", _) => {
            let (key, id) = (parameter("key"), parameter("id"));
            let changed = since.and_then(|since| changed_group(service, key, id, since));
            changed.unwrap_or_else(|| group(service, key, id))
        }
        ("/emulator/requests", _) => requests(service, since),
        (path, _) if path.starts_with("/emulator/") => {
            return Reply::error(StatusCode::NOT_FOUND, control::UNKNOWN_PATH);
        }
        (path, _) => return Reply::not_found(path),
    };
    view["version"] = format!("{epoch}-{version}").into();
    Reply::json(StatusCode::OK, view.to_string())
}

/// Which groups are listed: those of a group key, with a text in key, id or properties, ignoring case. Empty
/// texts match everything.
struct Filter<'a> {
    key: &'a str,
    search: String,
    /// The text as it is in JSON, without the quotes around it.
    escaped: String,
}

impl<'a> Filter<'a> {
    fn new(key: &'a str, search: &str) -> Self {
        let search = search.trim().to_lowercase();
        let json = Value::from(search.as_str()).to_string();
        let escaped = json[1..json.len() - 1].to_owned();
        Self {
            key,
            search,
            escaped,
        }
    }

    fn matches(&self, group: &GroupSummary) -> bool {
        let is_found = || {
            let profile = group.profile.to_string();
            let text = format!("{} {} {profile}", group.key, group.id).to_lowercase();
            text.contains(&self.search) || text.contains(&self.escaped)
        };
        (self.key.is_empty() || *self.key == *group.key) && (self.search.is_empty() || is_found())
    }
}

/// Returns the groups that have changed since a version, the last changed first, and those of them that
/// do not match any more. `None`, if they are more than one page.
fn changed_groups(service: &Service, filter: &Filter<'_>, since: u64) -> Option<Value> {
    let _turn = service.view_turn();
    let changed: Vec<_> = {
        let memory = service.memory();
        let groups = memory.profiles.changed(since, u64::MAX);
        groups
            .take(MAX_GROUPS + 1)
            .map(KnownGroup::summary)
            .collect()
    };
    if changed.len() > MAX_GROUPS {
        return None;
    }
    let (found, others): (Vec<_>, Vec<_>) = changed.iter().partition(|group| filter.matches(group));
    let others = others
        .iter()
        .map(|group| json!({"key": *group.key, "id": *group.id}));
    Some(json!({
        "since": since,
        "groups": found.into_iter().map(summary_to_json).collect::<Vec<_>>(),
        "unlisted": others.collect::<Vec<_>>(),
    }))
}

/// Returns a page of the groups that match, the last changed first. `before` is the `next` of the page
/// before.
fn groups(service: &Service, filter: &Filter<'_>, mut before: u64) -> Value {
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
            if filter.matches(&group) {
                found.push(group);
            }
        }
    }
    json!({
        "groups": found.iter().map(summary_to_json).collect::<Vec<_>>(),
        "next": (!is_complete).then_some(before),
    })
}

fn summary_to_json(group: &GroupSummary) -> Value {
    json!({
        "key": *group.key,
        "id": *group.id,
        "name": group.profile.get("$name").map(|name| Cutter::default().value(name)),
        "exists": group.profile.exists(),
        "existed": group.existed,
        "changed": group.at,
        "version": group.version,
    })
}

/// Adds the group keys, and how many there are of everything.
fn add_totals(view: &mut Value, service: &Service) {
    let memory = service.memory();
    let keys = memory.profiles.keys();
    let more_keys = keys.len().saturating_sub(MAX_ITEMS);
    let keys: Vec<_> = keys
        .take(MAX_ITEMS)
        .map(|(key, groups)| (key.to_owned(), groups))
        .collect();
    let totals = [
        ("known", memory.profiles.len()),
        ("events", memory.events.len()),
        ("requests", memory.log.received),
        ("failed", memory.log.failed),
        ("more_keys", more_keys),
    ];
    drop(memory);
    for (name, total) in totals {
        view[name] = total.into();
    }
    let keys = keys
        .iter()
        .map(|(key, groups)| json!({"key": key, "groups": groups}));
    view["keys"] = keys.collect();
}

/// Returns one group: its profile, and its last updates and events, the newest first.
fn group(service: &Service, key: &str, id: &str) -> Value {
    let _turn = service.view_turn();
    let group = service.memory().profiles.get(key, id).cloned();
    let group = group.as_ref();
    let profile = group.map(|group| &*group.profile);
    json!({
        "profile": profile.map(shown_profile),
        "existed": group.is_some_and(|group| group.existed),
        "properties": profile.map_or(0, |profile| profile.iter().count()),
        "updates": group.map_or(0, |group| group.history.len()),
        "history": group.map(|group| shown_history(group, 0)).unwrap_or_default(),
        "events": events_of(service, key, id, 0),
    })
}

/// Returns what has changed of a group since a version: the properties that its updates name, these
/// updates, and events. `None`, if that is more than the whole view has, or if an event was replaced, which
/// the page may show.
fn changed_group(service: &Service, key: &str, id: &str, since: u64) -> Option<Value> {
    let _turn = service.view_turn();
    let group = {
        let memory = service.memory();
        if memory.events.replaced > since {
            return None;
        }
        memory.profiles.get(key, id).cloned()?
    };
    let updates = group.history.iter().rev();
    let updates = updates.take_while(|update| update.version > since);
    let mut names = BTreeSet::new();
    let mut count = 0;
    for update in updates {
        count += 1;
        names.extend(update.changes.iter().map(|change| &*change.name));
    }
    // Where all that is kept is newer, there may have been more.
    if count == group.history.len() || count > MAX_ITEMS || names.len() > MAX_PROPERTIES {
        return None;
    }
    let mut cutter = Cutter::default();
    let (mut set, mut removed) = (serde_json::Map::new(), Vec::new());
    for name in names {
        match group.profile.get(name) {
            Some(value) => _ = set.insert(name.to_owned(), cutter.value(value)),
            None => removed.push(name),
        }
    }
    Some(json!({
        "since": since,
        "exists": group.profile.exists(),
        "existed": group.existed,
        "set": set,
        "removed": removed,
        "properties": group.profile.iter().count(),
        "updates": group.history.len(),
        "history": shown_history(&group, since),
        "events": events_of(service, key, id, since),
    }))
}

fn shown_profile(profile: &Profile) -> Value {
    if !profile.exists() {
        return Value::Null;
    }
    let mut cutter = Cutter::default();
    let properties = profile.iter().take(MAX_PROPERTIES);
    properties
        .map(|(name, value)| (name.to_owned(), cutter.value(value)))
        .collect()
}

/// Returns the last updates after a version, the newest first.
fn shown_history(group: &KnownGroup, since: u64) -> Vec<Value> {
    let mut cutter = Cutter::default();
    let newest = group.history.iter().rev().take(MAX_ITEMS);
    let newest = newest.take_while(|update| update.version > since || since == 0);
    newest
        .map(|update| update_to_json(update, &mut cutter))
        .collect()
}

fn update_to_json(update: &AppliedUpdate, cutter: &mut Cutter) -> Value {
    let value = cutter.value(&update.value);
    let changes = update.changes.iter().take(MAX_ITEMS).map(|change| {
        let mut json = json!({"name": change.name});
        for (member, value) in [("before", &change.before), ("after", &change.after)] {
            if let Some(value) = value {
                json[member] = cutter.value(value);
            }
        }
        json
    });
    let changes: Vec<_> = changes.collect();
    json!({
        "at": update.at,
        "version": update.version,
        "operation": update.operation.name(),
        "value": value,
        "changes": changes,
        "more_changes": update.changes.len().saturating_sub(MAX_ITEMS),
        "request": update.request,
    })
}

/// Returns the last events of a group after a version, the newest first.
fn events_of(service: &Service, key: &str, id: &str, since: u64) -> Vec<Value> {
    let mut found = Vec::new();
    let mut cutter = Cutter::default();
    let mut before = u64::MAX;
    loop {
        let part = service.memory().events.between(since, before, PART);
        let Some((oldest, _)) = part.last() else {
            return found;
        };
        before = *oldest;
        for (version, event) in part {
            if is_linked(&event, key, id) {
                found.push(event_to_json(&event, version, &mut cutter));
                if found.len() == MAX_ITEMS {
                    return found;
                }
            }
        }
    }
}

/// Returns an event with what the page needs of each, however little of the rest can still be shown.
fn event_to_json(event: &Value, version: u64, cutter: &mut Cutter) -> Value {
    let name = &event["event"];
    let (mut needed, mut others) = (serde_json::Map::new(), serde_json::Map::new());
    for (name, value) in event["properties"].as_object().into_iter().flatten() {
        let is_needed = ["time", "distinct_id", "$insert_id"].contains(&name.as_str());
        let properties = if is_needed { &mut needed } else { &mut others };
        properties.insert(name.clone(), value.clone());
    }
    let mut properties = cutter.value(&others.into());
    for (name, value) in needed {
        properties[name] = Cutter::default().value(&value);
    }
    json!({
        "event": Cutter::default().value(name),
        "properties": properties,
        "version": version,
    })
}

/// Returns the last requests, the newest first, without their bodies: those that were logged after the
/// version that the page knows.
fn requests(service: &Service, since: Option<u64>) -> Value {
    let (requests, received, failed) = {
        let memory = service.memory();
        (memory.log.all(), memory.log.received, memory.log.failed)
    };
    let newest = || {
        let newest = requests.iter().rev();
        newest.filter(|request| request.version > since.unwrap_or_default())
    };
    json!({
        "since": since,
        "requests": newest().take(MAX_ITEMS).map(request_to_json).collect::<Vec<_>>(),
        // Failed ones may be older than the last requests of all.
        "failures": newest()
            .filter(|request| request.is_failed())
            .take(MAX_ITEMS)
            .map(request_to_json)
            .collect::<Vec<_>>(),
        "received": received,
        "failed": failed,
    })
}

fn request_to_json(request: &Arc<ReceivedRequest>) -> Value {
    let dropped = request.dropped.iter().take(MAX_ITEMS).map(|record| {
        let [field, message] = [&record.field, &record.message].map(|text| cut(text));
        json!({"position": record.position, "field": field, "message": message})
    });
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
