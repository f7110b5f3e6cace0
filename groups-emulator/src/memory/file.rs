use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::memory::{AppliedUpdate, KnownGroup, Memory};
use mixpanel_groups::{Error, ErrorKind, Profile};

/// A file that holds the profiles, their history and the events.
pub(crate) struct MemoryFile {
    path: PathBuf,
    /// The version of the memory that the file holds.
    saved: Mutex<u64>,
}

impl MemoryFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            saved: Mutex::new(0),
        }
    }

    /// Reads the file. If there is none yet, the memory is empty.
    pub(crate) fn load(&self) -> Result<Memory, Error> {
        let json = match fs::read(&self.path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Memory::default()),
            Err(error) => return Err(self.failed("read", error)),
        };
        let damaged = || {
            let path = self.path.display();
            let message =
                format!("{path} is not a file of the emulator: move it, or keep another file");
            Error::new(ErrorKind::Damaged, message)
        };
        let state = serde_json::from_slice(&json).map_err(|error| damaged().with_source(error))?;
        from_json(state).ok_or_else(damaged)
    }

    /// Writes the file, unless it holds the same version already.
    pub(crate) fn save(&self, memory: &Mutex<Memory>) -> Result<(), Error> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let (version, state) = {
            let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            if memory.version == *saved {
                return Ok(());
            }
            (memory.version, to_json(&memory))
        };
        replace(&self.path, state.to_string().as_bytes())
            .map_err(|error| self.failed("write", error))?;
        *saved = version;
        Ok(())
    }

    fn failed(&self, verb: &str, error: io::Error) -> Error {
        let message = format!("cannot {verb} the emulator's file {}", self.path.display());
        Error::new(ErrorKind::Io, message).with_source(error)
    }
}

fn to_json(memory: &Memory) -> Value {
    let groups = memory.profiles.iter().map(|(key, id, group)| {
        let history: Vec<_> = group.history.iter().map(AppliedUpdate::to_json).collect();
        json!({"key": key, "id": id, "profile": group.profile, "history": history})
    });
    json!({
        "groups": groups.collect::<Vec<_>>(),
        "events": memory.events.iter().collect::<Vec<_>>(),
    })
}

fn from_json(mut state: Value) -> Option<Memory> {
    let mut memory = Memory::default();
    for mut group in take_list(&mut state, "groups")? {
        let text = |name: &str| Some(group.get(name)?.as_str()?.to_owned());
        let (key, id) = (text("key")?, text("id")?);
        let profile = match group.get_mut("profile")?.take() {
            Value::Null => Profile::default(),
            Value::Object(properties) => properties.into_iter().collect(),
            _ => return None,
        };
        let history = take_list(&mut group, "history")?;
        let history = history.into_iter().map(AppliedUpdate::from_json);
        *memory.profiles.group(key, id) = KnownGroup {
            profile,
            history: history.collect::<Option<_>>()?,
        };
    }
    for event in take_list(&mut state, "events")? {
        memory.events.push(event);
    }
    Some(memory)
}

fn take_list(value: &mut Value, name: &str) -> Option<Vec<Value>> {
    match value.get_mut(name)?.take() {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// Replaces the file in one step: readers see the old content or the new, never a part.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
