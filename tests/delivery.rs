//! For any updates and any faults that end, every update is accepted, rejected or undelivered, in
//! exactly one of these, and no group sees its updates in another order than they were given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mixpanel_groups::{Client, Error, Group, Profile, Report, RetryPolicy, Update};
use mixpanel_groups_emulator::{Emulator, Fault};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What the client is given: an update of one of a few groups.
#[derive(Clone, Debug)]
struct Step {
    group: usize,
    change: Change,
}

/// `SetOnce` and `Remove` have properties of their own: a list that is set once and then loses an
/// item differs when the two come a second time, as after a response that was lost.
#[derive(Clone, Debug)]
enum Change {
    Set(&'static str),
    SetList,
    SetOnce(&'static str),
    Union(u8),
    Remove(u8),
    Unset(Vec<&'static str>),
    Delete,
    /// An update that has nothing to say.
    Nothing,
    /// An update that cannot be sent.
    Invalid,
}

fn group(number: usize) -> Group<'static> {
    Group::new("company", format!("company_{number}"))
}

impl Step {
    /// Values tell the position, so that another order gives another profile.
    fn update(&self, position: usize) -> Update<'static> {
        let group = group(self.group);
        match &self.change {
            Change::Set(name) => group.set(json!({*name: position})),
            Change::SetList => group.set(json!({"list": [0, 100 + position]})),
            Change::SetOnce(name) => group.set_once(json!({*name: position})),
            Change::Union(item) => group.union(json!({"list": [item, 100 + position]})),
            Change::Remove(item) => group.remove("list", item),
            Change::Unset(names) => group.unset(names),
            Change::Delete => group.delete(),
            Change::Nothing => group.set(json!({})),
            Change::Invalid => group.set(json!({"": position})),
        }
    }

    fn is_nothing(&self) -> bool {
        matches!(self.change, Change::Nothing)
    }
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let scalar = || prop::sample::select(vec!["a", "b"]);
    let change = prop_oneof![
        6 => scalar().prop_map(Change::Set),
        2 => Just(Change::SetList),
        4 => scalar().prop_map(Change::SetOnce),
        4 => (0..3_u8).prop_map(Change::Union),
        3 => (0..3_u8).prop_map(Change::Remove),
        3 => prop::sample::subsequence(vec!["a", "b", "list"], 1..=3).prop_map(Change::Unset),
        2 => Just(Change::Delete),
        1 => Just(Change::Nothing),
        1 => Just(Change::Invalid),
    ];
    let step = (0..4_usize, change).prop_map(|(group, change)| Step { group, change });
    prop::collection::vec(step, 0..40)
}

fn any_fault() -> impl Strategy<Value = Fault> {
    let statuses = vec![
        204, 302, 400, 401, 403, 404, 408, 413, 418, 429, 500, 502, 503, 504,
    ];
    let after = vec!["0", "3600", "Fri, 31 Dec 2055 23:59:59 GMT", "soon"];
    // None of these says that an update is accepted, since none is applied.
    let responses = vec![
        (200, "0"),
        (400, "0"),
        (200, ""),
        (400, ""),
        (200, "<html></html>"),
        (200, r#"{"status":1,"err"#),
        (200, r#"{"status":0,"error":"no"}"#),
        (400, r#"{"code":400,"error":"no","failed_records":[]}"#),
        (
            400,
            r#"{"code":400,"failed_records":[{"index":0},{"index":9999}]}"#,
        ),
        (
            400,
            r#"{"code":400,"failed_records":[{"index":-1,"message":"no"}]}"#,
        ),
    ];
    prop_oneof![
        4 => prop::sample::select(statuses).prop_map(Fault::Status),
        2 => (prop::sample::select(vec![429, 503]), prop::sample::select(after)).prop_map(
            |(status, after)| Fault::RetryAfter { status, after: after.to_owned() }
        ),
        3 => prop::sample::select(responses).prop_map(|(status, body)| {
            Fault::Response { status, body: body.to_owned() }
        }),
        1 => Just(Fault::Html),
        2 => Just(Fault::CloseBefore),
        2 => Just(Fault::CloseAfter),
        2 => Just(Fault::CloseMidResponse),
        1 => (0..3_u64).prop_map(|ms| Fault::Delay(Duration::from_millis(ms))),
        3 => prop::collection::vec(0..6_usize, 0..4).prop_map(Fault::Reject),
        2 => (0..5_usize).prop_map(Fault::TooLarge),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    connections: usize,
    max_batch: usize,
    retry: RetryPolicy,
}

fn any_settings() -> impl Strategy<Value = Settings> {
    (1..5_usize, 1..10_usize, 1..5_u32, 0..2_u64).prop_map(
        |(connections, max_batch, attempts, delay)| Settings {
            connections,
            max_batch,
            retry: RetryPolicy::default()
                .attempts(attempts)
                .base_delay(Duration::from_millis(delay))
                .max_delay(Duration::from_millis(2)),
        },
    )
}

fn client(emulator: &Emulator, settings: Settings) -> Client {
    Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .connections(settings.connections)
        .max_batch(settings.max_batch)
        .retry(settings.retry)
        .build()
        .unwrap()
}

/// Where each of the updates at `positions` ended that one `send` was given.
struct Outcome {
    accepted: Vec<usize>,
    rejected: Vec<usize>,
    undelivered: Vec<usize>,
}

/// Sorts the updates by what the client says of them, and checks that it says so of each once.
fn outcome(
    steps: &[Step],
    positions: &[usize],
    result: &Result<Report, Error>,
) -> Result<Outcome, TestCaseError> {
    let report = match result {
        Ok(report) => report,
        Err(error) => error.report().unwrap(),
    };
    let said: BTreeSet<_> = (0..positions.len())
        .filter(|index| !steps[positions[*index]].is_nothing())
        .collect();
    let mut accepted = said.clone();
    let mut take = |index: usize| {
        prop_assert!(accepted.remove(&index), "in two places, or in no list");
        Ok(positions[index])
    };
    let mut rejected = Vec::new();
    for rejection in &report.rejected {
        let position = take(rejection.position)?;
        let (step, update) = (&steps[position], steps[position].update(position));
        prop_assert_eq!(rejection.group(), Some(&group(step.group)));
        prop_assert_eq!(rejection.operation(), update.operation());
        let is_invalid = matches!(step.change, Change::Invalid);
        prop_assert_eq!(rejection.by_server, !is_invalid);
        rejected.push(position);
    }
    let mut undelivered = Vec::new();
    if let Err(error) = result {
        for (index, update) in error.undelivered().positions() {
            let position = take(index)?;
            let given = steps[position].update(position);
            prop_assert_eq!(
                update.to_json().unwrap().unwrap(),
                given.to_json().unwrap().unwrap()
            );
            undelivered.push(position);
        }
        prop_assert!(!undelivered.is_empty());
        prop_assert!(!error.to_string().contains("panicked"), "{}", error);
    }
    prop_assert!(rejected.is_sorted() && undelivered.is_sorted());
    prop_assert_eq!(report.accepted, accepted.len(), "{}", report);
    prop_assert!(report.accepted <= report.sent && report.sent <= said.len());
    Ok(Outcome {
        accepted: accepted.into_iter().map(|index| positions[index]).collect(),
        rejected,
        undelivered,
    })
}

/// A profile whose lists are sets: an item that was added twice may stand elsewhere.
fn comparable(profile: Option<&Profile>) -> Option<BTreeMap<String, Value>> {
    let sorted = |value: &Value| match value {
        Value::Array(items) => {
            let items: BTreeSet<_> = items.iter().map(Value::to_string).collect();
            json!(items)
        }
        other => other.clone(),
    };
    let properties = profile.filter(|profile| profile.exists())?.iter();
    Some(
        properties
            .map(|(name, value)| (name.to_owned(), sorted(value)))
            .collect(),
    )
}

/// The updates of the requests that got such a response, or none, in the order of their coming.
fn received(emulator: &Emulator, statuses: &[u16]) -> Vec<String> {
    let mut all = Vec::new();
    for request in emulator.requests() {
        let is_meant = request
            .status
            .is_none_or(|status| statuses.contains(&status));
        if is_meant && !request.body.is_empty() {
            let updates: Vec<Value> = serde_json::from_str(&request.body).unwrap();
            all.extend(updates.into_iter().map(|mut update| {
                update.as_object_mut().unwrap().remove("$token");
                update.to_string()
            }));
        }
    }
    all
}

fn as_received(steps: &[Step], position: usize) -> String {
    let json = steps[position].update(position).to_json().unwrap().unwrap();
    serde_json::from_str::<Value>(&json).unwrap().to_string()
}

/// Whether each group's profile is what its accepted updates make of it, in the order given.
fn check_profiles(
    emulator: &Emulator,
    steps: &[Step],
    accepted: &BTreeSet<usize>,
    rejected: &[usize],
) -> Result<(), TestCaseError> {
    let maybe_applied = received(emulator, &[200]);
    for number in 0..4 {
        // Applied at the first attempt, maybe, whose response was lost, and refused at the second.
        let is_uncertain = rejected.iter().any(|position| {
            let step = &steps[*position];
            let is_of_group = step.group == number && !matches!(step.change, Change::Invalid);
            is_of_group && maybe_applied.contains(&as_received(steps, *position))
        });
        if is_uncertain {
            continue;
        }
        let mut expected = Profile::default();
        for position in accepted {
            if steps[*position].group == number {
                expected.apply(&steps[*position].update(*position)).unwrap();
            }
        }
        let profile = emulator.profile("company", &format!("company_{number}"));
        prop_assert_eq!(comparable(profile.as_ref()), comparable(Some(&expected)));
    }
    Ok(())
}

/// Whether no update came before one of its group that was given earlier.
fn check_first_arrivals(
    emulator: &Emulator,
    steps: &[Step],
    accepted: &BTreeSet<usize>,
) -> Result<(), TestCaseError> {
    let received = received(emulator, &[200, 400]);
    let mut last = [None; 4];
    for position in accepted {
        let step = &steps[*position];
        // The others are not the only ones of their kind.
        if matches!(step.change, Change::Set(_) | Change::SetOnce(_)) {
            let update = as_received(steps, *position);
            let arrival = received.iter().position(|other| *other == update);
            prop_assert!(arrival.is_some(), "accepted, and never received");
            prop_assert!(last[step.group] < arrival, "received before its time");
            last[step.group] = arrival;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn every_update_has_one_place_and_every_group_its_order(
        steps in any_steps(),
        faults in prop::collection::vec(any_fault(), 0..12),
        settings in any_settings(),
    ) {
        let emulator = Emulator::start().unwrap();
        for fault in &faults {
            emulator.fail_next(fault.clone());
        }
        let client = client(&emulator, settings);
        let mut positions: Vec<_> = (0..steps.len()).collect();
        let (mut accepted, mut rejected) = (BTreeSet::new(), Vec::new());
        let updates = steps.iter().enumerate().map(|(position, step)| step.update(position));
        let mut result = client.send(updates);
        // Every `send` that fails has used up a fault.
        for _ in 0..=faults.len() {
            let outcome = outcome(&steps, &positions, &result)?;
            accepted.extend(outcome.accepted);
            rejected.extend(outcome.rejected);
            positions = outcome.undelivered;
            match result {
                Ok(_) => break,
                Err(error) => result = client.send(&error.into_undelivered()),
            }
        }
        prop_assert!(positions.is_empty(), "undelivered without a fault");
        prop_assert_eq!(
            accepted.len() + rejected.len(),
            steps.iter().filter(|step| !step.is_nothing()).count()
        );
        check_profiles(&emulator, &steps, &accepted, &rejected)?;
        check_first_arrivals(&emulator, &steps, &accepted)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn cancelled_at_any_time_every_update_has_one_place(
        steps in any_steps(),
        faults in prop::collection::vec(any_fault(), 0..4),
        settings in any_settings(),
        cancel_at in 0..50_usize,
    ) {
        let emulator = Emulator::start().unwrap();
        faults.into_iter().for_each(|fault| emulator.fail_next(fault));
        let cancel = AtomicBool::new(false);
        let updates = steps.iter().enumerate().map(|(position, step)| {
            cancel.fetch_or(position == cancel_at, Ordering::Relaxed);
            step.update(position)
        });
        let result = client(&emulator, settings).with_options().cancel_on(&cancel).send(updates);
        let positions: Vec<_> = (0..steps.len()).collect();
        let outcome = outcome(&steps, &positions, &result)?;
        let received = received(&emulator, &[200, 400]);
        for position in outcome.accepted {
            prop_assert!(received.contains(&as_received(&steps, position)));
        }
    }
}
