use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "$company_id")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "$user_id")]
struct User {
    #[mixpanel(group_id)]
    id: String,
    company: String,
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "$company_id")]
struct Apart {
    #[mixpanel(group_id)]
    id: u64,
    #[mixpanel(company_id)]
    slug: String,
}

fn main() {}
