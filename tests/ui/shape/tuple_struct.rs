use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company(#[mixpanel(group_id)] String, u32);

fn main() {}
