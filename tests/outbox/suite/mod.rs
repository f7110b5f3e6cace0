//! What every outbox promises, one suite for all of them.

mod events;
mod file_outbox;
mod model;
mod promises;

use std::path::Path;
use std::sync::Arc;

use mixpanel_groups::{MemoryOutbox, Outbox};
use mixpanel_groups_sqlite::{Durability, SqliteOutbox};

/// Gives a handle on one and the same outbox, which is empty at first.
type Open<'a> = &'a dyn Fn() -> Arc<dyn Outbox>;

fn memory(test: &dyn Fn(Open<'_>)) {
    let outbox = Arc::new(MemoryOutbox::new());
    test(&|| outbox.clone());
}

fn sqlite(test: &dyn Fn(Open<'_>)) {
    sqlite_at(&|_, open| test(open));
}

fn sqlite_at(test: &dyn Fn(&Path, Open<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    // Nobody cuts the power here.
    test(&path, &|| {
        Arc::new(SqliteOutbox::open_with(&path, Durability::Normal).unwrap())
    });
}

/// A user's own engine.
fn own(test: &dyn Fn(Open<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.jsonl");
    let outbox = Arc::new(file_outbox::FileOutbox::open(&path).unwrap());
    test(&|| outbox.clone());
    // What it holds is in the file.
    let again = file_outbox::FileOutbox::open(&path).unwrap();
    outbox.release().unwrap();
    assert_eq!(again.take(1_000).unwrap(), outbox.take(1_000).unwrap());
}

/// With a handle on the same tables each time.
fn postgres(test: &dyn Fn(Open<'_>)) {
    if let Some(harness) = common::postgres::Harness::new() {
        test(&|| Arc::new(harness.another()));
    }
}

/// What keeps others from writing to an engine, until it is dropped.
type Block = Box<dyn std::any::Any>;

mod deadlines {
    use super::{promises, sqlite_at};

    #[test]
    fn of_sqlite() {
        sqlite_at(&|path, open| {
            promises::calls_end_by_their_timeout(open, &|| {
                let db = rusqlite::Connection::open(path).unwrap();
                db.execute_batch("BEGIN IMMEDIATE").unwrap();
                Box::new(db)
            });
        });
    }
}

/// The tests of a module, with an outbox.
macro_rules! tests {
    ($engine:ident: $($module:ident: $($test:ident)+;)+) => {
        mod $engine {
            $($(
                #[test]
                fn $test() {
                    crate::suite::$engine(&crate::suite::$module::$test);
                }
            )+)+
        }
    };
}

macro_rules! suite {
    ($engine:ident) => {
        tests! {
            $engine:
            promises:
                what_is_appended_is_taken_in_order
                what_is_taken_stays_until_it_is_settled
                only_what_is_named_is_settled
                an_append_is_whole_or_not_at_all
                the_capacity_is_exact
                dropping_the_oldest_spares_what_is_taken
                nothing_is_dropped_where_there_is_room
                the_oldest_has_an_age
                updates_come_back_as_they_were
                many_threads_append_while_one_takes;
            model:
                any_order_of_calls;
        }
    };
}

suite!(memory);
suite!(own);
suite!(sqlite);
suite!(postgres);

/// Of outboxes that several processes share.
mod shared {
    tests! {
        sqlite:
        promises:
            a_small_capacity_drops_nothing_of_others;
    }

    tests! {
        postgres:
        promises:
            a_small_capacity_drops_nothing_of_others;
    }
}

/// The queue of events, where an outbox has one.
mod events_of {
    tests! {
        memory:
        events:
            events_are_kept_as_updates_are
            neither_kind_counts_for_the_other
            both_kinds_are_delivered;
    }

    tests! {
        sqlite:
        events:
            events_are_kept_as_updates_are
            neither_kind_counts_for_the_other
            both_kinds_are_delivered;
    }

    tests! {
        postgres:
        events:
            events_are_kept_as_updates_are
            neither_kind_counts_for_the_other
            both_kinds_are_delivered;
    }
}
