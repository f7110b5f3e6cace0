use mixpanel_groups::MixpanelGroup;

struct Plan;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company<T> {
    #[mixpanel(group_id)]
    id: String,
    value: T,
}

fn check(company: &Company<Plan>) {
    let _ = company.set();
}

fn main() {}
