use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    name: String,
    #[mixpanel(rename = "name", set_once)]
    first_name: String,
}

fn main() {}
