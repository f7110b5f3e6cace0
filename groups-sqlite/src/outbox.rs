//! The outbox in an `SQLite` file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{ErrorCode, MAIN_DB, Transaction, params};

use crate::engine::Durability;
use crate::engine::{Append, Engine, Rejected, VERSION, insert, now};
use crate::group_commit::GroupCommit;
use mixpanel_groups::Outbox;
use mixpanel_groups::outbox::{Capacity, Depth, OutboxEntry};
use mixpanel_groups::{EncodedUpdate, Error, ErrorKind, Rejection, Update};

/// An outbox in an `SQLite` file: what waits there outlives a crash of the process or the machine.
///
/// Any number of threads and processes may publish to one file. One process at a time sends: `take`
/// gives nothing while another has taken something. It has it under a lock on a second file, which
/// is named like the first with `-relay` at its end, and which ends with its process.
///
/// # The file
/// It may be a database of your own: see [`publish_in`](Self::publish_in). The tables
/// ([`SCHEMA`](Self::SCHEMA)) are plain, and exact whoever writes to them:
/// ```sh
/// sqlite3 outbox.db "SELECT * FROM mixpanel_outbox_rejected"
/// # Try them once more:
/// sqlite3 outbox.db "BEGIN; INSERT INTO mixpanel_outbox (body) SELECT body FROM mixpanel_outbox_rejected;
///                    DELETE FROM mixpanel_outbox_rejected; COMMIT"
/// ```
/// A row that is not an update, because somebody changed it, is rejected too: counted, reported and kept there.
///
/// The file is put into [WAL mode](https://www.sqlite.org/wal.html), so it cannot lie on a network
/// file system. It does not shrink: the place of removed rows is used again.
///
/// # Speed
/// Threads that publish at the same time share one transaction, and with it the wait for the disk:
/// [`Durability`] says which. `append` and the others wait 10 seconds at most for another process
/// that writes to the file, and then fail.
///
/// # Several processes and dropping the oldest
/// A process knows only what it took itself. If another one drops the oldest, it may drop what is
/// just being sent.
pub struct SqliteOutbox {
    path: PathBuf,
    engine: GroupCommit<Engine, Append, Result<bool, Arc<rusqlite::Error>>>,
}

impl SqliteOutbox {
    /// The tables, as `open` makes them where they are not there yet.
    pub const SCHEMA: &'static str = crate::engine::SCHEMA;

    /// Opens the file, and makes it if there is none. What is published outlives power loss.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the file cannot be read and written, [`ErrorKind::Damaged`] if it is no
    /// `SQLite` database, or of a newer version of this library.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path, Durability::default())
    }

    /// Opens the file, with a choice between speed and safety.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, synchronous: Durability) -> Result<Self, Error> {
        let path = path.as_ref();
        let failed = |error| failed(path, "open", error);
        let mut engine = Engine::open(path).map_err(failed)?;
        let version = engine.version().map_err(failed)?;
        let newer = version.filter(|version| *version != VERSION);
        if let Some(newer) = newer {
            let path = path.display();
            let message = format!(
                "the outbox {path} is of version {newer}, and this library knows {VERSION}"
            );
            return Err(Error::new(ErrorKind::Damaged, message));
        }
        if engine.db.is_readonly(MAIN_DB).map_err(failed)? {
            let message = format!("the outbox {} can only be read", path.display());
            return Err(Error::new(ErrorKind::Io, message));
        }
        engine.set_up(synchronous).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            engine: GroupCommit::new(engine),
        })
    }

    /// Writes an update in a transaction of your own: it is published if and when the transaction
    /// commits, together with your rows. One that has nothing to say is left out.
    ///
    /// The transaction is one on the outbox's file, where [`open`](Self::open) or
    /// [`SCHEMA`](Self::SCHEMA) has made the tables. It should write before it reads, or be an
    /// [immediate](rusqlite::TransactionBehavior::Immediate) one: `SQLite` lets one transaction write at a
    /// time. No capacity limits what is published so.
    ///
    /// # Errors
    /// If the update cannot be sent, or not be written. The transaction is still yours to roll back.
    ///
    /// ```
    /// # use mixpanel_groups::Group;
    /// # use mixpanel_groups_sqlite::SqliteOutbox;
    /// # use serde_json::json;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("shop.db");
    /// let mut db = rusqlite::Connection::open(&path)?;
    /// # db.execute_batch("CREATE TABLE companies (id TEXT, plan TEXT)")?;
    /// let outbox = SqliteOutbox::open(&path)?;
    ///
    /// let transaction = db.transaction()?;
    /// transaction.execute("INSERT INTO companies VALUES ('acme', 'pro')", [])?;
    /// let acme = Group::new("company", "acme");
    /// SqliteOutbox::publish_in(&transaction, acme.set(json!({"plan": "pro"})))?;
    /// transaction.commit()?; // both, or none
    /// # use mixpanel_groups::Outbox;
    /// # assert_eq!(outbox.depth()?.updates, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_in<'a>(
        transaction: &Transaction<'_>,
        update: impl Into<Update<'a>>,
    ) -> Result<(), Error> {
        let Some(update) = EncodedUpdate::new(&update.into())? else {
            return Ok(());
        };
        let insert = || {
            let mut insert = insert(transaction)?;
            insert.execute(params![now(transaction)?, update.as_json()])
        };
        let path = || Path::new(transaction.path().unwrap_or_default());
        insert()
            .map(drop)
            .map_err(|error| failed(path(), "write to", error))
    }
}

