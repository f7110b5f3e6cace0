use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, mem};

use rusqlite::{Connection, Transaction, params};

use crate::appender::{Append, Appender};
use crate::durability::Durability;
use crate::failure::Failure;
use crate::file::{self, OutboxFile, insert, now, patiently};
use crate::group_commit::{GroupCommit, NotWritten};
use crate::lease::Lease;
use crate::opened::Opened;
use crate::relay::Relay;
use crate::schema::{self, Tables, VERSION};
use mixpanel_groups::Outbox;
use mixpanel_groups::outbox::{Capacity, Depth, OutboxEntry, OutboxRecord};
use mixpanel_groups::record::{EncodedEvent, EncodedRecord, IntoRecord, IntoRecords};
use mixpanel_groups::{EncodedUpdate, Error, ErrorKind, Rejection};

/// An outbox in an SQLite file: updates and events that wait in it survive a crash of the process or the machine.
///
/// Any number of threads and processes may publish to one file. One process at a time sends: it holds a lease, a
/// row of the file with a time, and `take` returns nothing while another process holds it. A process that ends gives
/// it up at once. After one that was killed, another sends at once, or, if that one had taken updates, after the time that
/// a call may take, or, if it was sending, as soon as no request of it can be under way any more: after the client's
/// [timeout](mixpanel_groups::ClientBuilder::timeout) and at most five seconds, or after an hour if that is longer. So
/// updates of one group do not overtake each other, unless a request takes more than an hour, or Mixpanel applies one after
/// its client gave it up. All processes must be on one machine: the lease goes by its clock. If that is set forward, or back
/// by more than ten seconds, while a request is under way, another process may send before the request has ended.
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
/// ([`SCHEMA`](Self::SCHEMA)) can be read and changed in plain SQL; triggers keep the counts right. After
/// `INSERT OR REPLACE`, for which SQLite runs no trigger, they are put right as soon as nothing waits.
/// ```sh
/// sqlite3 outbox.db "SELECT * FROM mixpanel_outbox_rejected"
/// # Try them once more:
/// sqlite3 outbox.db "BEGIN; INSERT INTO mixpanel_outbox (body) SELECT body FROM mixpanel_outbox_rejected ORDER BY rowid;
///                    DELETE FROM mixpanel_outbox_rejected; COMMIT"
/// ```
/// They are sent after newer updates of the same groups, so they may set older values: select those that you mean, with a
/// `WHERE` in both statements.
///
/// A row that is not an update, because it was changed by hand, is rejected too: counted, reported and kept there.
/// Events have tables of their own, `mixpanel_outbox_event` and `mixpanel_outbox_event_rejected`, and a lease of their
/// own: another process may be sending them.
///
/// In a database that your application has created with `PRAGMA encoding = 'UTF-16'`, the bytes that count for the capacity
/// and for [`queued_bytes`](mixpanel_groups::buffered::Stats::queued_bytes) are those of UTF-16: about twice those of the JSON.
///
/// The file is in [WAL mode](https://www.sqlite.org/wal.html), so it cannot be on a network file
/// system. Beside it are others, whose names end with `-wal`, `-shm` and `-reserve`: in a container, mount the folder. If only
/// the file is mounted, what was published last is lost with the container, and two containers damage the file. It does not
/// shrink: SQLite reuses the space of removed rows.
///
/// # Speed and deadlines
/// Threads that publish at the same time share one transaction, and with it one wait for the disk.
/// [`Durability`] chooses between speed and safety. Every method waits for another connection that writes to the file for
/// 5 seconds, or for the client's [`outbox_timeout`](mixpanel_groups::buffered::BufferedClientBuilder::outbox_timeout), and
/// then fails with [`ErrorKind::Timeout`]; `depth` does not wait.
///
/// # Beside an application's own transactions
/// SQLite lets one transaction write at a time. The sender writes twice a flush interval while updates wait, each
/// time briefly and without waiting for the disk; otherwise it only reads. Give your connections a
/// [busy timeout](rusqlite::Connection::busy_timeout); Diesel, for example, sets none. Begin transactions that write with
/// `BEGIN IMMEDIATE`: one that reads first and writes later fails if another has written in between, whatever its busy
/// timeout. A longer [`flush_interval`](mixpanel_groups::buffered::BufferedClientBuilder::flush_interval) also makes
/// such conflicts rarer.
///
/// # What happens to disks and files
/// - **A full disk or quota**: publishing fails, and what waits is still sent. For this, 8 MiB are kept in a file beside the outbox
///   whose name ends with `-reserve`, or half of what is free if that is less. It is empty while they are in use; to fill it,
///   twice as much must be free for a moment. Until they are back, updates are accepted only as far as the database has free
///   pages. If less than 128 KiB are free when the outbox is opened, nothing is kept, and nothing is sent while the disk is
///   full; a warning in the log says so. Set a
///   [`capacity`](mixpanel_groups::buffered::BufferedClientBuilder::capacity) that is reached before: what waits takes up to
///   twice the bytes of its JSON on the disk. If what is kept does not suffice to remove all that one delivery has sent, the
///   rest of it is sent once more. Then [`stats`](mixpanel_groups::BufferedClient::stats) does not count what was removed, and
///   [`on_error`](mixpanel_groups::buffered::BufferedClientBuilder::on_error) does not get what was moved to `…_rejected`.
/// - **A disk that your own transactions fill**: no capacity holds them back. What they have published is sent too, unless
///   one of them has written more than is kept, or a long one that reads has kept the log from being emptied meanwhile: nothing
///   is sent then until so much is free. Afterwards SQLite's log has little room to grow, so little can be published at a time,
///   unless you set `PRAGMA wal_autocheckpoint = 100` on your connections.
/// - **A file that was removed or replaced**: publishing fails. What waits in the open file is sent while the process
///   lives. What other processes publish to a new file of that name is not: once nothing is left in the open one,
///   [`on_error`](mixpanel_groups::buffered::BufferedClientBuilder::on_error) and the log say so, until the outbox is opened
///   again. Where the new file was put beside the `-wal` and `-shm` of the old one, nothing more is sent, since to write
///   there would damage it. To restore a backup, end all processes that have the file open, and remove those two with it.
///   (On Windows a file in use cannot be removed.)
/// - **A damaged page**: the table of waiting updates is renamed to `mixpanel_outbox_damaged_` and a number, and what can be
///   read of it is copied to a new one; an error of the kind [`ErrorKind::Damaged`] says so. Damage elsewhere makes publishing
///   fail, and the error says how to copy what can be read to a new file. (That does not copy `PRAGMA user_version`, which
///   your application may use.)
///
/// # Forks
/// A fork may not use the connections of its parent, nor open what its parent had open: SQLite's locks are those of one
/// process. Both are [`ErrorKind::Closed`]. Open the outbox in the children alone, and close connections of your own to the
/// file before the fork.
///
/// # Several processes and dropping the oldest
/// A process knows only what it took itself. If it drops the oldest updates to make room, they may be
/// among those that another process is sending. Where more waits than twice its capacity, others have a larger one, or
/// publish in transactions: then it drops nothing, and publishing returns [`ErrorKind::Full`].
pub struct SqliteOutbox<R: OutboxRecord = EncodedUpdate> {
    path: PathBuf,
    file: Arc<OutboxFile>,
    connections: Arc<Connections<R>>,
    /// Beside updates.
    events: Option<Arc<SqliteOutbox<EncodedEvent>>>,
}

