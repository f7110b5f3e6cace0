use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id, set_once)]
    id: String,
    #[mixpanel(company_id, union, unset_none)]
    company: String,
}

fn main() {}
