//! What one would write with serde, ureq and flate2, each with its default features:
//! `hand-written [gzip]`.

use std::io::Write as _;

use flate2::write::GzEncoder;
use peers::{Company, Job, Result, time};
use serde::Serialize;

#[derive(Serialize)]
struct Update<'a> {
    #[serde(rename = "$token")]
    token: &'a str,
    #[serde(rename = "$group_key")]
    group_key: &'a str,
    #[serde(rename = "$group_id")]
    group_id: &'a str,
    #[serde(rename = "$set")]
    set: &'a Company,
}

impl<'a> Update<'a> {
    fn of(company: &'a Company) -> Self {
        Self {
            token: "PROJECT_TOKEN",
            group_key: "company",
            group_id: &company.id,
            set: company,
        }
    }
}

fn main() -> Result {
    let job = Job::from_env()?;
    let gzip = std::env::args().nth(1).as_deref() == Some("gzip");
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("{}/groups?ip=0&strict=1&verbose=1", job.endpoint);
    let mut body = Vec::new();
    let mut packed = Vec::new();
    time(|| {
        for _ in 0..job.times {
            let updates: Vec<_> = job.companies.iter().map(Update::of).collect();
            body.clear();
            serde_json::to_writer(&mut body, &updates)?;
            let request = agent.post(&url).content_type("application/json");
            let mut response = if gzip {
                packed.clear();
                let mut encoder = GzEncoder::new(&mut packed, flate2::Compression::fast());
                encoder.write_all(&body)?;
                encoder.finish()?;
                request.header("Content-Encoding", "gzip").send(&packed)?
            } else {
                request.send(&body)?
            };
            let response = response.body_mut().read_to_string()?;
            if response != "1" {
                return Err(response.into());
            }
        }
        Ok(())
    })
}
