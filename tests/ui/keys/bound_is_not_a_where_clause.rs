use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company", bound = "T + Serialize")]
struct Company<T> {
    #[mixpanel(group_id)]
    id: String,
    value: T,
}

fn main() {}
