use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(union)]
    tags: String,
    #[mixpanel(union)]
    plan: Option<u8>,
}

fn main() {}
