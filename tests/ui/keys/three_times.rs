use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id(prefix = "a", prefix = "b"))]
    id: String,
    #[mixpanel(union, union)]
    #[mixpanel(union)]
    tags: Vec<String>,
}

fn main() {}
