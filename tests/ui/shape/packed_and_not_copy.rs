use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
#[repr(packed)]
struct Company {
    #[mixpanel(group_id)]
    id: u64,
    plan: String,
}

fn main() {}
