use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "team")]
struct Team {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(company_id)]
    company: String,
    #[mixpanel(company_id)]
    parent: String,
}

fn main() {}
