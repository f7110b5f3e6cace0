use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id(with = "to_id"))]
    id: String,
    #[mixpanel(skip_if = "is_nothing")]
    name: String,
    #[mixpanel(with = "module::to_text")]
    seats: u32,
}

fn main() {}
