use std::collections::{BinaryHeap, HashMap};

use mixpanel_groups::MixpanelGroup;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(union)]
    tags: BinaryHeap<u8>,
    #[mixpanel(union)]
    seats: HashMap<String, u8>,
}

fn main() {}