struct Connections<R> {
    appender: GroupCommit<Appender, Append<R>, Result<bool, Failure>>,
    relay: Mutex<Relay>,
    reader: Mutex<Connection>,
    opened: Opened,
}

impl SqliteOutbox {
    /// The tables as SQL, which [`open`](Self::open) runs if they are missing.
    pub const SCHEMA: &'static str = schema::SCHEMA;

    /// Opens the file, or creates it if it does not exist. Published updates survive power loss
    /// ([`Durability::Full`]).
    ///
    /// # Errors
    /// - [`ErrorKind::Config`] if the path is empty or `:memory:`, with which SQLite keeps nothing: a
    ///   [`MemoryOutbox`](mixpanel_groups::outbox::MemoryOutbox) is for that. Also if it contains a NUL byte, is a folder or a
    ///   device, or begins with `file:`, which is a URI to SQLite.
    /// - [`ErrorKind::Io`] if the file cannot be read and written.
    /// - [`ErrorKind::Closed`] if this process is a fork of one that had it open at the fork.
    /// - [`ErrorKind::Timeout`] if another connection writes to it for 5 seconds.
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
        let (reader, resolved, opened) = file::open(path, "outbox")?;
        Self::set_up(path, &resolved, (reader, opened), durability)
            .map_err(|failure| failure.of(path, "open"))
    }

    fn set_up(
        path: &Path,
        resolved: &Path,
        (reader, opened): (Connection, Opened),
        durability: Durability,
    ) -> Result<Self, Failure> {
        let other = file::version(&reader)?.filter(|version| *version != VERSION);
        if let Some(other) = other {
            return Err(Failure::OtherVersion(other));
        }
        file::create_tables_in(&reader, resolved)?;
        let second = (file::connect(resolved)?, Opened::of(resolved));
        let file = |tables| Arc::new(OutboxFile::of(resolved.to_owned(), tables));
        let events = SqliteOutbox::queue(path, file(Tables::Events), durability, second, None)?;
        let events = Some(Arc::new(events));
        let first = (reader, opened);
        Self::queue(path, file(Tables::Updates), durability, first, events)
    }

    /// Publishes an update or an event in a transaction of your own: it takes effect when the transaction commits,
    /// together with your rows. An update without properties is left out.
    ///
    /// The transaction must be on the outbox's file, in which [`open`](Self::open) or
    /// [`SCHEMA`](Self::SCHEMA) has created the tables. SQLite lets one transaction write at a time, so
    /// yours should write before it reads, or be
    /// [immediate](rusqlite::TransactionBehavior::Immediate). No capacity applies.
    ///
    /// [`before_send`](mixpanel_groups::buffered::BufferedClientBuilder::before_send) is not called: apply privacy rules before
    /// you publish.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidUpdate`] if it cannot be sent.
    /// - [`ErrorKind::Timeout`] if another connection writes, or has written since your transaction began to read. In the latter
    ///   case, it fails again in this transaction: roll back, and repeat the whole of it.
    /// - [`ErrorKind::Io`] or [`ErrorKind::Damaged`] if it cannot be written for another reason.
    ///
    /// The transaction stays open in either case, for you to commit or roll back.
    ///
    /// ```
    /// use mixpanel_groups::Group;
    /// use mixpanel_groups_sqlite::SqliteOutbox;
    /// use serde_json::json;
    ///
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
    pub fn publish_in(transaction: &Transaction<'_>, record: impl IntoRecord) -> Result<(), Error> {
        Self::publish_all_in(transaction, [record]).map(drop)
    }

    /// Publishes many updates or events as part of your transaction, such as `company.updates()`. Returns how many were
    /// published; empty ones are left out. As with [`publish_in`](Self::publish_in), `before_send` is not called.
    ///
    /// # Errors
    /// As [`publish_in`](Self::publish_in). If one of them cannot be sent, none is published. If one cannot be written, roll
    /// the transaction back, since those before it are in it.
    ///
    /// ```
    /// use mixpanel_groups::{Group, Outbox};
    /// use mixpanel_groups_sqlite::SqliteOutbox;
    /// use serde_json::json;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("shop.db");
    /// # let mut db = rusqlite::Connection::open(&path)?;
    /// let outbox = SqliteOutbox::open(&path)?;
    ///
    /// let transaction = db.transaction()?;
    /// let acme = Group::new("company", "acme");
    /// let updates = [acme.set(json!({"plan": "pro"})), acme.unset(["trial"])];
    /// assert_eq!(SqliteOutbox::publish_all_in(&transaction, updates)?, 2);
    ///
    /// let wrong = [acme.delete(), Group::new("company", "").delete()];
    /// assert!(SqliteOutbox::publish_all_in(&transaction, wrong).is_err());
    /// transaction.commit()?;
    /// assert_eq!(outbox.depth()?.updates, 2); // none of those with a wrong one
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_all_in(
        transaction: &Transaction<'_>,
        records: impl IntoRecords,
    ) -> Result<usize, Error> {
        let encoded = records.into_records().map(IntoRecord::into_record);
        let encoded: Result<Vec<_>, _> = encoded.filter_map(Result::transpose).collect();
        let encoded = encoded?;
        let insert_all = || {
            for record in &encoded {
                let tables = match record {
                    EncodedRecord::Event(_) => Tables::Events,
                    _ => Tables::Updates,
                };
                let mut insert = insert(transaction, tables)?;
                insert.execute(params![now(transaction)?, record.as_json()])?;
            }
            Ok(encoded.len())
        };
        let path = || Path::new(transaction.path().unwrap_or_default());
        insert_all().map_err(|error: rusqlite::Error| Failure::from(error).of(path(), "write to"))
    }
}

