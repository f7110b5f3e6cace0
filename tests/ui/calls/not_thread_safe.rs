use std::rc::Rc;

use mixpanel_groups::{Client, MixpanelGroup};

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: Rc<str>,
    plan: String,
}

fn send(client: &Client, company: &Company) {
    let _ = client.send(company.updates());
    let _ = client.send(company.set());
}

fn send_any<T: MixpanelGroup>(client: &Client, group: &T) {
    let _ = client.send(group.updates());
}

fn main() {}
