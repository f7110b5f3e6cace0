use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
struct Company {
    #[mixpanel(group_key = "company")]
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(rename_all = "camelCase")]
    name: String,
    #[mixpanel(serde)]
    plan: String,
}

fn main() {}
