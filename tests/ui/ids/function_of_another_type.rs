use mixpanel_groups::MixpanelGroup;

fn text(id: &u32) -> String {
    id.to_string()
}

fn number(_: &str) -> f64 {
    1.5
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id(with = "text"))]
    id: u64,
    #[mixpanel(skip)]
    name: String,
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Measured {
    #[mixpanel(group_id(with = "number"))]
    id: String,
}

fn main() {}
