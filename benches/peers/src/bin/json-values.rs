//! What one would write with `json!` and ureq.

use peers::{Job, Result, time};
use serde_json::json;

fn main() -> Result {
    let job = Job::from_env()?;
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("{}/groups?ip=0&strict=1&verbose=1", job.endpoint);
    time(|| {
        for _ in 0..job.times {
            let updates = job.companies.iter().map(|company| {
                let mut update = json!({
                    "$token": "PROJECT_TOKEN",
                    "$group_key": "company",
                    "$group_id": company.id,
                    "$set": {
                        "name": company.name,
                        "plan": company.plan,
                        "seats": company.seats,
                        "founding_year": company.founding_year,
                        "mrr": company.mrr,
                        "active": company.active,
                        "integrations": company.integrations,
                        "address": { "city": company.address.city, "zip": company.address.zip },
                    },
                });
                if let Some(industry) = &company.industry {
                    update["$set"]["industry"] = json!(industry);
                }
                update
            });
            let body = serde_json::to_vec(&updates.collect::<Vec<_>>())?;
            let request = agent.post(&url).content_type("application/json");
            let response = request.send(&body)?.body_mut().read_to_string()?;
            if response != "1" {
                return Err(response.into());
            }
        }
        Ok(())
    })
}
