use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "$company_id")]
struct Company {
    #[mixpanel(group_id(prefix = "company_"), company_id)]
    id: String,
}

fn main() {}