impl<R: OutboxRecord> Outbox<R> for SqliteOutbox<R> {
    fn append(&self, updates: &[R], capacity: Capacity) -> Result<bool, Error> {
        let append = Append {
            updates: updates.to_vec(),
            capacity,
        };
        let deadline = self.file.deadline();
        let write = |appender: &mut Appender, take: &mut dyn FnMut() -> Vec<Append<R>>| {
            appender.append_all(deadline, take).map_err(Err)
        };
        let written = match self
            .connections("write to")?
            .appender
            .join(append, deadline, write)
        {
            Ok(written) => written,
            Err(NotWritten::TimedOut) => Err(Failure::Busy),
            Err(NotWritten::Panicked) => {
                let path = self.path.display();
                let message =
                    format!("cannot write to the outbox {path}: the writing thread panicked");
                return Err(Error::new(ErrorKind::Io, message));
            }
        };
        written.map_err(|failure| self.failed("write to", failure))
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry<R>>, Error> {
        let rows = self.relay("take from")?.take(most);
        let rows = rows.map_err(|failure| self.failed("take from", failure))?;
        let entries = rows.into_iter().map(|(id, json)| match json {
            Ok(json) => OutboxEntry::read(id, &json),
            Err(rusqlite::Error::InvalidColumnType(..)) => {
                OutboxEntry::unreadable(id, "", "the body is a BLOB, not text")
            }
            Err(_) => OutboxEntry::unreadable(id, "", "the body is not valid UTF-8"),
        });
        Ok(entries.collect())
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        let settled = self.relay("remove from")?.settle(accepted, rejected);
        settled.map_err(|failure| self.failed("remove from", failure))
    }

    fn hold(&self, time: Duration) -> Result<bool, Error> {
        let held = self.relay("write to")?.hold(time);
        held.map_err(|failure| self.failed("write to", failure))
    }

    fn release(&self) -> Result<(), Error> {
        let released = self.relay("write to")?.release();
        released.map_err(|failure| self.failed("write to", failure))
    }

    fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<usize, Error> {
        let deadline = self.file.deadline();
        let dropped = match self.connections("remove from")?.appender.lead(deadline) {
            Some(appender) => appender.drop_oldest(updates, bytes, capacity, deadline),
            None => Err(Failure::Busy),
        };
        dropped.map_err(|failure| self.failed("remove from", failure))
    }

    /// Does not wait for writers.
    fn depth(&self) -> Result<Depth, Error> {
        let reader = &self.connections("read")?.reader;
        let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
        let depth = patiently(self.file.deadline(), || {
            file::depth(&reader, self.file.tables)
        });
        let checked = match &depth {
            Ok(depth) if depth.updates > 0 => self.file.check_log(),
            Ok(_) => self.file.check_replaced(),
            Err(_) => self.file.check(),
        };
        let depth = match checked {
            Err(replaced @ Failure::Replaced) => Err(replaced),
            _ => depth.map_err(Failure::from),
        };
        depth.map_err(|failure| self.failed("read", failure))
    }

    fn events(&self) -> Option<Arc<dyn Outbox<EncodedEvent>>> {
        let events = self.events.as_ref()?;
        Some(Arc::clone(events) as Arc<dyn Outbox<EncodedEvent>>)
    }

    fn set_timeout(&self, timeout: Duration) -> bool {
        self.file.set_timeout(timeout);
        true
    }
}

/// Lets another process send at once, unless the file is busy: that one need not wait long either.
impl<R: OutboxRecord> Drop for SqliteOutbox<R> {
    fn drop(&mut self) {
        if self.connections.opened.is_inherited() {
            // They are the parent's, and so is the lease: they stay open as long as this process lives.
            return mem::forget(Arc::clone(&self.connections));
        }
        self.file.set_timeout(Duration::from_millis(100));
        if let Err(error) = self.release() {
            log::warn!(
                "cannot release the lease, so another process waits until it ends: {error:#}"
            );
        }
    }
}

impl<R: OutboxRecord> SqliteOutbox<R> {
    /// Opens one queue of the file.
    fn queue(
        path: &Path,
        file: Arc<OutboxFile>,
        durability: Durability,
        (reader, opened): (Connection, Opened),
        events: Option<Arc<SqliteOutbox<EncodedEvent>>>,
    ) -> Result<Self, Failure> {
        let connect = |durability| {
            let db = file::connect(&file.path)?;
            file::set_up(&db, durability, file.reserve.log_bytes())?;
            file::open_files(&db).map(|()| db)
        };
        file::open_files(&reader)?;
        let appender = Appender {
            db: connect(durability)?,
            file: Arc::clone(&file),
        };
        let relay = Relay {
            // What is removed and comes back after a power loss is sent once more, in the same order. So it does not
            // wait for the disk, and others wait less for it.
            db: connect(Durability::Normal)?,
            file: Arc::clone(&file),
            lease: Lease::new(file.tables),
            refilled: None,
            logged: None,
            unreported: None,
        };
        let connections = Connections {
            appender: GroupCommit::new(appender),
            relay: Mutex::new(relay),
            reader: Mutex::new(reader),
            opened,
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            connections: Arc::new(connections),
            events,
        })
    }

    fn connections(&self, verb: &str) -> Result<&Connections<R>, Error> {
        if self.connections.opened.is_inherited() {
            return Err(self.failed(verb, Failure::Forked));
        }
        Ok(&self.connections)
    }

    fn relay(&self, verb: &str) -> Result<MutexGuard<'_, Relay>, Error> {
        let relay = self.connections(verb)?.relay.lock();
        Ok(relay.unwrap_or_else(PoisonError::into_inner))
    }

    fn failed(&self, verb: &str, failure: Failure) -> Error {
        failure.of(&self.path, verb)
    }
}

impl<R: OutboxRecord> fmt::Debug for SqliteOutbox<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOutbox")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
