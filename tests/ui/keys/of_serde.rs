use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(skip_serializing)]
    name: String,
    #[mixpanel(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    #[mixpanel(serialize_with = "to_text")]
    seats: u32,
}

fn main() {}
