//! mixpanel-rs, which sends a request an update: `mixpanel-rs AT_ONCE`.

use std::collections::HashMap;
use std::sync::Arc;

use mixpanel_rs::{Config, Mixpanel};
use peers::{Company, Job, Result, time};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// The maps that it takes.
fn properties(company: &Company) -> HashMap<String, Value> {
    let mut properties = HashMap::from([
        ("name".to_owned(), json!(company.name)),
        ("plan".to_owned(), json!(company.plan)),
        ("seats".to_owned(), json!(company.seats)),
        ("founding_year".to_owned(), json!(company.founding_year)),
        ("mrr".to_owned(), json!(company.mrr)),
        ("active".to_owned(), json!(company.active)),
        ("integrations".to_owned(), json!(company.integrations)),
        ("address".to_owned(), json!(company.address)),
    ]);
    if let Some(industry) = &company.industry {
        properties.insert("industry".to_owned(), json!(industry));
    }
    properties
}

fn main() -> Result {
    let job = Arc::new(Job::from_env()?);
    let at_once: usize = std::env::args().nth(1).ok_or("AT_ONCE?")?.parse()?;
    let config = Config {
        protocol: "http".to_owned(),
        host: job.endpoint.trim_start_matches("http://").to_owned(),
        ..Config::default()
    };
    let mixpanel = Mixpanel::init("PROJECT_TOKEN", Some(config));
    let runtime = Runtime::new()?;
    time(|| {
        let tasks: Vec<_> = (0..at_once)
            .map(|first| runtime.spawn(send(Arc::clone(&job), mixpanel.clone(), first, at_once)))
            .collect();
        for task in tasks {
            runtime.block_on(task)??;
        }
        Ok(())
    })
}

/// Sends each `step`th company.
async fn send(job: Arc<Job>, mixpanel: Mixpanel, first: usize, step: usize) -> Result {
    for _ in 0..job.times {
        for company in job.companies.iter().skip(first).step_by(step) {
            let set = properties(company);
            mixpanel
                .groups
                .set("company", &company.id, set, None)
                .await?;
        }
    }
    Ok(())
}
