use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(with = "ToString::to_string")]
    seats: u32,
    #[mixpanel(with = "std::string::String::from")]
    plan: char,
    #[mixpanel(with = "str::to_lowercase")]
    name: String,
    #[mixpanel(with = "u64::to_string")]
    account: u64,
}

fn main() {}