impl Outbox for SqliteOutbox {
    fn append(&self, updates: &[EncodedUpdate], capacity: Capacity) -> Result<bool, Error> {
        let append = Append {
            updates: updates.to_vec(),
            capacity,
        };
        let written = self.engine.join(append, Engine::append_all);
        let written = written.ok_or_else(|| {
            let path = self.path.display();
            let message = format!("cannot write to the outbox {path}: a thread panicked");
            Error::new(ErrorKind::Io, message)
        })?;
        written.map_err(|error| self.failed("write to", error))
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry>, Error> {
        let rows = self.engine.writer().take(most);
        let rows = rows.map_err(|error| self.failed("take from", error))?;
        let entries = rows.into_iter().map(|(id, json)| match json {
            Ok(json) => OutboxEntry::read(id, &json),
            Err(error) => OutboxEntry::unreadable(id, "", error.to_string()),
        });
        Ok(entries.collect())
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        let rejected: Vec<_> = rejected
            .iter()
            .map(|(id, rejection)| Rejected {
                id: *id,
                field: rejection.field.clone(),
                message: rejection.message.clone(),
            })
            .collect();
        let settled = self.engine.writer().settle(accepted, &rejected);
        settled.map_err(|error| self.failed("remove from", error))
    }

    fn release(&self) -> Result<(), Error> {
        let released = self.engine.writer().release();
        released.map_err(|error| self.failed("unlock", error))
    }

    fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<usize, Error> {
        let dropped = self.engine.writer().drop_oldest(updates, bytes, capacity);
        dropped.map_err(|error| self.failed("remove from", error))
    }

    fn depth(&self) -> Result<Depth, Error> {
        let depth = self.engine.writer().depth();
        depth.map_err(|error| self.failed("read", error))
    }
}

impl SqliteOutbox {
    fn failed(&self, verb: &str, error: impl Into<Arc<rusqlite::Error>>) -> Error {
        failed(&self.path, verb, error)
    }
}

fn failed(path: &Path, verb: &str, error: impl Into<Arc<rusqlite::Error>>) -> Error {
    let error = error.into();
    let kind = match error.sqlite_error_code() {
        // Without a code of its own `SQLite` means tables that are not as they should be.
        None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
            ErrorKind::Damaged
        }
        Some(_) => ErrorKind::Io,
    };
    let message = format!("cannot {verb} the outbox {}", path.display());
    Error::new(kind, message).with_source(error)
}

impl fmt::Debug for SqliteOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOutbox")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
