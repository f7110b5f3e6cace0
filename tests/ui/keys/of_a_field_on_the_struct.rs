use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company", group_id = "id", set_once, skip)]
struct Company {
    id: String,
}

fn main() {}
