#[mixpanel(group_key = "$company_id")]
struct Company {
    #[mixpanel(group_id, company_id)]
    id: String,
}
