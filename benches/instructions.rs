//! How many instructions encoding takes: repeatable on any machine, whatever else it does.
//!
//! ```sh
//! benches/instructions.sh          # compares with benches/instructions.txt
//! benches/instructions.sh --bless  # writes it
//! ```
//!
//! The program itself encodes what its first argument names, as often as the second says; the
//! script runs it under callgrind and takes the difference of two runs.

use std::hint::black_box;

use mixpanel_groups::{Batch, MixpanelGroup};
use serde::Serialize;

const BATCH: usize = 200;

#[derive(Clone, MixpanelGroup, Serialize)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    #[serde(skip)]
    id: String,
    name: String,
    plan: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    industry: Option<String>,
    seats: u32,
    founding_year: u16,
    mrr: f64,
    active: bool,
    integrations: Vec<String>,
    address: Address,
}

#[derive(Clone, Serialize)]
struct Address {
    city: String,
    zip: u32,
}

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

fn company(number: usize) -> Company {
    Company {
        id: format!("company_{number}"),
        name: format!("Company Number {number} Inc."),
        plan: if number % 3 == 0 {
            "enterprise"
        } else {
            "free"
        }
        .to_owned(),
        industry: (number % 4 != 0).then(|| "Technology".to_owned()),
        seats: number as u32,
        founding_year: 1900 + (number % 120) as u16,
        mrr: number as f64 * 1.25,
        active: number % 2 == 0,
        integrations: vec!["salesforce".to_owned(), "hubspot".to_owned()],
        address: Address {
            city: "Springfield".to_owned(),
            zip: 10_000 + number as u32,
        },
    }
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let (Some(what), Some(times)) = (arguments.next(), arguments.next()) else {
        return println!("usage: see benches/instructions.sh");
    };
    let companies: Vec<_> = (0..BATCH).map(company).collect();
    let same = companies.clone();
    let mut batch = Batch::new("PROJECT_TOKEN");
    let mut body = Vec::new();
    for _ in 0..times.parse().unwrap_or(0) {
        match what.as_str() {
            "encode" => {
                batch.clear();
                for company in &companies {
                    assert!(batch.push(company.set()).unwrap());
                }
                black_box(batch.body());
            }
            "changes_since" => {
                let pairs = companies.iter().zip(&same);
                assert_eq!(
                    pairs.flat_map(|(new, old)| new.changes_since(old)).count(),
                    0
                );
            }
            "hand_written" => {
                body.clear();
                let updates: Vec<_> = companies
                    .iter()
                    .map(|set| HandWritten {
                        token: "PROJECT_TOKEN",
                        group_key: "company",
                        group_id: &set.id,
                        set,
                    })
                    .collect();
                serde_json::to_writer(&mut body, &updates).unwrap();
                black_box(&body);
            }
            other => panic!("no such benchmark: {other}"),
        }
    }
}
