-- Updates that wait to be sent to Mixpanel, the oldest first. A row is removed when Mixpanel has replied.
CREATE TABLE mixpanel_outbox (
    id    INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice
    since TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    body  TEXT NOT NULL                      -- the update without its token
);

-- Updates that were refused, for a person to inspect. The newest 100,000 are kept.
CREATE TABLE mixpanel_outbox_rejected (
    id          INTEGER NOT NULL, -- id, since and body are copied from mixpanel_outbox
    since       TEXT NOT NULL,
    rejected_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    field       TEXT,             -- the invalid property, if it is known
    message     TEXT NOT NULL,    -- the reason, in Mixpanel's words
    body        TEXT NOT NULL
);

-- The version of these tables, and how much mixpanel_outbox holds. Triggers count every change of it.
CREATE TABLE mixpanel_outbox_state (
    version INTEGER NOT NULL,
    updates INTEGER NOT NULL,
    bytes   INTEGER NOT NULL
);
INSERT INTO mixpanel_outbox_state VALUES (2, 0, 0);

-- Who may send what waits, and until when; no row if nobody does. Seconds since the Unix epoch.
CREATE TABLE mixpanel_outbox_lease (
    holder TEXT NOT NULL,
    since  REAL NOT NULL,
    until  REAL NOT NULL
);

CREATE TRIGGER mixpanel_outbox_inserted AFTER INSERT ON mixpanel_outbox BEGIN
    UPDATE mixpanel_outbox_state
    SET updates = updates + 1, bytes = bytes + length(CAST(new.body AS BLOB));
END;

CREATE TRIGGER mixpanel_outbox_deleted AFTER DELETE ON mixpanel_outbox BEGIN
    UPDATE mixpanel_outbox_state
    SET updates = updates - 1, bytes = bytes - length(CAST(old.body AS BLOB));
END;

CREATE TRIGGER mixpanel_outbox_updated AFTER UPDATE OF body ON mixpanel_outbox BEGIN
    UPDATE mixpanel_outbox_state
    SET bytes = bytes - length(CAST(old.body AS BLOB)) + length(CAST(new.body AS BLOB));
END;
