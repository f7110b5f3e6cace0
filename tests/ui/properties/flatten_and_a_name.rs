use mixpanel_groups::MixpanelGroup;

use std::collections::BTreeMap;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(flatten, rename = "more", unset_none)]
    more: BTreeMap<String, u8>,
}

#[derive(serde::Serialize, MixpanelGroup)]
#[mixpanel(group_key = "company", serde)]
struct OfSerde {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(unset_none)]
    #[serde(flatten)]
    more: BTreeMap<String, u8>,
}

fn main() {}
