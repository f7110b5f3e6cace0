use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company", version = 3)]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(transform(shout, twice), skip_if = "String::is_empty")]
    name: String,
    #[mixpanel(prefix::path = "x")]
    plan: String,
}

fn main() {}
