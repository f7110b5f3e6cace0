use std::collections::BTreeMap;

use crate::client::mutable_list::union;
use crate::json::item::{Item, parse_items};

/// Group key and id.
pub(super) type GroupName = (String, String);

/// What is known of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Its company, which has to be named even to delete it.
    pub(super) company_id: Option<String>,
    /// Its properties, by name.
    pub(super) traces: BTreeMap<String, Trace>,
}

/// What is left of a property that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trace {
    /// The hash of a value of `$set`.
    Value(u128),
    /// `$set_once`, whatever the value was.
    Once,
    /// The items of `$union`, as [`set_of`] returns them.
    List(String),
    /// It was sent, and whether it was applied is not known. It has some of these items if it is a list of `$union`;
    /// `None` if it may be any value.
    Uncertain(Option<String>),
}

/// Returns what is known of a group that may be in one state or in the other, or may have been deleted.
pub(super) fn uncertain(one: Option<&Known>, other: Option<&Known>) -> Known {
    let both = one.into_iter().chain(other);
    let names = both.flat_map(|known| known.traces.keys());
    let traces = names.map(|name| {
        let of = |known: Option<&Known>| known.and_then(|known| known.traces.get(name)).cloned();
        (name.clone(), [of(one), of(other)])
    });
    let uncertain = traces.filter_map(|(name, traces)| match traces {
        [Some(Trace::Once), Some(Trace::Once)] => Some((name, Trace::Once)),
        // Sending it again does no harm.
        [None | Some(Trace::Once), None | Some(Trace::Once)] => None,
        traces => {
            let items =
                traces
                    .iter()
                    .flatten()
                    .try_fold("[]".to_owned(), |all, trace| match trace {
                        Trace::List(items) | Trace::Uncertain(Some(items)) => {
                            Some(union(&all, items))
                        }
                        Trace::Value(_) | Trace::Once | Trace::Uncertain(None) => None,
                    });
            Some((name, Trace::Uncertain(items)))
        }
    });
    Known {
        company_id: other.or(one).and_then(|known| known.company_id.clone()),
        traces: uncertain.collect(),
    }
}

/// Returns the items of a list in an order of their own, each once: equal for equal sets.
pub(super) fn set_of(list: &str) -> String {
    let mut items: Vec<Item> = parse_items(list).map(|(_, item)| item).collect();
    items.sort();
    items.dedup();
    let items: Vec<String> = items.into_iter().map(Item::into_json).collect();
    format!("[{}]", items.join(","))
}
