//! Lists of groups that are not in sync night after night.

use mixpanel_groups::{Client, MixpanelGroup, Operation, Rejection, Report, Snapshot};
use mixpanel_groups_emulator::Emulator;
use serde_json::json;

use crate::{Folder, client, comparable, expected};

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Noted {
    #[mixpanel(group_id)]
    id: u8,
    notes: String,
    #[mixpanel(union)]
    tags: [u32; 1],
}

/// Each item might be in the list still, so without a limit each night would remove those of all nights before.
#[test]
fn a_list_that_changes_while_another_property_is_rejected_each_night_needs_few_updates() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let sync = |company: &Noted| {
        let mut snapshot = Snapshot::open(folder.file()).unwrap();
        snapshot.sync(&client, [company]).unwrap()
    };
    let mut company = Noted {
        id: 1,
        notes: "x".repeat(1_100_000), // More than an update may have.
        tags: [0],
    };
    let mut most = 0;
    for night in 1..=120 {
        company.tags = [night];
        let report = sync(&company);
        assert_eq!(report.rejected.len(), 1, "night {night}");
        most = most.max(report.sent);
        // The list is what it should be all the same.
        let profile = comparable(emulator.profile("company", "1"));
        assert_eq!(profile["tags"], json!([night]));
    }
    assert!(most < 60, "{most} updates");
    company.notes = "short".to_owned();
    let report = sync(&company);
    assert!(report.is_all_accepted() && report.sent < 60, "{report}");
    let profile = emulator.profile("company", "1");
    assert_eq!(comparable(profile), comparable(Some(expected(&company))));
    assert_eq!(sync(&company), Report::default());
}

#[test]
fn an_error_names_the_operation_of_its_property() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Wrong {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(union)]
        flags: Vec<bool>,
    }
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    let wrong = [Wrong {
        id: 1,
        flags: vec![true],
    }];
    let report = snapshot.sync(&client(&emulator), &wrong).unwrap();
    let rejected = report.rejected.iter().map(Rejection::operation);
    assert_eq!(rejected.collect::<Vec<_>>(), [Some(Operation::Union)]);
}
