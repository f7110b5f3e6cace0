//! What changed between two versions of a struct, with `Profile` as the judge.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};

use mixpanel_groups::{Client, Group, MixpanelGroup, Profile, Update};
use mixpanel_groups_emulator::Emulator;
use proptest::prelude::*;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

#[derive(Clone, Debug, MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id(prefix = "company_"))]
    id: u8,
    #[mixpanel(company_id)]
    parent: u8,
    text: String,
    letter: char,
    small: Option<u8>,
    wide: u128,
    number: f64,
    single: f32,
    flag: bool,
    plan: Plan,
    nested: BTreeMap<String, Option<u8>>,
    list: Vec<u8>,
    displayed: Displayed,
    #[mixpanel(unset_none)]
    unset: Option<String>,
    #[mixpanel(skip_if = "is_secret")]
    note: String,
    #[mixpanel(set_once)]
    founded: Option<u8>,
    #[mixpanel(set_once)]
    origin: u8,
    #[mixpanel(union)]
    tags: Vec<Option<u8>>,
    #[mixpanel(union)]
    names: Option<BTreeSet<String>>,
    #[mixpanel(union, unset_none)]
    numbers: [f64; 2],
    #[mixpanel(flatten)]
    extra: BTreeMap<Key, Option<u8>>,
    #[mixpanel(flatten, union)]
    lists: BTreeMap<ListKey, Vec<u8>>,
    #[mixpanel(flatten, set_once)]
    firsts: BTreeMap<FirstKey, u8>,
    #[mixpanel(skip)]
    _cache: u8,
}

fn is_secret(note: &str) -> bool {
    note.starts_with('a')
}

#[derive(Clone, Debug, Serialize)]
enum Plan {
    Free,
    Paid { seats: u8 },
}

/// Serialized through `Display`.
#[derive(Clone, Debug)]
struct Displayed(u8);

impl Serialize for Displayed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("number {}", self.0))
    }
}

/// Names of flattened maps that meet no others.
macro_rules! keys {
    ($($name:ident = $prefix:literal),*) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        struct $name(u8);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&format_args!("{} \"{}\"", $prefix, self.0))
            }
        }
    )*};
}
keys!(Key = "extra", ListKey = "list", FirstKey = "first");

fn company() -> impl Strategy<Value = Company> {
    // Few values, so that two companies have many in common.
    let small = || 0..3_u8;
    let text = || prop::sample::select(vec!["", "a", "b", "\"\n"]).prop_map(str::to_owned);
    let float = || prop::sample::select(vec![0.0, -0.0, 1.5, f64::NAN, f64::INFINITY]);
    let scalars = (
        (
            text(),
            prop::sample::select(vec!['x', '"']),
            prop::option::of(small()),
        ),
        (
            prop::sample::select(vec![0, u128::MAX]),
            float(),
            float().prop_map(|f| f as f32),
        ),
        (
            any::<bool>(),
            prop_oneof![
                Just(Plan::Free),
                small().prop_map(|seats| Plan::Paid { seats })
            ],
        ),
        (
            prop::option::of(text()),
            text(),
            small().prop_map(Displayed),
        ),
        (prop::option::of(small()), small()),
    );
    let lists = (
        prop::collection::btree_map(text(), prop::option::of(small()), 0..3),
        prop::collection::vec(small(), 0..3),
        prop::collection::vec(prop::option::of(small()), 0..4),
        prop::option::of(prop::collection::btree_set(text(), 0..4)),
        [float(), float()],
        prop::collection::btree_map(small().prop_map(Key), prop::option::of(small()), 0..3),
        prop::collection::btree_map(
            small().prop_map(ListKey),
            prop::collection::vec(small(), 0..3),
            0..3,
        ),
        prop::collection::btree_map(small().prop_map(FirstKey), small(), 0..3),
    );
    (scalars, lists).prop_map(|(scalars, lists)| {
        let ((text, letter, small), (wide, number, single), (flag, plan), rest, once) = scalars;
        let (unset, note, displayed) = rest;
        let (founded, origin) = once;
        let (nested, list, tags, names, numbers, extra, lists, firsts) = lists;
        Company {
            id: 1,
            parent: 2,
            text,
            letter,
            small,
            wide,
            number,
            single,
            flag,
            plan,
            nested,
            list,
            displayed,
            unset,
            note,
            founded,
            origin,
            tags,
            names,
            numbers,
            extra,
            lists,
            firsts,
            _cache: 0,
        }
    })
}

