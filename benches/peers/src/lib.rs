//! What the Rust peers have in common: the companies they send, and the clock.
//!
//! `python.py` and `node.js` do the same in their languages.

use std::env;
use std::error::Error;
use std::time::Instant;

use serde::Serialize;

/// What goes wrong ends the program, and with it the comparison.
pub type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// As many companies as a request may have updates. They are sent again and again.
pub const COMPANIES: usize = 2_000;

#[derive(Clone, Serialize)]
#[cfg_attr(feature = "ours", derive(mixpanel_groups::MixpanelGroup))]
#[cfg_attr(feature = "ours", mixpanel(group_key = "company"))]
pub struct Company {
    #[cfg_attr(feature = "ours", mixpanel(group_id))]
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

impl Company {
    fn number(number: u32) -> Self {
        let plan = if number % 3 == 0 {
            "enterprise"
        } else {
            "free"
        };
        Self {
            id: format!("company_{number}"),
            name: format!("Company Number {number} Inc."),
            plan: plan.to_owned(),
            industry: (number % 4 != 0).then(|| "Technology".to_owned()),
            seats: number,
            founding_year: 1900 + (number % 120) as u16,
            mrr: f64::from(number) * 1.25,
            active: number % 2 == 0,
            integrations: vec!["salesforce".to_owned(), "hubspot".to_owned()],
            address: Address {
                city: "Springfield".to_owned(),
                zip: 10_000 + number,
            },
        }
    }
}

/// What a peer has to do, as the sink tells it.
pub struct Job {
    /// Scheme, host and port of the sink.
    pub endpoint: String,
    pub companies: Vec<Company>,
    /// How often all companies are to be sent.
    pub times: usize,
}

impl Job {
    pub fn from_env() -> Result<Self> {
        let updates: usize = env::var("UPDATES")?.parse()?;
        Ok(Self {
            endpoint: env::var("ENDPOINT")?,
            companies: (0..COMPANIES as u32).map(Company::number).collect(),
            times: updates / COMPANIES,
        })
    }
}

/// Prints how many seconds it takes.
pub fn time(send: impl FnOnce() -> Result) -> Result {
    let start = Instant::now();
    send()?;
    println!("{}", start.elapsed().as_secs_f64());
    Ok(())
}
