use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(rename = "$group_id")]
    other: String,
    #[mixpanel(rename = "$group_key")]
    key: String,
}

fn main() {}
