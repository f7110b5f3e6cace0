//! What the emulator's page shows: one file of HTML, and the JSON that it asks for.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use ureq_proto::http::{HeaderMap, Method, Request, StatusCode, header};

use crate::answer::Answer;
use crate::memory::Memory;
use crate::profiles::Past;

const PAGE: &str = include_str!("page.html");

/// How many groups and events the page gets at once.
const MAX_SHOWN: usize = 200;

/// Whether the request comes from the page, or is for it.
pub(crate) fn is_for(request: &Request<()>) -> bool {
    let path = request.uri().path();
    request.method() == Method::GET && (path == "/" || path.starts_with("/emulator/"))
}

pub(crate) fn answer(request: &Request<()>, memory: &Memory) -> Answer {
    if !is_this_machine(request.headers()) {
        return Answer::error(StatusCode::FORBIDDEN, "this page is for this machine only");
    }
    let query = request.uri().query().unwrap_or_default();
    let query: BTreeMap<Cow<'_, str>, Cow<'_, str>> =
        form_urlencoded::parse(query.as_bytes()).collect();
    let parameter = |name| query.get(name).map_or("", |value| &**value);
    let mut view = match request.uri().path() {
        "/" => return Answer::html(PAGE),
        _ if parameter("since") == memory.version.to_string() => json!({}),
        "/emulator/groups" => groups(memory, parameter("key"), parameter("search")),
        "/emulator/group" => group(memory, parameter("key"), parameter("id")),
        _ => return Answer::not_found(),
    };
    view["version"] = memory.version.into();
    Answer::json(StatusCode::OK, &view)
}

/// A name that anybody can point here must not let a stranger's page read what is here.
fn is_this_machine(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    ["127.0.0.1", "localhost", "[::1]"].contains(&name)
}

/// The group keys, and the groups of one of them or of all in which the text is found.
fn groups(memory: &Memory, only: &str, search: &str) -> Value {
    let search = search.trim().to_lowercase();
    let mut keys = BTreeMap::new();
    let mut found = Vec::new();
    for (key, id, known) in memory.profiles.iter() {
        *keys.entry(key).or_insert(0) += 1;
        let text = || format!("{id} {}", known.profile).to_lowercase();
        if (only.is_empty() || only == key) && (search.is_empty() || text().contains(&search)) {
            let changed = known.history.back().map_or(0, |past| past.at);
            found.push((Reverse(changed), key, id, known));
        }
    }
    found.sort_by_key(|(changed, key, id, _)| (*changed, *key, *id));
    let total = found.len();
    let shown = found.into_iter().take(MAX_SHOWN);
    let groups = shown.map(|(Reverse(changed), key, id, known)| {
        json!({
            "key": key,
            "id": id,
            "name": known.profile.get("$name"),
            "exists": known.profile.exists(),
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

/// One group: its profile, and the last of its updates and events, the newest first.
fn group(memory: &Memory, key: &str, id: &str) -> Value {
    let known = memory.profiles.get(key, id);
    let history = known.map(|known| known.history.iter().rev().map(Past::to_json));
    let events = memory.events.of(key, id).rev().take(MAX_SHOWN);
    json!({
        "profile": known.map(|known| &known.profile),
        "history": history.into_iter().flatten().collect::<Vec<_>>(),
        "events": events.collect::<Vec<_>>(),
    })
}
