/// A customer.
#[mixpanel(group_key = "company", rename_all = "camelCase")]
pub struct Company {
    #[mixpanel(group_id(prefix = "company_"))]
    pub id: u64,
    /// The name that people know it by.
    pub name: String,
    pub plan: Plan,
    #[mixpanel(unset_none)]
    pub industry: Option<String>,
    #[mixpanel(set_once)]
    pub founding_year: u16,
    #[mixpanel(union)]
    pub integrations: Vec<String>,
    #[mixpanel(rename = "Seats \"Purchased\"")]
    pub seats: u32,
    #[mixpanel(skip)]
    pub password_hash: String,
}
