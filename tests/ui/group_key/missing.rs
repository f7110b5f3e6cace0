use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
struct Workspace {
    #[mixpanel(group_id)]
    id: String,
}

fn main() {}
