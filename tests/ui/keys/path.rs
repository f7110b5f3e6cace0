use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id::x)]
    id: String,
    #[mixpanel(group_id::x)]
    name: String,
    #[mixpanel(rename::to = "Plan", rename::to = "plan")]
    plan: String,
}

fn main() {}
