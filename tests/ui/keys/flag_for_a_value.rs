use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key)]
struct Company {
    #[mixpanel(group_id(prefix))]
    id: String,
    #[mixpanel(rename)]
    name: String,
    #[mixpanel(skip_if("String::is_empty"))]
    plan: String,
    #[mixpanel(with =)]
    seats: u32,
}

fn main() {}
