//! Encoding 2,000 updates of one struct into a request's body, beside what a person writes by hand
//! with serde.
//!
//! ```sh
//! cargo bench --bench encode
//! ```

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mixpanel_groups::{Batch, MixpanelGroup};
use serde::Serialize;

const UPDATES: usize = 2_000;

#[derive(MixpanelGroup, Serialize)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    #[serde(skip)]
    id: String,
    name: String,
    plan: Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    industry: Option<String>,
    founding_year: u16,
    integrations: Vec<String>,
    #[mixpanel(rename = "Seats Purchased")]
    #[serde(rename = "Seats Purchased")]
    seats: u32,
    mrr: f64,
    active: bool,
}

#[derive(Clone, Copy, Serialize)]
enum Plan {
    Free,
    Enterprise,
}

/// What one would write without this library.
#[derive(Serialize)]
struct HandWritten<'a> {
    #[serde(rename = "$token")]
    token: &'a str,
    #[serde(rename = "$group_key")]
    group_key: &'a str,
    #[serde(rename = "$group_id")]
    group_id: &'a str,
    #[serde(rename = "$set")]
    set: &'a Company,
}

fn companies() -> Vec<Company> {
    let company = |number: usize| Company {
        id: format!("company_{number}"),
        name: format!("Company Number {number} Inc."),
        plan: if number % 3 == 0 {
            Plan::Enterprise
        } else {
            Plan::Free
        },
        industry: (number % 4 != 0).then(|| "Technology".to_owned()),
        founding_year: 1900 + (number % 120) as u16,
        integrations: vec!["salesforce".to_owned(), "hubspot".to_owned()],
        seats: number as u32,
        mrr: number as f64 * 1.25,
        active: number % 2 == 0,
    };
    (0..UPDATES).map(company).collect()
}

fn main() {
    divan::main();
}

#[divan::bench]
fn derived(bencher: Bencher<'_, '_>) {
    let companies = companies();
    let mut batch = Batch::new("PROJECT_TOKEN");
    bencher.counter(ItemsCount::new(UPDATES)).bench_local(|| {
        batch.clear();
        for company in &companies {
            assert!(batch.push(company.set()).unwrap());
        }
        black_box(batch.body().len())
    });
}

#[divan::bench]
fn hand_written(bencher: Bencher<'_, '_>) {
    let companies = companies();
    let mut body = Vec::new();
    bencher.counter(ItemsCount::new(UPDATES)).bench_local(|| {
        body.clear();
        let updates: Vec<_> = companies
            .iter()
            .map(|company| HandWritten {
                token: "PROJECT_TOKEN",
                group_key: "company",
                group_id: &company.id,
                set: company,
            })
            .collect();
        serde_json::to_writer(&mut body, &updates).unwrap();
        black_box(body.len())
    });
}
