//! A user of the SQLite outbox and of the rusqlite beside it, for .ci/downstream and .ci/minimal-versions.

use mixpanel_groups::{Group, Outbox};
use mixpanel_groups_sqlite::SqliteOutbox;
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: user-sqlite-run FILE")?;
    let outbox = SqliteOutbox::open(&path)?;
    let mut db = rusqlite::Connection::open(&path)?;
    let transaction = db.transaction()?;
    let acme = Group::new("company", "acme");
    SqliteOutbox::publish_in(&transaction, acme.set(json!({"plan": "pro"})))?;
    transaction.commit()?;
    let taken = outbox.take(10)?;
    let ids: Vec<_> = taken.iter().map(|entry| entry.id).collect();
    assert_eq!(taken.len(), 1);
    assert!(taken[0].json().contains(r#""$set":{"plan":"pro"}"#), "{}", taken[0].json());
    outbox.settle(&ids, &[])?;
    outbox.release()?;
    assert_eq!(outbox.depth()?.updates, 0);
    println!("the SQLite outbox runs with SQLite {}", rusqlite::version());
    Ok(())
}
