use mixpanel_groups::MixpanelGroup;

type Maybe<T> = Option<T>;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: Maybe<String>,
}

fn main() {}