fn apply<'a>(profile: &mut Profile, updates: impl IntoIterator<Item = Update<'a>>) {
    updates
        .into_iter()
        .for_each(|update| profile.apply(&update).unwrap());
}

fn profile_of(company: &Company) -> Profile {
    let mut profile = Profile::default();
    apply(&mut profile, company.updates());
    profile
}

/// The profile as it can be compared: `$union` keeps no order, and what was set once stays.
fn comparable(profile: &Profile, old: &Profile) -> BTreeMap<String, Value> {
    let is_once = |name: &str| name.starts_with("first") || name == "founded" || name == "origin";
    let mut properties: BTreeMap<_, _> = profile
        .iter()
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    for (name, value) in old.iter().filter(|(name, _)| is_once(name)) {
        properties.insert(name.to_owned(), value.clone());
    }
    for (name, value) in &mut properties {
        let is_union =
            name.starts_with("list \"") || ["tags", "names", "numbers"].contains(&&**name);
        if let (true, Value::Array(items)) = (is_union, value) {
            items.sort_by_key(ToString::to_string);
        }
    }
    properties
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn the_changes_lead_from_the_old_profile_to_the_new(old in company(), new in company()) {
        let (before, after) = (profile_of(&old), profile_of(&new));
        let changes: Vec<_> = new.changes_since(&old).collect();
        let mut profile = before.clone();
        apply(&mut profile, changes.clone());
        prop_assert_eq!(
            comparable(&profile, &before), comparable(&after, &before), "{:?}", changes
        );

        // No more than one update an operation, but for `$remove`.
        let removes = |update: &&Update<'_>| update.to_json().unwrap().unwrap().contains("$remove");
        prop_assert!(changes.iter().filter(|update| !removes(update)).count() <= 4);
        for update in &changes {
            let json = update.to_json().unwrap().unwrap();
            prop_assert!(json.contains(r#""$group_id":"company_1","$company_id":"2""#), "{}", json);
        }
        // Every change is one: whatever a property is set to, it was not before.
        for update in &changes {
            let json: Value = serde_json::from_str(&update.to_json().unwrap().unwrap()).unwrap();
            for (name, value) in json["$set"].as_object().into_iter().flatten() {
                let before = before.get(name).map(ToString::to_string);
                prop_assert_ne!(before, Some(value.to_string()), "{}", name);
            }
        }
    }

    #[test]
    fn nothing_changed_is_nothing_to_send(company in company()) {
        prop_assert_eq!(company.changes_since(&company.clone()).count(), 0);
    }
}

/// Equal to any other.
#[derive(Clone, Serialize)]
struct Seats(u8);

impl PartialEq for Seats {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Seats {}

impl Hash for Seats {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

#[derive(Clone, MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Equal {
    #[mixpanel(group_id)]
    id: u8,
    seats: Seats,
    listed: Vec<Seats>,
    #[mixpanel(union)]
    together: HashSet<Seats>,
    named: HashMap<String, Option<Box<Seats>>>,
    #[mixpanel(with = "half")]
    halved: u8,
    #[mixpanel(flatten)]
    flattened: HashMap<&'static str, Seats>,
}

fn half<S: Serializer>(value: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(value / 2)
}

#[test]
fn what_counts_is_what_is_sent_whatever_a_type_says_of_its_values() {
    let equal = |seats| Equal {
        id: 1,
        seats: Seats(seats),
        listed: vec![Seats(seats)],
        together: HashSet::from([Seats(seats)]),
        named: HashMap::from([("all".to_owned(), Some(Box::new(Seats(seats))))]),
        halved: seats,
        flattened: HashMap::from([("free", Seats(seats))]),
    };
    assert_eq!(equal(2).changes_since(&equal(2)).count(), 0);
    let changes = json_of(equal(4).changes_since(&equal(2)));
    let expected = json!({"seats": 4, "listed": [4], "named": {"all": 4}, "halved": 2, "free": 4});
    assert_eq!(changes[0]["$set"], expected);
    assert!(
        changes
            .iter()
            .any(|change| change["$union"] == json!({"together": [4]}))
    );
    // Of what is sent, nothing has changed.
    let other = Equal {
        halved: 5,
        ..equal(4)
    };
    assert_eq!(other.changes_since(&equal(4)).count(), 0);
}

#[derive(Clone, MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Simple {
    #[mixpanel(group_id)]
    id: &'static str,
    plan: &'static str,
    industry: Option<&'static str>,
    #[mixpanel(set_once)]
    founding_year: u16,
    #[mixpanel(union)]
    integrations: Vec<&'static str>,
}

fn simple() -> Simple {
    Simple {
        id: "acme",
        plan: "free",
        industry: Some("Technology"),
        founding_year: 1999,
        integrations: vec!["salesforce", "hubspot", "slack"],
    }
}

fn json_of(updates: impl IntoIterator<Item = Update<'static>>) -> Vec<Value> {
    let json = updates
        .into_iter()
        .map(|update| update.to_json().unwrap().unwrap());
    json.map(|json| serde_json::from_str(&json).unwrap())
        .collect()
}

#[test]
fn an_example_of_each_operation() {
    let before = simple();
    let after = Simple {
        plan: "enterprise",
        industry: None,
        founding_year: 2024,
        integrations: vec!["slack", "zendesk"],
        ..simple()
    };
    let group = json!({"$group_key": "company", "$group_id": "acme"});
    let with = |name: &str, value: Value| {
        let mut update = group.clone();
        update[name] = value;
        update
    };
    assert_eq!(
        json_of(after.changes_since(&before)),
        [
            with("$unset", json!(["industry"])),
            with("$set", json!({"plan": "enterprise"})),
            with("$remove", json!({"integrations": "salesforce"})),
            with("$remove", json!({"integrations": "hubspot"})),
            with("$union", json!({"integrations": ["zendesk"]})),
        ]
    );
}

#[test]
fn a_list_that_is_gone_is_unset() {
    let after = Simple {
        integrations: vec![],
        ..simple()
    };
    let updates = json_of(after.changes_since(&simple()));
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0]["$unset"], json!(["integrations"]));
}

