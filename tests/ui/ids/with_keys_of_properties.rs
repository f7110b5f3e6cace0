use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id, rename = "id", skip_if = "String::is_empty", flatten)]
    id: String,
    #[mixpanel(company_id, with = "to_text")]
    company: String,
}

fn main() {}
