use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company", rename_all = "camelCase")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    seat_count: u32,
    #[allow(non_snake_case)]
    seatCount: u32,
    _seat_count: u32,
}

fn main() {}