#[test]
fn two_groups_have_no_changes_but_an_error() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T")
        .endpoint(emulator.endpoint())
        .build()
        .unwrap();
    let report = client
        .send(
            Simple {
                id: "globex",
                ..simple()
            }
            .changes_since(&simple()),
        )
        .unwrap();
    let rejected: Vec<_> = report.rejected.iter().map(ToString::to_string).collect();
    assert_eq!(
        rejected,
        [
            r#"record 0, $set of company "globex": the older version is another group, company "acme""#
        ]
    );
    assert!(emulator.requests().is_empty());
}

#[test]
fn a_value_that_cannot_be_serialized_is_an_error_that_names_it() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Bad {
        #[mixpanel(group_id)]
        id: u8,
        bad: BTreeMap<(u8, u8), u8>,
    }
    let bad = |value| Bad {
        id: 1,
        bad: BTreeMap::from([((1, 2), value)]),
    };
    let changes: Vec<_> = bad(1).changes_since(&bad(2)).collect();
    let [update] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!(
        update.to_json().unwrap_err().to_string(),
        r#"$set of company "1": "bad": key must be a string"#
    );
}

#[test]
fn values_need_no_more_than_serialize() {
    /// No `PartialEq`, no `Clone`, no `Debug`.
    #[derive(Serialize)]
    struct Opaque<'a>(&'a Cell<u8>);

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company<'a> {
        #[mixpanel(group_id)]
        id: u8,
        opaque: Opaque<'a>,
    }
    let (one, two) = (Cell::new(1), Cell::new(2));
    let old = Company {
        id: 1,
        opaque: Opaque(&one),
    };
    let new = Company {
        id: 1,
        opaque: Opaque(&two),
    };
    assert_eq!(
        json_of(new.changes_since(&old))[0]["$set"],
        json!({"opaque": 2})
    );
    two.set(1);
    assert_eq!(new.changes_since(&old).count(), 0);
    assert_eq!(new.group(), Group::new("company", 1_u8));
}

#[test]
fn a_list_that_loses_an_item_that_mixpanel_cut_is_set_anew() {
    let long: &'static str = "é".repeat(128).leak(); // 256 bytes
    let list = |items: &[&'static str]| Simple {
        integrations: items.to_vec(),
        ..simple()
    };
    let updates = json_of(list(&["slack", "new", "new"]).changes_since(&list(&["slack", long])));
    assert_eq!(updates.len(), 1);
    assert_eq!(
        updates[0]["$set"],
        json!({"integrations": ["slack", "new"]})
    );
    // One byte less is not cut.
    let updates = json_of(list(&["slack"]).changes_since(&list(&["slack", &long[2..]])));
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0]["$remove"], json!({"integrations": &long[2..]}));
}

