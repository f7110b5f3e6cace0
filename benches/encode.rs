//! Encoding 2,000 updates of one struct into a request's body, beside what a person writes by hand
//! with serde.
//!
//! ```sh
//! cargo bench --bench encode
//! ```

use divan::Bencher;
use divan::counter::ItemsCount;
use mixpanel_groups::client::Batch;

mod company;

use company::{company, encode, encode_by_hand};

const UPDATES: usize = 2_000;

fn main() {
    divan::main();
}

#[divan::bench]
fn derived(bencher: Bencher<'_, '_>) {
    let companies: Vec<_> = (0..UPDATES).map(company).collect();
    let mut batch = Batch::new("PROJECT_TOKEN");
    let bencher = bencher.counter(ItemsCount::new(UPDATES));
    bencher.bench_local(|| encode(&mut batch, &companies));
}

#[divan::bench]
fn hand_written(bencher: Bencher<'_, '_>) {
    let companies: Vec<_> = (0..UPDATES).map(company).collect();
    let mut body = Vec::new();
    let bencher = bencher.counter(ItemsCount::new(UPDATES));
    bencher.bench_local(|| encode_by_hand(&mut body, &companies, |company| &company.id));
}
