use mixpanel_groups::MixpanelGroup;

fn text(number: &u32) -> String {
    number.to_string()
}

fn lower<S: serde::Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&text.to_lowercase())
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(with = "text")]
    seats: u32,
    #[mixpanel(with = "lower")]
    plan: u8,
}

fn main() {}
