use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
#[mixpanel(group_key = "workspace")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(rename = "Name", set_once, rename = "Company")]
    name: String,
}

fn main() {}
