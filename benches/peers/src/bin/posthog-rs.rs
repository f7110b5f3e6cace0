//! posthog-rs: an event a group, through the one of its calls that says whether they arrived.

use peers::{Company, Job, Result, time};
use posthog_rs::{ClientOptionsBuilder, Event};

/// What its `group_identify` makes.
fn identify(company: &Company) -> Result<Event> {
    let mut event = Event::new("$groupidentify", &format!("$company_{}", company.id));
    event.insert_prop("$group_type", "company")?;
    event.insert_prop("$group_key", &company.id)?;
    event.insert_prop("$group_set", company)?;
    Ok(event)
}

fn main() -> Result {
    let job = Job::from_env()?;
    let options = ClientOptionsBuilder::default()
        .host(&*job.endpoint)
        .api_key("PROJECT_TOKEN".to_owned())
        .build()?;
    let client = posthog_rs::client(options);
    time(|| {
        for _ in 0..job.times {
            let events: Result<_> = job.companies.iter().map(identify).collect();
            let summary = client.capture_batch_immediate(events?, false)?;
            if !summary.all_persisted() {
                return Err(format!("{summary:?}").into());
            }
        }
        Ok(())
    })
}
