//! This library: `ours [gzip]`.

use mixpanel_groups::{Client, Compression, MixpanelGroup as _};
use peers::{Job, Result, time};

fn main() -> Result {
    let job = Job::from_env()?;
    let compression = match std::env::args().nth(1).as_deref() {
        Some("gzip") => Compression::gzip(1),
        _ => Compression::None,
    };
    let client = Client::builder("PROJECT_TOKEN")
        .endpoint(&job.endpoint)
        .compression(compression)
        .build()?;
    time(|| {
        let companies = (0..job.times).flat_map(|_| &job.companies);
        client.send(companies.map(|company| company.set()))?.into_result()?;
        Ok(())
    })
}
