use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company", rename_all = "PascalCase")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    __: u8,
}

fn main() {}
