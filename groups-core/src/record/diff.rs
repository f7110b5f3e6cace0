//! Computes the operations that bring a group's profile up to date, for [`Changes`](crate::record::Changes) and
//! [`Snapshot`](crate::Snapshot).

use std::collections::HashSet;

use crate::group::{Group, Operation};
use crate::json::escape::push_str;
use crate::json::item::{Item, parse_items};
use crate::json::serializer::write_end;
use crate::json::{EncodeError, close};
use crate::record::Update;
use crate::record::encode::write_update;
use crate::util::Buffer;

/// The values of the operations, each as items that begin with a comma. A `key` is `,"name":`.
#[derive(Default)]
pub(crate) struct Differences {
    pub(crate) set: Buffer,
    pub(crate) set_once: Buffer,
    unset: Buffer,
    union: Buffer,
    /// The entries of several updates, since one `$remove` takes one item of each property.
    removes: Vec<Buffer>,
}

impl Differences {
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        write_entry(&mut self.set, key, value);
    }

    pub(crate) fn set_once(&mut self, key: &str, value: &str) {
        write_entry(&mut self.set_once, key, value);
    }

    pub(crate) fn unset(&mut self, key: &str) {
        // The colon is left out.
        self.unset
            .extend_from_slice(&key.as_bytes()[..key.len() - 1]);
    }

    /// Sets a list of `$union`, whatever the property was before. No item comes twice, as after `$union`.
    pub(crate) fn set_list(&mut self, key: &str, list: &str) {
        self.set.extend_from_slice(key.as_bytes());
        let start = self.set.len();
        let mut seen = HashSet::new();
        for (json, _) in parse_items(list).filter(|(_, item)| seen.insert(item.clone())) {
            self.set.push(b',');
            self.set.extend_from_slice(json.as_bytes());
        }
        close(&mut self.set, start, *b"[]");
    }

    /// Adds the operations that change a list of `$union` to `new`. The profile has the items of `has` and may have
    /// those of `may_have`. A list that is now empty is unset. Mixpanel cuts items at 255 bytes, so `$remove` would
    /// not find a longer one, or would find what is kept of a longer one that stays: such a list is set anew.
    pub(crate) fn change_list(&mut self, key: &str, new: &str, has: &str, may_have: &str) {
        let list = new;
        let new: Vec<_> = parse_items(list).collect();
        if new.is_empty() {
            return self.unset(key);
        }
        let kept: HashSet<_> = new.iter().map(|(_, item)| item).collect();
        let cut: HashSet<_> = new.iter().filter_map(|(_, item)| item.cut()).collect();
        let is_removable = |item: &Item| item.cut().is_none() && !cut.contains(item);
        if parse_items(may_have).any(|(_, item)| !kept.contains(&item) && !is_removable(&item)) {
            return self.set_list(key, list);
        }
        let had: HashSet<_> = parse_items(has).map(|(_, item)| item).collect();
        let added: Vec<_> = new.iter().filter(|(_, item)| !had.contains(item)).collect();
        if !added.is_empty() {
            self.union.extend_from_slice(key.as_bytes());
            let list = self.union.len();
            for (json, _) in added {
                self.union.push(b',');
                self.union.extend_from_slice(json.as_bytes());
            }
            close(&mut self.union, list, *b"[]");
        }
        let mut removed = HashSet::new();
        for (json, item) in parse_items(may_have) {
            if !kept.contains(&item) && removed.insert(item) {
                let updates = self.removes.len().max(removed.len());
                self.removes.resize_with(updates, Buffer::default);
                write_entry(&mut self.removes[removed.len() - 1], key, json);
            }
        }
    }

    /// Returns the updates with these values; there are none if nothing differs.
    fn into_updates(self, group: &Group<'_>) -> Vec<Update<'static>> {
        let mut updates = Vec::new();
        let mut push = |operation, items: Buffer, brackets| {
            if items.is_empty() {
                return;
            }
            let mut json = Buffer::default();
            let written = write_update(&mut json, group, operation, |out, start| {
                let end = out.put_slice(start, &items);
                Ok(write_end(out, start, end, brackets))
            });
            updates.push(Update::encoded(json.into_vec(), written));
        };
        // First: a flattened name may have moved to a field with another operation.
        push(Operation::Unset, self.unset, *b"[]");
        push(Operation::Set, self.set, *b"{}");
        push(Operation::SetOnce, self.set_once, *b"{}");
        self.removes
            .into_iter()
            .for_each(|items| push(Operation::Remove, items, *b"{}"));
        push(Operation::Union, self.union, *b"{}");
        updates
    }
}

