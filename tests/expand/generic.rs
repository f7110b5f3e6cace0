#[mixpanel(group_key = "team", crate = analytics::groups, unset_none)]
struct Team<'a, I, T: ?Sized = str, L = Vec<u8>>
where
    I: Copy,
{
    #[mixpanel(group_id(with = "to_text"))]
    id: I,
    #[mixpanel(company_id)]
    company: &'a str,
    title: &'a T,
    #[mixpanel(union, skip_if = "is_empty")]
    tags: L,
    #[mixpanel(set_once, with = "as_text")]
    created: SystemTime,
    #[mixpanel(flatten, with = "entries", skip_if = "Settings::is_default")]
    settings: Settings,
}
