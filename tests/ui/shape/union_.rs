use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
union Company {
    id: u32,
    name: [u8; 4],
}

fn main() {}
