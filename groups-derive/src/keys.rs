//! Finding a key by its name, and the one that is meant by a name that does not exist.

use crate::attr::{FieldAttrs, IdAttrs, StructAttrs};

/// The keys of one place, each with an example of its use.
pub(crate) struct Keys {
    pub(crate) place: &'static str,
    pub(crate) keys: &'static [(&'static str, &'static str)],
}

pub(crate) const PLACES: [Keys; 3] = [StructAttrs::KEYS, FieldAttrs::KEYS, IdAttrs::KEYS];

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
                "`$set` is what becomes of a field without another operation: \
                        leave `set` out"
                    .to_owned(),
            );
        }
        let meant = elsewhere(key).or_else(|| self.meant(key));
        Err(meant.unwrap_or_else(|| format!("unknown key `{key}`; {}", self.all())))
    }

    fn meant(&self, key: &str) -> Option<String> {
        let here = self.nearest(key).map(|name| format!("`{name}`"));
        let meant = here.or_else(|| {
            let mut places = PLACES.iter();
            let (name, place) = places.find_map(|keys| Some((keys.nearest(key)?, keys.place)))?;
            Some(format!("`{name}`, which belongs {place}"))
        })?;
        Some(format!("unknown key `{key}`; did you mean {meant}?"))
    }

    /// All keys, for messages.
    pub(crate) fn all(&self) -> String {
        let all = self.keys.iter().map(|(name, _)| format!("`{name}`"));
        let all = all.collect::<Vec<_>>().join(", ");
        format!("the keys {} are {all}", self.place)
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

fn elsewhere(key: &str) -> Option<String> {
    let mut places = PLACES.iter();
    let (usage, place) = places.find_map(|keys| Some((keys.find(key)?, keys.place)))?;
    Some(format!("`{key}` belongs {place}: `#[mixpanel({usage})]`"))
}

/// How the key is used.
pub(crate) fn usage(key: &str) -> &'static str {
    PLACES.iter().find_map(|keys| keys.find(key)).unwrap_or("")
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
