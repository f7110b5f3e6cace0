//! What is to be said of a group so that its profile follows: the common part of
//! [`Changes`](crate::Changes) and [`Snapshot`](crate::Snapshot).

use std::collections::HashSet;

use crate::group::{Group, Operation};
use crate::json::escape::write_str;
use crate::json::item::parse_items;
use crate::json::{EncodeError, close};
use crate::record::Update;
use crate::record::encode::write_update;

/// What each operation is to say, as items that begin with a comma. A `key` is `,"name":`.
#[derive(Default)]
pub(crate) struct Differences {
    pub(crate) set: Vec<u8>,
    pub(crate) set_once: Vec<u8>,
    unset: Vec<u8>,
    union: Vec<u8>,
    /// One update's entries each, since `$remove` takes one item a property.
    removes: Vec<Vec<u8>>,
}

impl Differences {
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        write_entry(&mut self.set, key, value);
    }

    pub(crate) fn set_once(&mut self, key: &str, value: &str) {
        write_entry(&mut self.set_once, key, value);
    }

    pub(crate) fn unset(&mut self, key: &str) {
        // Without the colon.
        self.unset
            .extend_from_slice(&key.as_bytes()[..key.len() - 1]);
    }

    /// A list of `$union` whose items may have come and gone: it has those of `has` for sure and
    /// those of `may_have` perhaps. One without items is gone itself.
    pub(crate) fn change_list(&mut self, key: &str, new: &str, has: &str, may_have: &str) {
        let new: Vec<_> = parse_items(new).collect();
        if new.is_empty() {
            return self.unset(key);
        }
        let had: HashSet<_> = parse_items(has).map(|(_, item)| item).collect();
        let came: Vec<_> = new.iter().filter(|(_, item)| !had.contains(item)).collect();
        if !came.is_empty() {
            self.union.extend_from_slice(key.as_bytes());
            let list = self.union.len();
            for (json, _) in came {
                self.union.push(b',');
                self.union.extend_from_slice(json.as_bytes());
            }
            close(&mut self.union, list, *b"[]");
        }
        let stays: HashSet<_> = new.iter().map(|(_, item)| item).collect();
        let mut went = HashSet::new();
        for (json, item) in parse_items(may_have) {
            if !stays.contains(&item) && went.insert(item) {
                if self.removes.len() < went.len() {
                    self.removes.push(Vec::new());
                }
                write_entry(&mut self.removes[went.len() - 1], key, json);
            }
        }
    }

    /// The updates that say it; nothing, if nothing is to be said.
    fn into_updates(self, group: &Group<'_>) -> Vec<Update<'static>> {
        let mut updates = Vec::new();
        let mut say = |operation, items: Vec<u8>, brackets| {
            if items.is_empty() {
                return;
            }
            let mut json = Vec::new();
            let written = write_update(&mut json, group, operation, |out| {
                let start = out.len();
                out.extend_from_slice(&items);
                close(out, start, brackets);
                Ok(())
            });
            updates.push(Update::encoded(json, written));
        };
        say(Operation::Set, self.set, *b"{}");
        say(Operation::SetOnce, self.set_once, *b"{}");
        say(Operation::Unset, self.unset, *b"[]");
        self.removes
            .into_iter()
            .for_each(|items| say(Operation::Remove, items, *b"{}"));
        say(Operation::Union, self.union, *b"{}");
        updates
    }
}

/// The updates that say the differences, or one that says why there are none.
pub(crate) fn updates(
    differences: Result<Differences, EncodeError>,
    group: &Group<'_>,
) -> Vec<Update<'static>> {
    match differences {
        Ok(differences) => differences.into_updates(group),
        Err(error) => vec![Update::invalid(group, Operation::Set, error)],
    }
}

fn write_entry(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value.as_bytes());
}

/// `,"name":`
pub(crate) fn key_of(name: &str) -> String {
    let mut key = vec![b','];
    write_str(&mut key, name);
    key.push(b':');
    String::from_utf8(key).unwrap_or_default()
}

/// JSON of ours, which is text.
pub(crate) fn text(json: &[u8]) -> &str {
    std::str::from_utf8(json).unwrap_or_default()
}
