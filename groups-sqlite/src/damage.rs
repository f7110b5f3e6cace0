use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::failure::Failure;
use crate::file::{OutboxFile, held};
use crate::schema::{SCHEMA, Tables};

/// Sets a damaged table of waiting updates aside, with what of it cannot be read, and copies the rest into a new one.
/// Returns the name of the table that is set aside.
///
/// Nothing is changed if every row can be read, since the damage is elsewhere, or if another connection has set the table
/// aside meanwhile.
pub(crate) fn set_aside(db: &Connection, file: &OutboxFile) -> Result<Option<String>, Failure> {
    // Once a page could not be read in a transaction, SQLite writes nothing more in it.
    let tables = file.tables;
    let root =
        "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = 'mixpanel_outbox'";
    let root: i64 = db.query_row(&tables.sql(root), [], |row| row.get(0))?;
    let runs = readable_runs(db, tables)?;
    if let [(_, REST)] = runs[..] {
        return Ok(None);
    }
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let aside = format!("mixpanel_outbox_damaged_{}", since.as_secs());
    let transaction = file.begin(db, file.deadline())?;
    let name = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage = ?1";
    let name = transaction.query_row(name, [root], |row| row.get::<_, String>(0));
    let name = name.optional()?;
    if name.as_deref() != Some(&*tables.sql("mixpanel_outbox")) {
        return Ok(name);
    }
    // Without this, SQLite would read the views and triggers of the application too.
    transaction.pragma_update(None, "legacy_alter_table", true)?;
    // Whatever it is: rows that cannot be read cannot be counted again.
    let counted = "SELECT updates FROM mixpanel_outbox_state";
    let counted: i64 = transaction.query_row(&tables.sql(counted), [], |row| row.get(0))?;
    let sql = format!(
        "DROP TRIGGER mixpanel_outbox_inserted;
         DROP TRIGGER mixpanel_outbox_deleted;
         DROP TRIGGER mixpanel_outbox_updated;
         ALTER TABLE mixpanel_outbox RENAME TO {aside};
         UPDATE mixpanel_outbox_state SET updates = 0, bytes = 0;"
    );
    transaction.execute_batch(&tables.sql(&sql))?;
    for statement in statements_on_the_table(tables) {
        transaction.execute_batch(statement)?;
    }
    for (behind, most) in runs.into_iter().filter(|(_, count)| *count != 0) {
        let sql = format!(
            "INSERT INTO mixpanel_outbox SELECT id, since, body FROM {aside} WHERE id > ?1 ORDER BY id LIMIT ?2"
        );
        transaction.execute(&tables.sql(&sql), (behind, most))?;
    }
    // An id is not used twice.
    let sql = format!(
        "INSERT OR REPLACE INTO sqlite_sequence (rowid, name, seq)
         SELECT (SELECT rowid FROM sqlite_sequence WHERE name = 'mixpanel_outbox'), 'mixpanel_outbox', seq
         FROM sqlite_sequence WHERE name = '{aside}'"
    );
    transaction.execute_batch(&tables.sql(&sql))?;
    let copied = held(&transaction, tables)?.updates;
    transaction.commit()?;
    let aside = tables.sql(&aside).into_owned();
    log::error!(
        "the file of the outbox is damaged: {copied} rows can be read, {counted} were counted, see {aside}"
    );
    Ok(Some(aside))
}

/// Returns the parts of the schema that are about the table of waiting updates.
fn statements_on_the_table(tables: Tables) -> impl Iterator<Item = &'static str> {
    let table = tables.sql("CREATE TABLE mixpanel_outbox (");
    let trigger = tables.sql(" ON mixpanel_outbox BEGIN");
    let is_one =
        move |statement: &&str| statement.contains(&*table) || statement.contains(&*trigger);
    SCHEMA.split("\n\n").filter(is_one)
}

/// All rows up to the end of the table, which others may add to: no limit in SQL.
const REST: i64 = -1;

/// Returns the runs of rows that can be read: the id behind which each begins, and how many rows it has.
fn readable_runs(db: &Connection, tables: Tables) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut select = db.prepare(&tables.sql(ROWS_BEHIND))?;
    let mut runs = Vec::new();
    let mut next = Some(0);
    while let Some(behind) = next {
        let (mut last, mut count) = (behind, 0);
        let mut rows = select.query([behind])?;
        next = loop {
            let Ok(row) = rows.next() else {
                break next_readable(db, tables, last)?;
            };
            let Some(row) = row else {
                count = REST;
                break None;
            };
            let Ok((id, ..)) = read(row) else {
                break next_readable(db, tables, last)?;
            };
            (last, count) = (id, count + 1);
        };
        runs.push((behind, count));
    }
    Ok(runs)
}

const ROWS_BEHIND: &str = "SELECT id, since, body FROM mixpanel_outbox WHERE id > ?1 ORDER BY id";

type StoredRow = (i64, rusqlite::types::Value, rusqlite::types::Value);

fn read(row: &Row<'_>) -> rusqlite::Result<StoredRow> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// Returns the smallest id from which on the table can be read again. A damaged page holds a run of ids.
fn next_readable(db: &Connection, tables: Tables, last: i64) -> rusqlite::Result<Option<i64>> {
    let mut select = db.prepare(&tables.sql(ROWS_BEHIND))?;
    let mut can_read = |id: i64| select.query_row([id], read).optional();
    let (mut damaged, mut step) = (last, 1_i64);
    let mut readable = loop {
        let Some(id) = last.checked_add(step) else {
            return Ok(None);
        };
        match can_read(id) {
            Ok(None) if step == 1 => return Ok(None),
            // Behind the damage, or behind the end.
            Ok(_) => break id,
            // Not even behind the greatest id: a page is damaged that leads to all others.
            Err(_) if id == i64::MAX => return Ok(None),
            Err(_) => damaged = id,
        }
        step = step.saturating_mul(2);
    };
    while readable - damaged > 1 {
        let middle = damaged + (readable - damaged) / 2;
        match can_read(middle) {
            Ok(_) => readable = middle,
            Err(_) => damaged = middle,
        }
    }
    Ok(Some(readable))
}
