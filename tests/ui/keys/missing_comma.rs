use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company" rename_all = "camelCase")]
struct Company {
    #[mixpanel(group_id company_id)]
    id: String,
}

fn main() {}
