use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel]
struct Company {
    #[mixpanel = "group_id"]
    id: String,
    #[mixpanel("rename")]
    name: String,
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "team")]
struct Team {
    #[mixpanel(group_id("team_"))]
    id: String,
}

fn main() {}
