use std::collections::BTreeMap;

use crate::client::mutable_list::union;
use crate::json::item::{Item, parse_items};

/// How many items may be in a list beside twice as many as it was to have.
const FEW: usize = 50;

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
    /// `$set_once`, and whether it was applied is not known.
    MaybeOnce,
    /// The items of `$union`, as [`set_of`] returns them.
    List(String),
    /// It was sent by `$set` or `$union`, and whether it was applied is not known. It has some of these items if it is a
    /// list of `$union`; `None` if it may be any value.
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
    let uncertain = traces.map(|(name, traces)| {
        let mut sent = traces.iter().flatten();
        let is_once = |trace: &Trace| matches!(trace, Trace::Once | Trace::MaybeOnce);
        if sent.clone().all(is_once) {
            return (name, Trace::MaybeOnce);
        }
        let items = sent.try_fold("[]".to_owned(), |all, trace| match trace {
            Trace::List(items) | Trace::Uncertain(Some(items)) => Some(union(&all, items)),
            _ => None,
        });
        let items = items.filter(|items| is_worth_removing(items, &traces));
        (name, Trace::Uncertain(items))
    });
    Known {
        company_id: other.or(one).and_then(|known| known.company_id.clone()),
        traces: uncertain.collect(),
    }
}

/// Returns whether the items that may be in a list are not too many to remove: each that is not in it any more needs an update
/// of its own. Without a limit they would be more after each night that does not end well.
fn is_worth_removing(items: &str, traces: &[Option<Trace>]) -> bool {
    let count = |items: &str| parse_items(items).count();
    let lists = traces.iter().flatten().filter_map(|trace| match trace {
        Trace::List(items) => Some(count(items)),
        _ => None,
    });
    let longest = lists.max();
    longest.is_none_or(|longest| count(items) <= 2 * longest + FEW)
}

/// Returns the items of a list in an order of their own, each once: equal for equal sets.
pub(super) fn set_of(list: &str) -> String {
    let mut items: Vec<Item> = parse_items(list).map(|(_, item)| item).collect();
    items.sort();
    items.dedup();
    let items: Vec<String> = items.into_iter().map(Item::into_json).collect();
    format!("[{}]", items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group with this trace of one property, or without a property.
    fn known(trace: Option<&Trace>) -> Known {
        let traces = trace.into_iter().cloned();
        Known {
            company_id: None,
            traces: traces.map(|trace| ("name".to_owned(), trace)).collect(),
        }
    }

    #[test]
    fn what_may_be_in_one_state_or_the_other() {
        let list = |items: &str| Some(Trace::List(items.to_owned()));
        let may_be = |items: &str| Some(Trace::Uncertain(Some(items.to_owned())));
        let (value, once, unknown) = (Trace::Value(1), Trace::Once, Trace::Uncertain(None));
        let may_be_once = Trace::MaybeOnce;
        for (one, other, expected) in [
            (None, None, None),
            (
                Some(once.clone()),
                Some(once.clone()),
                Some(may_be_once.clone()),
            ),
            (Some(once.clone()), None, Some(may_be_once.clone())),
            (Some(may_be_once.clone()), None, Some(may_be_once.clone())),
            (
                Some(may_be_once.clone()),
                Some(once.clone()),
                Some(may_be_once.clone()),
            ),
            (
                Some(may_be_once.clone()),
                Some(value.clone()),
                Some(unknown.clone()),
            ),
            (Some(may_be_once), list("[1]"), Some(unknown.clone())),
            (
                Some(value.clone()),
                Some(value.clone()),
                Some(unknown.clone()),
            ),
            (Some(value.clone()), None, Some(unknown.clone())),
            (Some(value.clone()), list("[1]"), Some(unknown.clone())),
            (Some(once), list("[1]"), Some(unknown.clone())),
            (list("[1]"), None, may_be("[1]")),
            (list("[1]"), list("[2,1]"), may_be("[1,2]")),
            (list("[1]"), may_be("[2]"), may_be("[1,2]")),
            (list("[1]"), Some(unknown.clone()), Some(unknown)),
        ] {
            for (one, other) in [(&one, &other), (&other, &one)] {
                let found = uncertain(Some(&known(one.as_ref())), Some(&known(other.as_ref())));
                let mut found = found.traces.get("name").cloned();
                if let Some(Trace::Uncertain(Some(items))) = &mut found {
                    *items = set_of(items);
                }
                assert_eq!(found, expected, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_list_that_may_have_many_more_items_than_it_was_to_have_may_be_any_value() {
        let items = |from: u32, to: u32| {
            let items: Vec<String> = (from..to).map(|item| item.to_string()).collect();
            format!("[{}]", items.join(","))
        };
        let list = |from, to| Some(Trace::List(items(from, to)));
        let may_be = |from, to| Some(Trace::Uncertain(Some(items(from, to))));
        for (one, other, is_list) in [
            (list(0, 1_000), list(1_000, 2_000), true),
            (may_be(0, 51), list(100, 101), true),
            (may_be(0, 52), list(100, 101), false),
            (may_be(0, 150), list(0, 100), true),
            (may_be(0, 1_000), None, true),
            (may_be(0, 1_000), may_be(0, 1_000), true),
        ] {
            let found = uncertain(Some(&known(one.as_ref())), Some(&known(other.as_ref())));
            let is_any = found.traces["name"] == Trace::Uncertain(None);
            assert_eq!(!is_any, is_list, "{one:?} {other:?}");
        }
    }

    #[test]
    fn the_later_company_counts() {
        let of = |company_id: Option<&str>| Known {
            company_id: company_id.map(str::to_owned),
            traces: BTreeMap::new(),
        };
        let company = |one: Option<&Known>, other: Option<&Known>| uncertain(one, other).company_id;
        let [a, b] = [of(Some("a")), of(Some("b"))];
        assert_eq!(company(Some(&a), Some(&b)).as_deref(), Some("b"));
        assert_eq!(company(Some(&a), None).as_deref(), Some("a"));
        assert_eq!(company(None, Some(&b)).as_deref(), Some("b"));
        assert_eq!(company(Some(&a), Some(&of(None))), None);
    }

    #[test]
    fn a_set_has_each_item_once_in_an_order_of_its_own() {
        assert_eq!(set_of("[2, 1,\"é\",2]"), set_of("[\"\\u00e9\",1,2]"));
        assert_eq!(set_of("[]"), "[]");
        assert_ne!(set_of("[1]"), set_of("[2]"));
    }
}
