use mixpanel_groups::{Client, MixpanelGroup};

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: u64,
    plan: String,
}

fn publish(client: &Client, company: &Company) {
    let buffered = client.buffered().start().unwrap();
    let _ = buffered.publish(company.updates());
    let _ = buffered.publish(company);
    let _ = buffered.publish_all(company);
}

fn main() {}
