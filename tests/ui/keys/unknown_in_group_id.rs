use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id(prefx = "company_", rename = "x", other))]
    id: String,
}

fn main() {}