#[test]
fn a_flattened_name_may_move_to_a_field_with_another_operation() {
    #[derive(Clone, Debug, Default, MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Flat {
        #[mixpanel(group_id)]
        id: u8,
        stays: bool,
        #[mixpanel(flatten)]
        values: BTreeMap<&'static str, Value>,
        #[mixpanel(flatten, set_once)]
        firsts: BTreeMap<&'static str, Value>,
        #[mixpanel(flatten, union)]
        lists: BTreeMap<&'static str, Vec<u8>>,
    }
    let mut all = vec![Flat::default(); 7];
    for (flat, value) in all[1..3].iter_mut().zip([json!(5), json!([1])]) {
        flat.values.insert("x", value);
    }
    for (flat, value) in all[3..5].iter_mut().zip([json!(5), json!([1])]) {
        flat.firsts.insert("x", value);
    }
    for (flat, list) in all[5..].iter_mut().zip([vec![1], vec![2, 3, 2]]) {
        flat.lists.insert("x", list);
    }
    for (old, new) in all
        .iter()
        .flat_map(|old| all.iter().map(move |new| (old, new)))
    {
        let (mut profile, mut expected) = (Profile::default(), Profile::default());
        apply(&mut profile, old.updates());
        apply(&mut profile, new.changes_since(old));
        // What was set once stays, unless another operation has its name now.
        let has_another = !new.values.is_empty() || !new.lists.is_empty();
        let is_old = !old.firsts.is_empty() && !has_another;
        apply(&mut expected, if is_old { old } else { new }.updates());
        assert_eq!(profile, expected, "{old:?} {new:?}");
    }
}

#[test]
fn a_value_that_was_set_once_must_still_be_one_that_can_be_serialized() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Bad {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(set_once)]
        first: BTreeMap<(u8, u8), u8>,
    }
    let (first, id) = (BTreeMap::new(), 1);
    let old = Bad { id, first };
    let first = BTreeMap::from([((1, 2), 3)]);
    let new = Bad { id, first };
    let changes: Vec<_> = new.changes_since(&old).collect();
    let [update] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!(
        update.to_json().unwrap_err().to_string(),
        r#"$set_once of company "1": "first": key must be a string"#
    );
}

#[test]
fn an_error_names_the_operation_of_its_property() {
    #[derive(Clone, Default, MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Bad {
        #[mixpanel(group_id)]
        id: u8,
        value: BTreeMap<(u8, u8), u8>,
        #[mixpanel(set_once)]
        first: BTreeMap<(u8, u8), u8>,
        #[mixpanel(union)]
        list: Vec<bool>,
        #[mixpanel(flatten, union)]
        lists: BTreeMap<&'static str, Vec<bool>>,
    }
    let (old, bad) = (Bad::default(), BTreeMap::from([((1, 2), 3)]));
    let mut all = vec![old.clone(); 4];
    all[0].value = bad.clone();
    all[1].first = bad;
    all[2].list.push(true);
    all[3].lists.insert("list", vec![true]);
    for (new, operation) in all.iter().zip(["set", "set_once", "union", "union"]) {
        let update = new.changes_since(&old).next().unwrap();
        let error = update.to_json().unwrap_err().to_string();
        let expected = format!("${operation} of company \"0\": ");
        assert!(error.starts_with(&expected), "{error}");
        let whole = new.updates().find_map(|update| update.to_json().err());
        assert_eq!(error, whole.unwrap().to_string());
    }
}

/// A job sends what changed of the groups that it knew, and everything of the others.
#[test]
fn changes_go_together_with_updates_that_borrow() {
    #[derive(Clone, MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        seats: u8,
    }
    let known = Company { id: 1, seats: 2 };
    let now = [Company { id: 1, seats: 3 }, Company { id: 2, seats: 4 }];
    let before = [Some(&known), None];

    let mut all = Vec::new();
    for (company, before) in now.iter().zip(before) {
        match before {
            Some(before) => all.extend(company.changes_since(before)),
            None => all.extend(company.updates()),
        }
    }
    assert_eq!(all, [now[0].set(), now[1].set()]);
    let chained = now[0].changes_since(&known).chain(now[1].updates());
    assert_eq!(chained.collect::<Vec<_>>(), all);
    let chained = now[1].updates().chain(now[0].changes_since(&known));
    assert_eq!(chained.count(), 2);
    let updates_of = |company, before| -> Box<dyn Iterator<Item = Update<'_>>> {
        match before {
            Some(before) => Box::new(Company::changes_since(company, before)),
            None => Box::new(Company::updates(company)),
        }
    };
    let boxed = now
        .iter()
        .zip(before)
        .flat_map(|(company, before)| updates_of(company, before));
    assert_eq!(boxed.collect::<Vec<_>>(), all);
}
