use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(union, set_once)]
    tags: Vec<String>,
}

fn main() {}
