use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company" rename_all = "camelCase")]
struct Company {
    #[mixpanel(group_id company_id)]
    id: String,
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "team")]
struct Team {
    #[mixpanel(group_id(prefix = "a" with = "b"))]
    id: String,
}

fn main() {}
