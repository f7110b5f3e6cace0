//! An outbox of a user's own, as the guide shows how to write one: lines of JSON in a file, with the
//! library's public interface alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mixpanel_groups::outbox::{Capacity, Depth, OutboxEntry};
use mixpanel_groups::{EncodedUpdate, Error, ErrorKind, Outbox, Rejection};

pub(crate) struct FileOutbox {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: Vec<Row>,
    next_id: i64,
    /// Rows up to this id are taken.
    taken: i64,
}

#[derive(Clone)]
struct Row {
    since: u64,
    entry: OutboxEntry,
}

impl FileOutbox {
    /// Opens the file, or begins with an empty one.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed("read", path, error)),
        };
        let mut state = State {
            next_id: 1,
            ..State::default()
        };
        for line in text.lines() {
            let (id, since, json) = serde_json::from_str::<(i64, u64, String)>(line)
                .map_err(|error| Error::new(ErrorKind::Damaged, "not a row").with_source(error))?;
            state.next_id = id + 1;
            if !json.is_empty() {
                let entry = OutboxEntry::read(id, &json);
                state.rows.push(Row { since, entry });
            }
        }
        let path = path.to_owned();
        let state = Mutex::new(state);
        Ok(Self { path, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the rows, and keeps the change only if the file could be written.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> Result<R, Error> {
        let mut state = self.state();
        let before = (state.rows.clone(), state.next_id);
        let result = change(&mut state);
        let row = |id, since, json: &str| serde_json::json!([id, since, json]).to_string() + "\n";
        let rows = state.rows.iter();
        let mut text: String = rows
            .map(|Row { since, entry }| row(entry.id, *since, entry.json()))
            .collect();
        // An id is not used twice, not even when nothing waits.
        text += &row(state.next_id - 1, 0, "");
        if let Err(error) = fs::write(&self.path, text) {
            (state.rows, state.next_id) = before;
            return Err(failed("write", &self.path, error));
        }
        Ok(result)
    }
}

fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    let message = format!("cannot {verb} the outbox {}", path.display());
    Error::new(ErrorKind::Io, message).with_source(error)
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

impl State {
    fn depth(&self) -> Depth {
        let bytes = self.rows.iter().map(|row| row.entry.json().len()).sum();
        // Not known if the clock was set back.
        let oldest = self.rows.first();
        let oldest = oldest.and_then(|row| now().checked_sub(row.since));
        Depth::new(self.rows.len(), bytes).with_oldest(oldest.map(Duration::from_millis))
    }
}

impl Outbox for FileOutbox {
    fn append(&self, updates: &[EncodedUpdate], capacity: Capacity) -> Result<bool, Error> {
        let bytes = updates.iter().map(EncodedUpdate::len).sum();
        if !self
            .state()
            .depth()
            .has_room(updates.len(), bytes, capacity)
        {
            return Ok(false);
        }
        self.change(|state| {
            for update in updates {
                let entry = OutboxEntry::new(state.next_id, update.clone());
                state.next_id += 1;
                state.rows.push(Row {
                    since: now(),
                    entry,
                });
            }
        })?;
        Ok(true)
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry>, Error> {
        let mut state = self.state();
        let rows = state.rows.iter().take(most);
        let entries: Vec<_> = rows.map(|row| row.entry.clone()).collect();
        state.taken = entries.last().map_or(0, |entry| entry.id);
        Ok(entries)
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        self.change(|state| {
            let is_settled = |id| accepted.contains(&id) || rejected.iter().any(|row| row.0 == id);
            state.rows.retain(|row| !is_settled(row.entry.id));
        })
    }

    fn release(&self) -> Result<(), Error> {
        self.state().taken = 0;
        Ok(())
    }

    fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<usize, Error> {
        self.change(|state| {
            let before = state.rows.len();
            while !state.depth().has_room(updates, bytes, capacity) {
                let taken = state.taken;
                let oldest = state.rows.iter().position(|row| row.entry.id > taken);
                let Some(oldest) = oldest else { break };
                state.rows.remove(oldest);
            }
            before - state.rows.len()
        })
    }

    fn depth(&self) -> Result<Depth, Error> {
        Ok(self.state().depth())
    }
}
