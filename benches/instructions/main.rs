//! How many instructions encoding takes: repeatable on any machine, whatever else it does.
//!
//! ```sh
//! benches/instructions/run.sh          # compares with checked_in.txt
//! benches/instructions/run.sh --bless  # writes it
//! ```
//!
//! The program itself encodes what its first argument names, as often as the second says; the
//! script runs it under callgrind and takes the difference of two runs.

use mixpanel_groups::MixpanelGroup;
use mixpanel_groups::client::Batch;

#[path = "../company/mod.rs"]
mod company;

use company::{company, encode, encode_by_hand};

const BATCH: usize = 200;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(what), Some(times)) = (arguments.next(), arguments.next()) else {
        return println!("usage: see run.sh");
    };
    let companies: Vec<_> = (0..BATCH).map(company).collect();
    let same = companies.clone();
    let mut batch = Batch::new("PROJECT_TOKEN");
    let mut body = Vec::new();
    for _ in 0..times.parse().unwrap_or(0) {
        match what.as_str() {
            "encode" => encode(&mut batch, &companies),
            "changes_since" => {
                let pairs = companies.iter().zip(&same);
                assert_eq!(
                    pairs.flat_map(|(new, old)| new.changes_since(old)).count(),
                    0
                );
            }
            "hand_written" => encode_by_hand(&mut body, &companies, |company| &company.id),
            other => panic!("no such benchmark: {other}"),
        }
    }
}
