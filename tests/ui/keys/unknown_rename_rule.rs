use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company", rename_all = "Title Case")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
}

fn main() {}
