//! The typed path takes nothing from the heap per update.
//!
//! A program of its own, for its allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mixpanel_groups::{Client, MixpanelGroup};
use mixpanel_groups_emulator::Emulator;
use serde::Serialize;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Counts what the thread takes from the heap.
struct Counting;

#[allow(unsafe_code)] // An allocator cannot be written without; the library has none.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id(prefix = "company_"))]
    id: u64,
    name: String,
    plan: Plan,
    industry: Option<String>,
    #[mixpanel(set_once)]
    founding_year: u16,
    #[mixpanel(union)]
    integrations: Vec<String>,
    #[mixpanel(rename = "Seats \"Purchased\"")]
    seats: u32,
    revenue: f64,
    address: Address,
    #[mixpanel(skip_if = "String::is_empty")]
    note: String,
}

#[derive(Serialize)]
enum Plan {
    Enterprise,
}

#[derive(Serialize)]
struct Address {
    city: String,
    lines: Vec<String>,
}

fn company(id: u64) -> Company {
    Company {
        id,
        name: "Acme \"Corporation\"".into(),
        plan: Plan::Enterprise,
        industry: id.is_multiple_of(2).then(|| "Technology".into()),
        founding_year: 1999,
        integrations: vec!["salesforce".into(), "hubspot".into()],
        seats: 100,
        revenue: 1234.5,
        address: Address {
            city: "New York".into(),
            lines: vec!["Main Street 1".into()],
        },
        note: String::new(),
    }
}

/// How often the thread that sends allocates for that many companies.
fn allocations(client: &Client, companies: &[Company]) -> usize {
    let updates = companies.iter().flat_map(MixpanelGroup::updates);
    let before = ALLOCATIONS.get();
    let report = client.send(updates).unwrap();
    assert_eq!(report.accepted, companies.len() * 3);
    ALLOCATIONS.get() - before
}

#[test]
fn the_number_of_updates_does_not_matter() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T")
        .endpoint(emulator.endpoint())
        .build()
        .unwrap();
    let companies: Vec<_> = (0..20_000).map(company).collect();
    allocations(&client, &companies[..1]); // what is made only once
    let few = allocations(&client, &companies[..2_000]);
    let many = allocations(&client, &companies);
    // 54,000 updates more; a batch of 2,000 may cost a few for its buffer.
    assert!(
        many < few + 300,
        "{few} allocations for 6,000 updates, {many} for 60,000"
    );
}

#[test]
fn comparing_what_did_not_change_takes_nothing() {
    let [new, old]: [Vec<_>; 2] = [(); 2].map(|()| (0..1_000).map(company).collect());
    let changes = |count: usize| {
        let before = ALLOCATIONS.get();
        let pairs = new.iter().zip(&old).take(count);
        assert_eq!(
            pairs.flat_map(|(new, old)| new.changes_since(old)).count(),
            0
        );
        ALLOCATIONS.get() - before
    };
    changes(1); // what is made only once
    assert_eq!(changes(1_000), 0);
}
