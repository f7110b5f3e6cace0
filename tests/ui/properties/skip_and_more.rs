use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(skip, rename = "Name")]
    name: String,
    #[mixpanel(set_once, skip, unset_none)]
    plan: String,
}

fn main() {}
