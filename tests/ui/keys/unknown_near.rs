use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_kye = "company", rename_al = "camelCase")]
struct Company {
    #[mixpanel(groupid)]
    id: String,
    #[mixpanel(setonce, unset_non)]
    name: String,
    #[mixpanel(Union)]
    tags: Vec<String>,
}

fn main() {}
