use mixpanel_groups::MixpanelGroup;

struct Plan;

#[derive(serde::Serialize)]
struct Seats(u32);

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    seats: Seats,
    plan: Plan,
    #[mixpanel(set_once)]
    plans: std::collections::BTreeMap<String, Vec<Plan>>,
    #[mixpanel(flatten)]
    more: Plan,
}

fn main() {}
