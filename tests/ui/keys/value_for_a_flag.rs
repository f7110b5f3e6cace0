use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company", unset_none = true)]
struct Company {
    #[mixpanel(group_id = "company_")]
    id: String,
    #[mixpanel(skip(true))]
    name: String,
    #[mixpanel(set_once = "always")]
    plan: String,
}

fn main() {}
