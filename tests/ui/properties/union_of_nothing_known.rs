use mixpanel_groups::MixpanelGroup;

struct Tags(Vec<String>);

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(union)]
    tags: Tags,
    #[mixpanel(union)]
    more: Vec<Tags>,
}

fn main() {}
