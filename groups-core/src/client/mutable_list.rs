use std::collections::HashMap;

use crate::json::item::{Item, bracket, parse_items};
use crate::util::Buffer;

/// A JSON value that `$union` and `$remove` change if it is a list: item by item, however long it is.
pub(crate) enum MutableList<'a> {
    Unchanged(&'a str),
    Changed(Items<'a>),
}

pub(crate) struct Items<'a> {
    /// The JSON of each item that is left, in order.
    json: Vec<Option<&'a str>>,
    places: HashMap<Item, Vec<usize>>,
    /// The items are unique.
    is_unique: bool,
}

impl<'a> MutableList<'a> {
    pub(crate) fn new(json: &'a str) -> Self {
        Self::Unchanged(json)
    }

    /// Returns the items, if the value is a list.
    fn items(&mut self) -> Option<&mut Items<'a>> {
        if let Self::Unchanged(json) = self {
            if !json.starts_with('[') {
                return None;
            }
            let mut items = Items {
                json: Vec::new(),
                places: HashMap::new(),
                is_unique: false,
            };
            for (json, item) in parse_items(json) {
                items.push(json, item);
            }
            *self = Self::Changed(items);
        }
        match self {
            Self::Unchanged(_) => None,
            Self::Changed(items) => Some(items),
        }
    }

    /// Does what `$union` of a list of items does, which keeps each item once.
    pub(crate) fn add(&mut self, more: &'a str) {
        let Some(items) = self.items() else { return };
        if !std::mem::replace(&mut items.is_unique, true) {
            for places in items.places.values_mut() {
                for place in places.drain(1..) {
                    items.json[place] = None;
                }
            }
        }
        for (json, item) in parse_items(more) {
            if !items.places.contains_key(&item) {
                items.push(json, item);
            }
        }
    }

    /// Does what `$remove` of an item does.
    pub(crate) fn remove(&mut self, item: &str) {
        let Some(items) = self.items() else { return };
        for place in items.places.remove(&Item::parse(item)).unwrap_or_default() {
            items.json[place] = None;
        }
    }

    pub(crate) fn write(&self, out: &mut Buffer) {
        match self {
            Self::Unchanged(json) => out.extend_from_slice(json.as_bytes()),
            Self::Changed(items) => {
                let start = out.len();
                for json in items.json.iter().flatten() {
                    out.push(b',');
                    out.extend_from_slice(json.as_bytes());
                }
                bracket(out, start, *b"[]");
            }
        }
    }
}

impl<'a> Items<'a> {
    fn push(&mut self, json: &'a str, item: Item) {
        self.places.entry(item).or_default().push(self.json.len());
        self.json.push(Some(json));
    }
}

/// Returns a value after `$union` of a list.
pub(crate) fn union(value: &str, items: &str) -> String {
    let mut list = MutableList::new(value);
    list.add(items);
    let mut out = Buffer::default();
    list.write(&mut out);
    String::from_utf8(out.into_vec()).expect("pieces of text")
}
