use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company<'a, T: ?Sized> {
    #[mixpanel(group_id, union)]
    id: String,
    name: &'a T,
}

#[derive(MixpanelGroup)]
enum Plan {
    Free,
}

fn all(company: &Company<'_, str>) {
    let _ = company.set();
    let _ = company.updates().count();
    let _ = company.group();
    let _ = company.delete();
    let _ = Company::<'_, str>::PROPERTIES.len();
    let _ = Plan::Free.set_once();
}

fn main() {}
