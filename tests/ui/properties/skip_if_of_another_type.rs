use mixpanel_groups::MixpanelGroup;

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn length(text: &str) -> usize {
    text.len()
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(skip_if = "is_zero")]
    seats: u64,
    #[mixpanel(skip_if = "length")]
    name: String,
}

fn main() {}