/// Returns the updates of the differences, or one that is rejected with the error, which has the operation of its property.
pub(crate) fn updates(
    differences: Result<Differences, (Operation, EncodeError)>,
    group: &Group<'_>,
) -> Vec<Update<'static>> {
    match differences {
        Ok(differences) => differences.into_updates(group),
        Err((operation, error)) => vec![Update::invalid(group, operation, error)],
    }
}

const UTF_8: &str = "this crate writes UTF-8";

fn write_entry(out: &mut Buffer, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value.as_bytes());
}

/// Returns `,"name":`.
pub(crate) fn key_of(name: &str) -> String {
    let mut key = Buffer::default();
    key.push(b',');
    push_str(&mut key, name);
    key.push(b':');
    String::from_utf8(key.into_vec()).expect(UTF_8)
}

/// Returns JSON that this crate wrote as text.
pub(crate) fn text(json: &[u8]) -> &str {
    std::str::from_utf8(json).expect(UTF_8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::EncodedUpdate;

    /// Returns the operations of the updates, in order.
    fn operations(differences: Differences) -> Vec<String> {
        let acme = Group::new("company", "acme");
        let updates = updates(Ok(differences), &acme).into_iter();
        let json = updates.map(|update| EncodedUpdate::new(&update).unwrap().unwrap());
        let prefix = r#"{"$group_key":"company","$group_id":"acme","#;
        json.map(|update| update.as_json().replace(prefix, "{"))
            .collect()
    }

    #[test]
    fn each_operation_has_its_update_and_what_is_empty_has_none() {
        assert!(operations(Differences::default()).is_empty());
        let mut differences = Differences::default();
        differences.change_list(",\"u\":", "[1,2]", "[1]", "[1]");
        differences.set_once(",\"o\":", "3");
        differences.set(",\"s\":", "4");
        differences.set_list(",\"l\":", "[5,6,5]");
        differences.unset(",\"x\":");
        assert_eq!(
            operations(differences),
            [
                r#"{"$unset":["x"]}"#,
                r#"{"$set":{"s":4,"l":[5,6]}}"#,
                r#"{"$set_once":{"o":3}}"#,
                r#"{"$union":{"u":[2]}}"#,
            ]
        );
    }

    #[test]
    fn a_list_is_changed_by_its_items() {
        let cut = format!("\"{}\"", "x".repeat(256));
        let with_cut = format!("[1,{cut}]");
        // Cut before the character in which the 255th byte is.
        let [kept, long] = ["", "\\u00e9xxx"].map(|end| format!("\"{}{end}\"", "p".repeat(254)));
        let (both, long) = (format!("[{kept},{long}]"), format!("[{long}]"));
        for (new, has, may_have, expected) in [
            ("[1]", "[1]", "[1]", &[][..]),
            ("[]", "[1]", "[1]", &[r#"{"$unset":["a"]}"#]),
            (
                "[3]",
                "[1]",
                "[1,2,1]",
                &[
                    r#"{"$remove":{"a":1}}"#,
                    r#"{"$remove":{"a":2}}"#,
                    r#"{"$union":{"a":[3]}}"#,
                ],
            ),
            // It cannot be removed: Mixpanel does not have it as it is.
            ("[1]", &with_cut, &with_cut, &[r#"{"$set":{"a":[1]}}"#]),
            (&with_cut, &with_cut, &with_cut, &[]),
            // It is what Mixpanel has of a longer one that stays.
            (
                &long,
                &both,
                &both,
                &[&*format!(r#"{{"$set":{{"a":{long}}}}}"#)],
            ),
            (&both, &both, &both, &[]),
        ] {
            let mut differences = Differences::default();
            differences.change_list(",\"a\":", new, has, may_have);
            assert_eq!(operations(differences), expected, "{new} {has} {may_have}");
        }
    }

    #[test]
    fn properties_whose_items_are_removed_share_updates() {
        let mut differences = Differences::default();
        differences.change_list(",\"a\":", "[9]", "[9]", "[1,2]");
        differences.change_list(",\"b\":", "[9]", "[9]", "[3]");
        assert_eq!(
            operations(differences),
            [r#"{"$remove":{"a":1,"b":3}}"#, r#"{"$remove":{"a":2}}"#]
        );
    }
}
