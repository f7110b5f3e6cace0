use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = company, rename_all = camelCase, crate = 7)]
struct Company {
    #[mixpanel(group_id(prefix = 1))]
    id: String,
    #[mixpanel(rename = 5)]
    name: String,
    #[mixpanel(skip_if = |name| name.is_empty())]
    plan: String,
    #[mixpanel(with = "not a path")]
    seats: u32,
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "team")]
struct Team {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(with = to_text::<(u8 u8)>)]
    seats: u32,
    #[mixpanel(skip_if = is_empty::<fn(u8 u8)>)]
    plan: String,
    #[mixpanel(with = |size, serializer| serializer.collect_str(size), rename = 1,5)]
    size: f64,
}

fn main() {}
