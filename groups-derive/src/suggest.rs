//! Suggestions for a key that does not exist where it was written.

use crate::keys::{Keys, PLACES};

/// Names in serde and other libraries, each with the key here.
const ALSO_KNOWN_AS: [(&str, &str); 6] = [
    ("skip_serializing", "skip"),
    ("skip_serializing_if", "skip_if"),
    ("serialize_with", "with"),
    ("key", "group_key"),
    ("id", "group_id"),
    ("name", "rename"),
];

impl Keys {
    /// Checks that the key exists here. If not, the error has the place or the key that was meant.
    pub(crate) fn check(&self, key: &str) -> Result<(), String> {
        if self.usage(key).is_some() {
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

    /// Lists all keys, for messages.
    pub(crate) fn all(&self) -> String {
        let all: Vec<_> = self.names().map(|name| format!("`{name}`")).collect();
        format!("the keys {} are {}", self.place, all.join(", "))
    }

    fn nearest(&self, key: &str) -> Option<&'static str> {
        let known = ALSO_KNOWN_AS.iter().find(|(other, _)| *other == key);
        if let Some((_, name)) = known.filter(|(_, name)| self.usage(name).is_some()) {
            return Some(name);
        }
        let names = self.names().map(|name| (distance(key, name), name));
        let (distance, name) = names.min()?;
        (distance * 3 <= key.len().max(name.len()) + 2).then_some(name)
    }
}

fn elsewhere(key: &str) -> Option<String> {
    let mut places = PLACES.iter();
    let (usage, place) = places.find_map(|keys| Some((keys.usage(key)?, keys.place)))?;
    Some(format!("`{key}` belongs {place}: `#[mixpanel({usage})]`"))
}

/// Returns the number of letters to add, remove or change between two texts.
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
