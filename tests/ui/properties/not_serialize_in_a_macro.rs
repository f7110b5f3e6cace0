use mixpanel_groups::MixpanelGroup;

struct Plan;

macro_rules! company {
    ($($field:ident: $type:ty),*) => {
        #[derive(MixpanelGroup)]
        #[mixpanel(group_key = "company")]
        struct Company {
            #[mixpanel(group_id)]
            id: String,
            $($field: $type,)*
        }
    };
}

company!(name: String, plan: Plan, plans: Vec<Plan>);

fn main() {}
