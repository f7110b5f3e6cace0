use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{ErrorCode, MAIN_DB, Transaction, params};

use crate::durability::Durability;
use crate::engine::{Append, Engine, RejectedRow, VERSION, insert, now};
use crate::group_commit::GroupCommit;
use mixpanel_groups::Outbox;
use mixpanel_groups::outbox::{Capacity, Depth, OutboxEntry};
use mixpanel_groups::{EncodedUpdate, Error, ErrorKind, Rejection, Update};

/// An outbox in an SQLite file: updates that wait in it survive a crash of the process or the machine.
///
/// Any number of threads and processes may publish to one file. One process at a time sends: `take`
/// returns nothing while another process has taken updates. That process holds a lock on a second
/// file, named like the first with `-relay` at its end; the lock ends with the process.
///
/// ```no_run
/// use mixpanel_groups::{Client, Group};
/// use mixpanel_groups_sqlite::SqliteOutbox;
///
/// # fn main() -> Result<(), mixpanel_groups::Error> {
/// let outbox = SqliteOutbox::open("outbox.db")?;
/// let buffered = Client::from_env()?.buffered().outbox(outbox).start()?;
/// buffered.publish(Group::new("company", "old_company").delete())?; // on disk when this returns
/// # Ok(())
/// # }
/// ```
///
/// # The file
/// The file may be a database of your own: see [`publish_in`](Self::publish_in). The tables
/// ([`SCHEMA`](Self::SCHEMA)) can be read and changed in plain SQL; triggers keep the counts right:
/// ```sh
/// sqlite3 outbox.db "SELECT * FROM mixpanel_outbox_rejected"
/// # Try them once more:
/// sqlite3 outbox.db "BEGIN; INSERT INTO mixpanel_outbox (body) SELECT body FROM mixpanel_outbox_rejected;
///                    DELETE FROM mixpanel_outbox_rejected; COMMIT"
/// ```
/// A row that is not an update, for instance because somebody edited it, is moved to
/// `mixpanel_outbox_rejected`.
///
/// The file is in [WAL mode](https://www.sqlite.org/wal.html), so it cannot be on a network file
/// system. It does not shrink: SQLite reuses the space of removed rows.
///
/// # Speed
/// Threads that publish at the same time share one transaction, and with it one wait for the disk.
/// [`Durability`] chooses between speed and safety. Every method waits up to 10 seconds for another
/// process that writes to the file, and then fails.
///
/// # Several processes and dropping the oldest
/// A process knows only what it took itself. If it drops the oldest updates to make room, they may be
/// among those that another process is sending.
pub struct SqliteOutbox {
    path: PathBuf,
    engine: GroupCommit<Engine, Append, Result<bool, Arc<rusqlite::Error>>>,
}

impl SqliteOutbox {
    /// The tables as SQL, which [`open`](Self::open) runs if they are missing.
    pub const SCHEMA: &'static str = crate::engine::SCHEMA;

