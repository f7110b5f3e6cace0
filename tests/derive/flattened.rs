//! Several flattened fields, whose names meet.

use std::collections::BTreeMap;

use mixpanel_groups::{Client, MixpanelGroup, Profile, Snapshot};
use mixpanel_groups_emulator::Emulator;
use serde::Serialize;
use serde_json::json;

use common::says;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Two {
    #[mixpanel(group_id)]
    id: u8,
    #[mixpanel(flatten)]
    a: BTreeMap<&'static str, u8>,
    #[mixpanel(flatten)]
    b: BTreeMap<&'static str, u8>,
}

fn two(a: Option<u8>, b: Option<u8>) -> Two {
    let map = |value: Option<u8>| value.map(|value| ("x", value)).into_iter().collect();
    Two {
        id: 1,
        a: map(a),
        b: map(b),
    }
}

const TWICE: &str = r#""x": two properties have this name"#;

#[test]
fn a_name_in_two_of_them_is_an_error_on_every_way() {
    let both = two(Some(1), Some(2));
    let message = |update: mixpanel_groups::Update<'_>| update.to_json().unwrap_err().to_string();
    assert!(message(both.set()).contains(TWICE));
    let changes: Vec<_> = both.changes_since(&two(None, None)).collect();
    assert_eq!(changes.len(), 1);
    for change in changes {
        assert!(message(change).contains(TWICE));
    }

    let folder = tempfile::tempdir().unwrap();
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let mut snapshot = Snapshot::open(folder.path().join("s")).unwrap();
    let report = snapshot.sync(&client, &[both]).unwrap();
    assert!(
        report.rejected[0]
            .message
            .contains("two properties have this name")
    );
    assert_eq!(emulator.profile("company", "1"), None);
}

#[test]
fn a_name_that_moves_from_one_to_another_with_its_value_is_no_change() {
    let (in_a, in_b) = (two(Some(1), None), two(None, Some(1)));
    assert_eq!(in_b.changes_since(&in_a).count(), 0);
    let changes: Vec<_> = two(None, Some(2)).changes_since(&in_a).collect();
    assert_eq!(changes.len(), 1);
    assert_eq!(says(&changes[0]), json!({"x": 2}));
}

#[test]
fn what_is_null_meets_no_name() {
    #[derive(Serialize)]
    struct Address {
        country: Option<&'static str>,
    }

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        plan: Option<u8>,
        #[mixpanel(flatten)]
        billing: Address,
        #[mixpanel(flatten)]
        shipping: Address,
        #[mixpanel(flatten)]
        extra: BTreeMap<&'static str, Option<u8>>,
    }
    for (billing, shipping) in [(None, Some("us")), (Some("us"), None)] {
        let company = Company {
            id: 1,
            plan: Some(1),
            billing: Address { country: billing },
            shipping: Address { country: shipping },
            extra: BTreeMap::from([("plan", None), ("country", None)]),
        };
        assert_eq!(says(&company.set()), json!({"country": "us", "plan": 1}));
    }
}

#[test]
fn a_variant_with_a_list_can_be_added_to_a_list() {
    #[derive(Serialize)]
    enum Tags {
        Integrations(Vec<Option<&'static str>>),
        Sizes(u8, u8),
        Owner(&'static str),
    }

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(flatten, union)]
        tags: Tags,
    }
    let of = |tags| Company { id: 1, tags };
    let slack = of(Tags::Integrations(vec![Some("slack"), None]));
    assert_eq!(says(&slack.union()), json!({"Integrations": ["slack"]}));
    assert_eq!(
        says(&of(Tags::Sizes(1, 2)).union()),
        json!({"Sizes": [1, 2]})
    );
    let error = of(Tags::Owner("a")).union().to_json().unwrap_err();
    assert!(error.to_string().contains("takes a list"), "{error}");
}

#[test]
fn a_value_set_once_can_be_unset_and_set_once_again() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(set_once, unset_none)]
        first_plan: Option<&'static str>,
        #[mixpanel(set_once)]
        origin: Option<&'static str>,
    }
    let of = |value| Company {
        id: 1,
        first_plan: value,
        origin: value,
    };
    let versions = [Some("a"), None, Some("b"), Some("c")].map(of);
    let expected = json!({"first_plan": "b", "origin": "a"});

    let mut profile = Profile::default();
    let mut apply = |update: mixpanel_groups::Update<'_>| profile.apply(&update).unwrap();
    versions[0].updates().for_each(&mut apply);
    for pair in versions.windows(2) {
        pair[1].changes_since(&pair[0]).for_each(&mut apply);
    }
    let properties: BTreeMap<_, _> = profile.iter().collect();
    assert_eq!(json!(properties), expected);

    let folder = tempfile::tempdir().unwrap();
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let mut snapshot = Snapshot::open(folder.path().join("s")).unwrap();
    for version in versions {
        let report = snapshot.sync(&client, &[version]).unwrap();
        assert!(report.is_all_accepted());
    }
    assert_eq!(json!(emulator.profile("company", "1").unwrap()), expected);
}
