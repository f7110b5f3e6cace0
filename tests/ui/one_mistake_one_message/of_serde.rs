use mixpanel_groups::MixpanelGroup;

use serde::Serialize;

#[derive(Serialize, MixpanelGroup)]
#[mixpanel(group_key = "company", serde)]
#[serde(rename_all = "Title Case")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[serde(unknown)]
    name: String,
    #[serde(rename = "Same")]
    one: u8,
    #[serde(rename = "Same")]
    other: u8,
}

fn main() {}
