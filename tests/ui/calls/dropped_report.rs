#![deny(unused_must_use)]
use mixpanel_groups::{Client, MixpanelGroup};

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: u64,
    plan: String,
}

fn send(client: &Client, company: &Company) -> Result<(), mixpanel_groups::Error> {
    client.send(company.updates())?;
    Ok(())
}

fn main() {}
