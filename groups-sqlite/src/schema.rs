//! The tables, once for updates and once for events.

use std::borrow::Cow;

use rusqlite::{CachedStatement, Connection};

/// The version of the tables.
pub(crate) const VERSION: i64 = 3;

macro_rules! schema {
    ($outbox:literal, $what:literal, $body:literal) => {
        concat!(
            "-- ", $what, " that wait to be sent to Mixpanel, the oldest first. A row is removed when Mixpanel has replied.\n",
            "CREATE TABLE ", $outbox, " (\n",
            "    id    INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice\n",
            "    since TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),\n",
            "    body  TEXT NOT NULL                      -- ", $body, "\n",
            ");\n",
            "\n",
            "-- ", $what, " that were refused, for a person to inspect. The newest 100,000 are kept.\n",
            "CREATE TABLE ", $outbox, "_rejected (\n",
            "    id          INTEGER NOT NULL, -- id, since and body are copied from ", $outbox, "\n",
            "    since       TEXT NOT NULL,\n",
            "    rejected_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),\n",
            "    field       TEXT,             -- the invalid property, if it is known\n",
            "    message     TEXT NOT NULL,    -- the reason, in Mixpanel's words\n",
            "    body        TEXT NOT NULL\n",
            ");\n",
            "\n",
            "-- The version of these tables, and how much ", $outbox, " holds. Triggers count every change of it.\n",
            "CREATE TABLE ", $outbox, "_state (\n",
            "    version INTEGER NOT NULL,\n",
            "    updates INTEGER NOT NULL,\n",
            "    bytes   INTEGER NOT NULL\n",
            ");\n",
            "INSERT INTO ", $outbox, "_state VALUES (3, 0, 0);\n",
            "\n",
            "-- Who may send what waits, and until when; no row if nobody does. Seconds since the Unix epoch.\n",
            "CREATE TABLE ", $outbox, "_lease (\n",
            "    holder TEXT NOT NULL,\n",
            "    since  REAL NOT NULL,\n",
            "    until  REAL NOT NULL\n",
            ");\n",
            "\n",
            "CREATE TRIGGER ", $outbox, "_inserted AFTER INSERT ON ", $outbox, " BEGIN\n",
            "    UPDATE ", $outbox, "_state\n",
            "    SET updates = updates + 1, bytes = bytes + length(CAST(new.body AS BLOB));\n",
            "END;\n",
            "\n",
            "CREATE TRIGGER ", $outbox, "_deleted AFTER DELETE ON ", $outbox, " BEGIN\n",
            "    UPDATE ", $outbox, "_state\n",
            "    SET updates = updates - 1, bytes = bytes - length(CAST(old.body AS BLOB));\n",
            "END;\n",
            "\n",
            "CREATE TRIGGER ", $outbox, "_updated AFTER UPDATE OF body ON ", $outbox, " BEGIN\n",
            "    UPDATE ", $outbox, "_state\n",
            "    SET bytes = bytes - length(CAST(old.body AS BLOB)) + length(CAST(new.body AS BLOB));\n",
            "END;\n",
        )
    };
}

pub(crate) const SCHEMA: &str = concat!(
    schema!("mixpanel_outbox", "Updates", "the update without its token"),
    "\n",
    schema!("mixpanel_outbox_event", "Events", "the event"),
);

/// Which of the two queues.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Tables {
    Updates,
    Events,
}

impl Tables {
    /// Returns a statement that is written for updates.
    pub(crate) fn sql(self, sql: &str) -> Cow<'_, str> {
        match self {
            Self::Updates => Cow::Borrowed(sql),
            Self::Events => Cow::Owned(sql.replace("mixpanel_outbox", "mixpanel_outbox_event")),
        }
    }

    /// Prepares a statement that is written for updates.
    pub(crate) fn prepare<'db>(
        self,
        db: &'db Connection,
        sql: &str,
    ) -> rusqlite::Result<CachedStatement<'db>> {
        db.prepare_cached(&self.sql(sql))
    }
}
