use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
struct Company {
    id: String,
    name: String,
}

fn main() {}
