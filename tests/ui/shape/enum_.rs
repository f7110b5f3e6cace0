use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
enum Plan {
    Free,
    Enterprise,
}

fn main() {}
