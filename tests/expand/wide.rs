/// Thirty properties of one company.
#[mixpanel(group_key = "company", rename_all = "camelCase")]
struct Wide {
    #[mixpanel(group_id)]
    id: u64,
    name: String,
    legal_name: Option<String>,
    domain: String,
    plan: Plan,
    plan_interval: Interval,
    seats: u32,
    seats_used: u32,
    #[mixpanel(unset_none)]
    trial_ends: Option<String>,
    #[mixpanel(unset_none)]
    coupon: Option<String>,
    revenue: f64,
    employees: Option<u32>,
    industry: Option<String>,
    country: String,
    city: Option<String>,
    timezone: Option<String>,
    language: String,
    #[mixpanel(set_once)]
    created: String,
    #[mixpanel(set_once)]
    signup_source: Option<String>,
    #[mixpanel(set_once)]
    first_plan: Plan,
    #[mixpanel(set_once)]
    founding_year: Option<u16>,
    #[mixpanel(union)]
    integrations: Vec<String>,
    #[mixpanel(union)]
    features: BTreeSet<Feature>,
    #[mixpanel(union)]
    admins: Vec<u64>,
    #[mixpanel(union)]
    tags: Vec<String>,
    last_seen: Option<String>,
    health: u8,
    is_customer: bool,
    #[mixpanel(skip)]
    is_test: bool,
    account_manager: Option<String>,
    #[mixpanel(skip_if = "String::is_empty")]
    notes: String,
}
