use mixpanel_groups::{Client, MixpanelGroup};

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: u64,
    plan: String,
}

fn import(client: &Client, company: &Company) {
    let _ = client.import(company.set());
    let _ = client.send(mixpanel_groups::Event::new("Purchase"));
}

fn main() {}
