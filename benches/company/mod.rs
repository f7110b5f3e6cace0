//! The company that benchmarks encode, by this library and by hand.

use std::hint::black_box;

use mixpanel_groups::MixpanelGroup;
use mixpanel_groups::client::Batch;
use serde::{Serialize, Serializer as _};

/// A property of each common kind.
#[derive(Clone, MixpanelGroup, Serialize)]
#[mixpanel(group_key = "company")]
pub struct Company {
    #[mixpanel(group_id)]
    #[serde(skip)]
    pub id: String,
    pub name: String,
    pub plan: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub industry: Option<String>,
    pub seats: u32,
    pub founding_year: u16,
    pub mrr: f64,
    pub active: bool,
    pub integrations: Vec<String>,
    pub address: Address,
}

#[derive(Clone, Serialize)]
pub struct Address {
    pub city: String,
    pub zip: u32,
}

/// What one would write without this library.
#[derive(Serialize)]
struct HandWritten<'a, T> {
    #[serde(rename = "$token")]
    token: &'a str,
    #[serde(rename = "$group_key")]
    group_key: &'a str,
    #[serde(rename = "$group_id")]
    group_id: &'a str,
    #[serde(rename = "$set")]
    set: &'a T,
}

pub fn company(number: usize) -> Company {
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
        address: address(number),
    }
}

pub fn address(number: usize) -> Address {
    Address {
        city: "Springfield".to_owned(),
        zip: 10_000 + number as u32,
    }
}

/// Encodes what `set` says of each.
pub fn encode<T: MixpanelGroup + Sync>(batch: &mut Batch, companies: &[T]) {
    batch.clear();
    for company in companies {
        batch.push(company.set()).unwrap();
    }
    black_box(batch.body());
}

/// The same, by hand; each has its id.
pub fn encode_by_hand<T: Serialize>(
    body: &mut Vec<u8>,
    companies: &[T],
    id: impl Fn(&T) -> &String,
) {
    body.clear();
    let updates = companies.iter().map(|set| HandWritten {
        token: "PROJECT_TOKEN",
        group_key: "company",
        group_id: id(set),
        set,
    });
    let mut serializer = serde_json::Serializer::new(&mut *body);
    serializer.collect_seq(updates).unwrap();
    black_box(body);
}
