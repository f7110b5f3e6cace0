//! A property whose `Serialize` ignores an error and goes on: it is neither left out silently nor written in part, and
//! its comparison does not panic.

use std::collections::BTreeMap;

use common::careless::{Careless, Second, Shape};
use common::{all, says};
use mixpanel_groups::{List, MixpanelGroup};
use serde::ser::{Error as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use serde_json::json;

const REASON: &str = "its `Serialize` goes on after an error";

/// A list that leaves out each item that cannot be serialized.
#[derive(Clone, Copy)]
struct Tolerant(&'static [i8]);

/// A number that cannot be serialized if it is below zero.
struct Natural(i8);

impl List for Tolerant {}

impl Serialize for Natural {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0.. => to.serialize_i8(self.0),
            _ => Err(S::Error::custom("below zero")),
        }
    }
}

impl Serialize for Tolerant {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        tolerant(self, to)
    }
}

fn tolerant<S: Serializer>(items: &Tolerant, to: S) -> Result<S::Ok, S::Error> {
    let mut seq = to.serialize_seq(None)?;
    for item in items.0 {
        let _ = seq.serialize_element(&Natural(*item));
    }
    seq.end()
}

/// Whether a list is empty is found out without writing it, with an error at the first item.
#[test]
fn a_list_that_ignores_errors_is_not_taken_for_an_empty_one() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company", unset_none)]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(union)]
        tags: Tolerant,
        #[mixpanel(union, with = "tolerant")]
        more: Tolerant,
    }
    let company = |items| Company {
        id: 1,
        tags: Tolerant(items),
        more: Tolerant(items),
    };
    let both = json!({"$union": {"tags": [1, 2], "more": [1, 2]}});
    assert_eq!(all(&company(&[1, 2])), both);
    for items in [&[1, -1, 2][..], &[-1], &[-1, 1]] {
        let company = company(items);
        let updates: Vec<_> = company.updates().collect();
        assert_eq!(updates.len(), 1, "{items:?}: {updates:?}");
        let error = updates[0].to_json().unwrap_err().to_string();
        assert!(error.contains(&format!("\"tags\": {REASON}")), "{error}");
    }
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: u8,
    number: u8,
    odd: Option<Careless>,
    #[mixpanel(set_once)]
    first: Option<Careless>,
    #[mixpanel(with = "wrapped")]
    with: Option<Careless>,
    #[mixpanel(flatten)]
    flat: Option<Careless>,
    #[mixpanel(flatten)]
    nested: BTreeMap<&'static str, Careless>,
}

/// Passes a value in a list in a map.
fn wrapped<S: Serializer>(value: &Option<Careless>, to: S) -> Result<S::Ok, S::Error> {
    value
        .map(|value| BTreeMap::from([(1, [value])]))
        .serialize(to)
}

fn company(number: u8) -> Company {
    Company {
        id: 1,
        number,
        odd: None,
        first: None,
        with: None,
        flat: None,
        nested: BTreeMap::new(),
    }
}

/// Returns companies with that value in each place, beside the name that its error has.
fn companies(number: u8, value: Careless) -> [(Company, &'static str); 5] {
    let some = || Some(value);
    let nested = BTreeMap::from([("deep", value)]);
    [
        (
            Company {
                odd: some(),
                ..company(number)
            },
            "odd",
        ),
        (
            Company {
                first: some(),
                ..company(number)
            },
            "first",
        ),
        (
            Company {
                with: some(),
                ..company(number)
            },
            "with",
        ),
        (
            Company {
                flat: some(),
                ..company(number)
            },
            "flat",
        ),
        (
            Company {
                nested,
                ..company(number)
            },
            "deep",
        ),
    ]
}

fn careless() -> impl Iterator<Item = Careless> {
    let failures = |shape| Second::FAILURES.map(|second| Careless(shape, second));
    Shape::ALL.into_iter().flat_map(failures)
}

#[test]
fn what_goes_on_after_an_error_is_refused_wherever_it_is() {
    for value in careless() {
        for (company, name) in companies(1, value) {
            let mut results = company.updates().map(|update| update.to_json());
            let error = results.find_map(Result::err).expect(name).to_string();
            assert!(
                error.contains(&format!("\"{name}\": ")),
                "{value:?}: {error}"
            );
        }
    }
}

/// The comparison sorts the members of maps, which must cover all that was written.
#[test]
fn a_comparison_of_what_goes_on_after_an_error_is_an_error() {
    for value in careless() {
        let without = company(1);
        for ((new, name), (old, _)) in companies(2, value).into_iter().zip(companies(1, value)) {
            for (new, old) in [(&new, &old), (&new, &without), (&without, &old)] {
                let updates: Vec<_> = new.changes_since(old).collect();
                assert_eq!(updates.len(), 1, "{value:?}: {updates:?}");
                let error = updates[0].to_json().unwrap_err().to_string();
                assert!(
                    error.contains(&format!("\"{name}\": ")),
                    "{value:?}: {error}"
                );
            }
        }
    }
    // Nothing of it is left in the buffers of the thread.
    let changes: Vec<_> = company(2).changes_since(&company(1)).collect();
    assert_eq!(says(&changes[0]), json!({"number": 2}));
}
