//! The page that shows the emulator's state in a browser: one HTML file, and the JSON that it polls.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use ureq_proto::http::{HeaderMap, Method, Request, StatusCode, header};

use crate::memory::{AppliedUpdate, Memory};
use crate::reply::Reply;

const PAGE: &str = include_str!("page.html");

/// The most groups, and the most events of a group, in one view.
const MAX_SHOWN: usize = 200;

/// Returns whether the request is for the page or its JSON.
pub(crate) fn handles(request: &Request<()>) -> bool {
    let path = request.uri().path();
    request.method() == Method::GET && (path == "/" || path.starts_with("/emulator/"))
}

/// Returns the page, or a view as JSON. A view that has not changed since the version in the query is
/// left out: only the version comes back.
pub(crate) fn reply(request: &Request<()>, memory: &Memory) -> Reply {
    if !is_for_this_machine(request.headers()) {
        return Reply::error(StatusCode::FORBIDDEN, "this page is for this machine only");
    }
    let query = request.uri().query().unwrap_or_default();
    let query: BTreeMap<Cow<'_, str>, Cow<'_, str>> =
        form_urlencoded::parse(query.as_bytes()).collect();
    let parameter = |name| query.get(name).map_or("", |value| &**value);
    let mut view = match request.uri().path() {
        "/" => return Reply::html(PAGE),
        _ if parameter("since") == memory.version.to_string() => json!({}),
        "/emulator/groups" => groups(memory, parameter("key"), parameter("search")),
        "/emulator/group" => group(memory, parameter("key"), parameter("id")),
        _ => return Reply::not_found(),
    };
    view["version"] = memory.version.into();
    Reply::json(StatusCode::OK, &view)
}

/// Returns whether the browser reached the page by a name of this machine. A site whose name resolves
/// to 127.0.0.1 (DNS rebinding) must not read what is here.
fn is_for_this_machine(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    ["127.0.0.1", "localhost", "[::1]"].contains(&name)
}

/// Returns all group keys, and the groups that match, the last changed first. `only` is a group key;
/// `search` is found in ids and properties, ignoring case. An empty one matches everything.
fn groups(memory: &Memory, only: &str, search: &str) -> Value {
    let search = search.trim().to_lowercase();
    let mut keys = BTreeMap::new();
    let mut found = Vec::new();
    for (key, id, group) in memory.profiles.iter() {
        *keys.entry(key).or_insert(0) += 1;
        let text = || format!("{id} {}", group.profile).to_lowercase();
        if (only.is_empty() || only == key) && (search.is_empty() || text().contains(&search)) {
            let changed = group.history.back().map_or(0, |update| update.at);
            found.push((Reverse(changed), key, id, group));
        }
    }
    found.sort_by_key(|(changed, key, id, _)| (*changed, *key, *id));
    let total = found.len();
    let shown = found.into_iter().take(MAX_SHOWN);
    let groups = shown.map(|(Reverse(changed), key, id, group)| {
        json!({
            "key": key,
            "id": id,
            "name": group.profile.get("$name"),
            "exists": group.profile.exists(),
            "changed": changed,
        })
    });
    let keys = keys.into_iter();
    let keys = keys.map(|(key, groups)| json!({"key": key, "groups": groups}));
    json!({
        "keys": keys.collect::<Vec<_>>(),
        "groups": groups.collect::<Vec<_>>(),
        "found": total,
        "events": memory.events.len(),
    })
}

/// Returns one group: its profile, and its last updates and events, the newest first.
fn group(memory: &Memory, key: &str, id: &str) -> Value {
    let group = memory.profiles.get(key, id);
    let history = group.map(|group| group.history.iter().rev().map(AppliedUpdate::to_json));
    let events = memory.events.of(key, id).rev().take(MAX_SHOWN);
    json!({
        "profile": group.map(|group| &group.profile),
        "history": history.into_iter().flatten().collect::<Vec<_>>(),
        "events": events.collect::<Vec<_>>(),
    })
}
