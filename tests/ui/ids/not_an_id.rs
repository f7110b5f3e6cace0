use mixpanel_groups::MixpanelGroup;

struct AccountId(u64);

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: AccountId,
    #[mixpanel(company_id)]
    company: Vec<u8>,
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Measured {
    #[mixpanel(group_id)]
    id: f64,
}

fn main() {}
