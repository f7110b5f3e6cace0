//! The main job, end to end: a struct, the six operations and a batch, over real HTTP.
//!
//! ```sh
//! cargo run --example quickstart
//! ```
//!
//! Needs no account and no network: it starts a stand-in for Mixpanel on a loopback port. For each
//! step you see the JSON that went over the wire and the group profile that results; if a profile
//! is not what it should be, the program says so and fails.
//!
//! With `MIXPANEL_TOKEN` set (and `MIXPANEL_REGION` or `MIXPANEL_ENDPOINT`, if it is not the US), it
//! sends to that project instead, and you look at the profiles there.

use std::error::Error;
use std::process::ExitCode;

use mixpanel_groups::{Client, MixpanelGroup, Update};
use mixpanel_groups_emulator::Emulator;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// One of our customers.
#[derive(Clone, MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    name: String,
    /// What they pay for.
    plan: Plan,
    /// Left out if we do not know it.
    industry: Option<String>,
    #[mixpanel(set_once)]
    founding_year: u16,
    #[mixpanel(union)]
    integrations: Vec<String>,
    #[mixpanel(rename = "Seats Purchased")]
    seats: u32,
    #[mixpanel(skip)]
    #[allow(dead_code)]
    password_hash: String,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "lowercase")]
enum Plan {
    Free,
    Enterprise,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut quickstart = Quickstart::start()?;
    let acme = Company {
        id: "acme_corp".into(),
        name: "Acme Corporation".into(),
        plan: Plan::Free,
        industry: None,
        founding_year: 1999,
        integrations: vec!["salesforce".into(), "hubspot".into()],
        seats: 5,
        password_hash: "never sent".into(),
    };

    quickstart.step(
        "All that the struct says: acme.updates()",
        acme.updates(),
        &json!({
            "name": "Acme Corporation", "plan": "free", "founding_year": 1999,
            "integrations": ["salesforce", "hubspot"], "Seats Purchased": 5,
        }),
    )?;
    let grown = Company {
        plan: Plan::Enterprise,
        industry: Some("Technology".into()),
        seats: 100,
        founding_year: 2024, // `$set_once` will not overwrite
        ..acme.clone()
    };
    quickstart.step(
        "$set and $set_once again, after an upgrade",
        [grown.set(), grown.set_once()],
        &json!({
            "name": "Acme Corporation", "plan": "enterprise", "industry": "Technology",
            "founding_year": 1999, "integrations": ["salesforce", "hubspot"],
            "Seats Purchased": 100,
        }),
    )?;
    quickstart.step(
        "$union adds to a list, each item once",
        [acme
            .group()
            .union(json!({"integrations": ["hubspot", "slack"]}))],
        &json!({
            "name": "Acme Corporation", "plan": "enterprise", "industry": "Technology",
            "founding_year": 1999, "integrations": ["salesforce", "hubspot", "slack"],
            "Seats Purchased": 100,
        }),
    )?;
    quickstart.step(
        "$remove takes one item from a list",
        [acme.remove("integrations", "salesforce")],
        &json!({
            "name": "Acme Corporation", "plan": "enterprise", "industry": "Technology",
            "founding_year": 1999, "integrations": ["hubspot", "slack"], "Seats Purchased": 100,
        }),
    )?;
    quickstart.step(
        "$unset removes properties",
        [acme.unset(["industry", "founding_year"])],
        &json!({
            "name": "Acme Corporation", "plan": "enterprise",
            "integrations": ["hubspot", "slack"], "Seats Purchased": 100,
        }),
    )?;
    quickstart.step("$delete deletes the group", [acme.delete()], &Value::Null)?;

    let companies = ["company_1", "company_2", "company_3"].map(|id| Company {
        id: id.into(),
        ..grown.clone()
    });
    quickstart.batch(&companies)?;
    Ok(quickstart.result())
}

/// Sends each step and shows what happens.
struct Quickstart {
    client: Client,
    /// The stand-in, unless the environment names a project.
    emulator: Option<Emulator>,
    is_good: bool,
}

impl Quickstart {
    fn start() -> Result<Self, Box<dyn Error>> {
        let (client, emulator) = if std::env::var_os("MIXPANEL_TOKEN").is_some() {
            (Client::from_env()?, None)
        } else {
            let emulator = Emulator::start()?;
            let client = Client::builder("PROJECT_TOKEN")
                .endpoint(emulator.endpoint())
                .build()?;
            println!(
                "A stand-in for Mixpanel listens on {}.",
                emulator.endpoint()
            );
            (client, Some(emulator))
        };
        Ok(Self {
            client,
            emulator,
            is_good: true,
        })
    }

    /// Sends updates of acme_corp, after which its profile should be as `expected`.
    fn step<'a>(
        &mut self,
        title: &str,
        updates: impl IntoIterator<Item = Update<'a>>,
        expected: &Value,
    ) -> Result<(), Box<dyn Error>> {
        self.send(title, updates)?;
        self.expect("acme_corp", expected);
        Ok(())
    }

    fn batch(&mut self, companies: &[Company]) -> Result<(), Box<dyn Error>> {
        self.send(
            "A batch: one request for all",
            companies.iter().map(MixpanelGroup::set),
        )?;
        for company in companies {
            let expected = json!({
                "name": "Acme Corporation", "plan": "enterprise", "industry": "Technology",
                "Seats Purchased": 100,
            });
            self.expect(&company.id, &expected);
        }
        Ok(())
    }

    fn send<'a>(
        &mut self,
        title: &str,
        updates: impl IntoIterator<Item = Update<'a>>,
    ) -> Result<(), Box<dyn Error>> {
        println!("\n# {title}");
        let updates: Vec<_> = updates.into_iter().collect();
        let Some(emulator) = &self.emulator else {
            for update in &updates {
                println!("sending  {update:?}");
            }
            println!("report   {}", self.client.send(&updates)?);
            return Ok(());
        };
        let report = self.client.send(&updates)?;
        if let Some(request) = emulator.requests().last() {
            println!("{} {}?{}", request.method, request.path, request.query);
            let sent: Vec<&RawValue> = serde_json::from_str(&request.body)?;
            sent.iter().for_each(|update| println!("  {update}"));
        }
        println!("report   {report}");
        self.is_good &= report.rejected.is_empty();
        Ok(())
    }

    /// Shows a profile, if it can be seen from here, and compares it.
    fn expect(&mut self, id: &str, expected: &Value) {
        let Some(emulator) = &self.emulator else {
            return;
        };
        let profile = emulator.profile("company", id).unwrap_or_default();
        println!("profile  {id}: {profile}");
        if profile != *expected {
            println!("WRONG    expected {expected}");
            self.is_good = false;
        }
    }

    fn result(&self) -> ExitCode {
        match (&self.emulator, self.is_good) {
            (None, _) => println!("\nNow look at the group profiles in your project."),
            (_, true) => println!("\nEvery profile is what it should be."),
            (_, false) => {
                println!("\nSome profile is not what it should be.");
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }
}
