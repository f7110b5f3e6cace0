use mixpanel_groups::MixpanelGroup;

struct Company {
    id: String,
}

fn sync<T: MixpanelGroup>(_: &T) {}

fn check(company: &Company) {
    sync(company);
}

fn main() {}
