use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: Option<String>,
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "team")]
struct Team {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(company_id)]
    company: std::option::Option<Box<str>>,
}

fn main() {}
