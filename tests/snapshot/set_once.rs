//! What was set once is unset also if a run in between did not end well.

use mixpanel_groups::{Client, MixpanelGroup, Report};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::{Value, json};

use crate::client;
use crate::store::Memory;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: u8,
    plan: u8,
    #[mixpanel(set_once, unset_none)]
    first: Option<&'static str>,
    #[mixpanel(set_once)]
    origin: Option<&'static str>,
}

fn company(plan: u8, value: Option<&'static str>) -> Company {
    Company {
        id: 1,
        plan,
        first: value,
        origin: value,
    }
}

/// A night with a process of its own.
fn sync(store: &Memory, client: &Client, company: Company) -> Result<Report, String> {
    let report = store.open().sync(client, [company]);
    report.map_err(|error| error.to_string())
}

#[track_caller]
fn check(emulator: &Emulator, property: &str, expected: Option<&str>) {
    let profile = emulator.profile("company", "1").unwrap();
    assert_eq!(profile.get(property), expected.map(Value::from).as_ref());
}

/// What happens in a night that does not end well.
#[derive(Clone, Copy, Debug)]
enum Night {
    Outage,
    Rejection,
    /// At the row that ends the run: the server has accepted all.
    Kill,
}

impl Night {
    const ALL: [Self; 3] = [Self::Outage, Self::Rejection, Self::Kill];

    fn spoil(self, emulator: &Emulator, store: &Memory) {
        match self {
            Self::Outage => emulator.fail_next(Fault::Status(503)),
            Self::Rejection => emulator.fail_next(Fault::Reject(vec![0])),
            Self::Kill => store.kill_at(2, 0),
        }
    }
}

#[test]
fn an_unset_that_may_not_have_arrived_is_sent_again() {
    for night in Night::ALL {
        let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
        let client = client(&emulator);
        assert!(sync(&store, &client, company(1, Some("a"))).is_ok());
        night.spoil(&emulator, &store);
        drop(sync(&store, &client, company(1, None)));
        store.restart();
        let report = sync(&store, &client, company(1, None)).unwrap();
        assert_eq!(report.rejected, [], "{night:?}");
        check(&emulator, "first", None);
        check(&emulator, "origin", Some("a"));
        let again = sync(&store, &client, company(1, None));
        assert_eq!(again, Ok(Report::default()), "{night:?}");
        // Unset, it can be set once again.
        assert!(sync(&store, &client, company(1, Some("b"))).is_ok());
        check(&emulator, "first", Some("b"));
        check(&emulator, "origin", Some("a"));
    }
}

#[test]
fn a_bad_night_of_another_property_does_not_forget_what_was_set_once() {
    for night in Night::ALL {
        let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
        let client = client(&emulator);
        assert!(sync(&store, &client, company(1, Some("a"))).is_ok());
        night.spoil(&emulator, &store);
        drop(sync(&store, &client, company(2, Some("a"))));
        store.restart();
        assert!(sync(&store, &client, company(2, None)).is_ok(), "{night:?}");
        check(&emulator, "first", None);
        check(&emulator, "origin", Some("a"));
    }
}

#[test]
fn what_the_killed_first_run_set_once_is_unset() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    store.kill_at(2, 0);
    assert!(sync(&store, &client, company(1, Some("a"))).is_err());
    store.restart();
    check(&emulator, "first", Some("a"));
    assert!(sync(&store, &client, company(1, None)).is_ok());
    check(&emulator, "first", None);
    check(&emulator, "origin", Some("a"));
}

#[test]
fn what_may_have_been_set_once_becomes_a_list() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Next {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(union)]
        origin: [&'static str; 2],
    }
    for night in Night::ALL {
        let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
        let client = client(&emulator);
        assert!(sync(&store, &client, company(1, Some("a"))).is_ok());
        night.spoil(&emulator, &store);
        drop(sync(&store, &client, company(2, None)));
        store.restart();
        let next = Next {
            id: 1,
            origin: ["a", "b"],
        };
        let report = store.open().sync(&client, [&next]).unwrap();
        assert_eq!(report.rejected, []);
        let profile = emulator.profile("company", "1").unwrap();
        assert_eq!(profile.get("origin"), Some(&json!(["a", "b"])));
    }
}

#[test]
fn a_release_that_adds_unset_none_unsets_what_is_none() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Next {
        #[mixpanel(group_id)]
        id: u8,
        plan: u8,
        #[mixpanel(set_once, unset_none)]
        first: Option<&'static str>,
        #[mixpanel(set_once, unset_none)]
        origin: Option<&'static str>,
    }
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    for value in [Some("a"), None] {
        assert!(sync(&store, &client, company(1, value)).is_ok());
    }
    check(&emulator, "origin", Some("a"));
    let next = Next {
        id: 1,
        plan: 1,
        first: None,
        origin: None,
    };
    let mut snapshot = store.open();
    assert_eq!(snapshot.sync(&client, [&next]).unwrap().accepted, 1);
    check(&emulator, "origin", None);
    assert_eq!(snapshot.sync(&client, [&next]).unwrap(), Report::default());
}

#[test]
fn what_was_set_once_and_has_another_operation_now_is_unset_if_it_is_null() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Next {
        #[mixpanel(group_id)]
        id: u8,
        plan: u8,
        #[mixpanel(union)]
        first: Vec<u8>,
        origin: Option<&'static str>,
    }
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    assert!(sync(&store, &client, company(1, Some("a"))).is_ok());
    let next = Next {
        id: 1,
        plan: 1,
        first: Vec::new(),
        origin: None,
    };
    let report = store.open().sync(&client, [&next]).unwrap();
    assert_eq!(report.accepted, 1);
    check(&emulator, "first", None);
    check(&emulator, "origin", None);
}
