//! A process that forks while it has an outbox open.

use common::{LONG, in_child, is_own_process};
use mixpanel_groups::{Error, ErrorKind, Outbox};
use mixpanel_groups_sqlite::SqliteOutbox;

use super::{ROOM, folder, ids, update};

#[test]
fn a_child_neither_uses_its_parents_outbox_nor_ends_its_lease() {
    if !is_own_process(
        a_child_neither_uses_its_parents_outbox_nor_ends_its_lease,
        &[],
    ) {
        return;
    }
    let (_folder, path) = folder();
    let mut opened = Some(SqliteOutbox::open(&path).unwrap());
    let outbox = opened.as_ref().unwrap();
    let all = [update(0, 0), update(0, 1)];
    assert!(outbox.append(&all, ROOM).unwrap());
    let taken = outbox.take(1).unwrap();
    assert!(outbox.hold(LONG).unwrap());
    let child = || {
        let outbox = opened.take().unwrap();
        let calls: [Result<(), Error>; 8] = [
            outbox.append(&all, ROOM).map(drop),
            outbox.take(1).map(drop),
            outbox.settle(&ids(&taken), &[]),
            outbox.hold(LONG).map(drop),
            outbox.release(),
            outbox.drop_oldest(1, 1, ROOM).map(drop),
            outbox.depth().map(drop),
            outbox.events().unwrap().take(1).map(drop),
        ];
        for error in calls.map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            assert!(error.to_string().contains("after the fork"), "{error}");
        }
        drop(outbox);
        // With the locks of one process that both have, its parent would remove the log from under it.
        let error = SqliteOutbox::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(error.to_string().contains("in a fork"), "{error}");
        // By whatever name.
        let link = path.with_file_name("link.db");
        std::fs::hard_link(&path, &link).unwrap();
        let error = SqliteOutbox::open(&link).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        std::fs::remove_file(link).unwrap();
        let other = path.with_file_name("other.db");
        assert!(
            SqliteOutbox::open(&other)
                .unwrap()
                .append(&all, ROOM)
                .unwrap()
        );
    };
    in_child(child, || ());
    let outbox = opened.unwrap();
    let other = SqliteOutbox::open(&path).unwrap();
    assert!(other.take(1).unwrap().is_empty(), "the lease is still held");
    outbox.settle(&ids(&taken), &[]).unwrap();
    assert_eq!(outbox.take(9).unwrap().len(), 1);
    // What was closed before the fork can be opened.
    drop((outbox, other));
    in_child(
        || {
            let own = SqliteOutbox::open(&path).unwrap();
            assert_eq!(own.take(9).unwrap().len(), 1);
        },
        || (),
    );
}