    /// Opens the file, or creates it if it does not exist. Published updates survive power loss
    /// ([`Durability::Full`]).
    ///
    /// # Errors
    /// - [`ErrorKind::Config`] if the path is empty or `:memory:`, with which SQLite keeps nothing.
    /// - [`ErrorKind::Io`] if the file cannot be read and written.
    /// - [`ErrorKind::Damaged`] if it is not an SQLite database, or has tables of another version of this
    ///   library.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path, Durability::default())
    }

    /// Opens the file with the given durability, or creates it if it does not exist.
    ///
    /// [`Durability::Normal`] publishes faster, and may lose the last transactions in a power loss. The
    /// setting applies to what this handle publishes; [`publish_in`](Self::publish_in) is as durable as
    /// the connection of its transaction.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, durability: Durability) -> Result<Self, Error> {
        let path = path.as_ref();
        if [Path::new(""), Path::new(":memory:")].contains(&path) {
            let path = path.display();
            let message = format!("path \"{path}\" is not a file: name one, or use MemoryOutbox");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let failed = |error| failed(path, "open", error);
        let mut engine = Engine::open(path).map_err(failed)?;
        let version = engine.version().map_err(failed)?;
        let other = version.filter(|version| *version != VERSION);
        if let Some(other) = other {
            let path = path.display();
            let message = format!(
                "the outbox {path} has tables of version {other}: expected {VERSION}, as this version of \
                 mixpanel-groups-sqlite uses"
            );
            return Err(Error::new(ErrorKind::Damaged, message));
        }
        if engine.db.is_readonly(MAIN_DB).map_err(failed)? {
            let path = path.display();
            let message = format!("the outbox {path} is read-only: make the file writable");
            return Err(Error::new(ErrorKind::Io, message));
        }
        engine.set_up(durability).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            engine: GroupCommit::new(engine),
        })
    }

    /// Publishes an update in a transaction of your own: it takes effect when the transaction commits,
    /// together with your rows. An empty update, such as `set` without properties, is left out.
    ///
    /// The transaction must be on the outbox's file, in which [`open`](Self::open) or
    /// [`SCHEMA`](Self::SCHEMA) has created the tables. SQLite lets one transaction write at a time, so
    /// yours should write before it reads, or be
    /// [immediate](rusqlite::TransactionBehavior::Immediate). No capacity applies.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidUpdate`] if the update cannot be sent.
    /// - [`ErrorKind::Io`] or [`ErrorKind::Damaged`] if it cannot be written.
    ///
    /// The transaction stays open in either case, for you to commit or roll back.
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
    /// transaction.commit()?; // both, or neither
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
            let message = format!("cannot write to the outbox {path}: the writing thread panicked");
            Error::new(ErrorKind::Io, message)
        })?;
        written.map_err(|error| self.failed("write to", error))
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry>, Error> {
        loop {
            let rows = self.engine.writer().take(most);
            let rows = rows.map_err(|error| self.failed("take from", error))?;
            let found = rows.len();
            let (taken, malformed) = parse(rows);
            if !malformed.is_empty() {
                let (path, count) = (self.path.display(), malformed.len());
                log::warn!("moved {count} malformed rows of {path} to mixpanel_outbox_rejected");
                self.remove(&[], &malformed)?;
            }
            if found == 0 || !taken.is_empty() {
                return Ok(taken);
            }
        }
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        let rejected: Vec<_> = rejected
            .iter()
            .map(|(id, rejection)| RejectedRow {
                id: *id,
                field: rejection.field.clone(),
                message: rejection.message.clone(),
            })
            .collect();
        self.remove(accepted, &rejected)
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
    fn remove(&self, accepted: &[i64], rejected: &[RejectedRow]) -> Result<(), Error> {
        let settled = self.engine.writer().settle(accepted, rejected);
        settled.map_err(|error| self.failed("remove from", error))
    }

    fn failed(&self, verb: &str, error: impl Into<Arc<rusqlite::Error>>) -> Error {
        failed(&self.path, verb, error)
    }
}

/// Parses rows. Returns the updates, and the rows that are not updates, with the reason.
fn parse(rows: Vec<(i64, rusqlite::Result<String>)>) -> (Vec<OutboxEntry>, Vec<RejectedRow>) {
    let mut updates = Vec::with_capacity(rows.len());
    let mut malformed = Vec::new();
    for (id, json) in rows {
        let update = json
            .map_err(|error| error.to_string())
            .and_then(|json| EncodedUpdate::from_json(&json).map_err(|error| format!("{error:#}")));
        match update {
            Ok(update) => updates.push(OutboxEntry::new(id, update)),
            Err(message) => malformed.push(RejectedRow {
                id,
                field: None,
                message,
            }),
        }
    }
    (updates, malformed)
}

/// Returns the error of an operation on the file, with SQLite's error as its source.
fn failed(path: &Path, verb: &str, error: impl Into<Arc<rusqlite::Error>>) -> Error {
    let error = error.into();
    let kind = match error.sqlite_error_code() {
        // An error without a code of its own means that a table or a column is missing.
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
