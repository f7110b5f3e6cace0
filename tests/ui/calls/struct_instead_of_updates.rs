use mixpanel_groups::{Client, MixpanelGroup};

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: u64,
    plan: String,
}

fn send(client: &Client, company: &Company) {
    let _ = client.send(company);
}

fn main() {}
