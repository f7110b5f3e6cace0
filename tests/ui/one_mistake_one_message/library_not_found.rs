use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company", crate = analytics)]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    name: String,
}

fn main() {}
