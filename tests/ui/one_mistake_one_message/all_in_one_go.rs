use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "$company", rename_all = "camel", flaten)]
struct Company {
    #[mixpanel(group_id, set_once)]
    id: Option<String>,
    #[mixpanel(rename = "")]
    name: String,
    #[mixpanel(union, set_once)]
    tags: Vec<String>,
    #[mixpanel(skip, skip)]
    plan: String,
    #[mixpanel(unknown_key)]
    seats: u32,
}

fn main() {}
