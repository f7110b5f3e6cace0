//! The keys that exist, and which one is meant by one that does not.

use proc_macro2::Ident;
use syn::ext::IdentExt as _;

/// The keys of one place, each with an example of its use.
pub(crate) struct Keys {
    place: &'static str,
    keys: &'static [(&'static str, &'static str)],
}

pub(crate) const OF_STRUCT: Keys = Keys {
    place: "on the struct",
    keys: &[
        ("group_key", r#"group_key = "company""#),
        ("rename_all", r#"rename_all = "camelCase""#),
        ("unset_none", "unset_none"),
        ("serde", "serde"),
        ("crate", "crate = path::to::mixpanel_groups"),
        ("bound", r#"bound = "T: serde::Serialize""#),
    ],
};

pub(crate) const OF_FIELD: Keys = Keys {
    place: "on a field",
    keys: &[
        ("group_id", "group_id"),
        ("company_id", "company_id"),
        ("set_once", "set_once"),
        ("union", "union"),
        ("rename", r#"rename = "Seats Purchased""#),
        ("skip", "skip"),
        ("skip_if", r#"skip_if = "path::to::function""#),
        ("with", r#"with = "path::to::function""#),
        ("flatten", "flatten"),
        ("unset_none", "unset_none"),
    ],
};

pub(crate) const OF_GROUP_ID: Keys = Keys {
    place: "inside `group_id(…)`",
    keys: &[
        ("prefix", r#"group_id(prefix = "company_")"#),
        ("with", r#"group_id(with = "path::to::function")"#),
    ],
};

const PLACES: [Keys; 3] = [OF_STRUCT, OF_FIELD, OF_GROUP_ID];

/// What a key is called elsewhere.
const ALSO_KNOWN_AS: [(&str, &str); 6] = [
    ("skip_serializing", "skip"),
    ("skip_serializing_if", "skip_if"),
    ("serialize_with", "with"),
    ("key", "group_key"),
    ("id", "group_id"),
    ("name", "rename"),
];

impl Keys {
    /// Whether the key exists here; if not, where it does or which one is meant.
    pub(crate) fn check(&self, key: &str) -> Result<(), String> {
        if self.find(key).is_some() {
            return Ok(());
        }
        if key == "set" {
            return Err(
                "`$set` needs no key: it is what becomes of a field that names no other \
                        operation"
                    .to_owned(),
            );
        }
        for keys in PLACES {
            if let Some(usage) = keys.find(key) {
                let place = keys.place;
                return Err(format!("`{key}` belongs {place}: `#[mixpanel({usage})]`"));
            }
        }
        if let Some(nearest) = self.nearest(key) {
            return Err(format!("unknown key `{key}`; did you mean `{nearest}`?"));
        }
        let all = self.keys.iter().map(|(name, _)| format!("`{name}`"));
        let all = all.collect::<Vec<_>>().join(", ");
        let place = self.place;
        Err(format!("unknown key `{key}`; the keys {place} are {all}"))
    }

    fn find(&self, key: &str) -> Option<&'static str> {
        let found = self.keys.iter().find(|(name, _)| *name == key);
        found.map(|(_, usage)| *usage)
    }

    fn nearest(&self, key: &str) -> Option<&'static str> {
        let known = ALSO_KNOWN_AS.iter().find(|(other, _)| *other == key);
        if let Some((_, name)) = known.filter(|(_, name)| self.find(name).is_some()) {
            return Some(name);
        }
        let names = self.keys.iter().map(|(name, _)| *name);
        let (distance, name) = names.map(|name| (distance(key, name), name)).min()?;
        (distance * 3 <= key.len().max(name.len()) + 2).then_some(name)
    }
}

/// How the key is used.
pub(crate) fn usage(key: &Ident) -> &'static str {
    let key = key.unraw().to_string();
    PLACES.iter().find_map(|keys| keys.find(&key)).unwrap_or("")
}

/// How many letters must be added, left out or changed to make the one into the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.chars().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}
