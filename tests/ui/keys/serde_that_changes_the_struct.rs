use mixpanel_groups::MixpanelGroup;
use serde::Serialize;

#[derive(Clone, MixpanelGroup, Serialize)]
#[mixpanel(group_key = "company", serde)]
#[serde(into = "String")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    plan: String,
}

impl From<Company> for String {
    fn from(company: Company) -> Self {
        company.id
    }
}

#[derive(MixpanelGroup, Serialize)]
#[mixpanel(group_key = "team", serde)]
#[serde(tag = "type")]
struct Team {
    #[mixpanel(group_id)]
    id: String,
}

#[derive(MixpanelGroup, Serialize)]
#[mixpanel(group_key = "workspace", serde)]
#[serde(transparent)]
struct Workspace {
    #[mixpanel(group_id)]
    id: String,
}

fn main() {}
