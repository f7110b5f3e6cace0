use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(key = "company")]
struct Company {
    #[mixpanel(id)]
    id: String,
    #[mixpanel(name = "Plan")]
    plan: String,
    #[mixpanel(set)]
    seats: u32,
}

fn main() {}
