use std::fs::{self, OpenOptions};
use std::io::{self, Seek as _, Write as _};
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::memory::lock::{FileLock, InUse, target};
use crate::memory::{KnownGroup, Memory};
use crate::updates::AppliedUpdate;
use mixpanel_groups::{Error, ErrorKind, Profile};

/// The most groups that are copied under one lock.
const GROUPS_AT_ONCE: usize = 500;

/// A file that holds the profiles, their history and the events.
pub(crate) struct MemoryFile {
    path: PathBuf,
    /// The version of the memory that the file holds.
    saved: Mutex<u64>,
    /// Released after the last save.
    _lock: Option<FileLock>,
}

impl MemoryFile {
    /// Locks the file. Another emulator would overwrite it.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Error> {
        let lock = FileLock::beside(&path).map_err(|InUse| {
            let path = path.display();
            let message = format!(
                "{path} is in use by another emulator: stop that one, or keep another file"
            );
            Error::new(ErrorKind::Io, message)
        })?;
        Ok(Self {
            path,
            saved: Mutex::new(0),
            _lock: lock,
        })
    }

    /// Reads the file. If there is none yet, it makes an empty one, so that a path that cannot be written is known at once. Of
    /// an empty one, as it is also made to be mounted, the memory is empty.
    pub(crate) fn load(&self) -> Result<Memory, Error> {
        let json = match fs::read(&self.path) {
            Ok(json) if json.is_empty() => return Ok(Memory::new()),
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                replace(&self.path, b"").map_err(|error| self.failed("write", error))?;
                return Ok(Memory::new());
            }
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
        let lock = || memory.lock().unwrap_or_else(PoisonError::into_inner);
        let (version, events) = {
            let memory = lock();
            if memory.saved_version == *saved {
                return Ok(());
            }
            (memory.saved_version, memory.events.all())
        };
        // What changes meanwhile makes another version, and is saved the next time.
        let mut groups = Vec::new();
        loop {
            let part = lock().profiles.slice(groups.len(), GROUPS_AT_ONCE).to_vec();
            if part.is_empty() {
                break;
            }
            groups.extend(part.iter().map(group_to_json));
        }
        let state = json!({
            "groups": groups,
            "events": events.iter().map(|event| &**event).collect::<Vec<_>>(),
        });
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

fn group_to_json(group: &KnownGroup) -> Value {
    let history: Vec<_> = group
        .history
        .iter()
        .map(|update| update.to_json())
        .collect();
    json!({
        "key": *group.key,
        "id": *group.id,
        "profile": *group.profile,
        "existed": group.existed,
        "history": history,
    })
}

fn from_json(mut state: Value) -> Option<Memory> {
    let mut memory = Memory::new();
    let mut groups = Vec::new();
    for mut group in take_list(&mut state, "groups")? {
        let text = |name: &str| Some(group.get(name)?.as_str()?.to_owned());
        let name = (text("key")?, text("id")?);
        let profile = match group.get_mut("profile")?.take() {
            Value::Null => Profile::default(),
            Value::Object(properties) => properties.into_iter().collect(),
            _ => return None,
        };
        // An earlier version wrote no such member.
        let existed = group["existed"] != false;
        let history = take_list(&mut group, "history")?.into_iter();
        let history = history.map(AppliedUpdate::from_json);
        let history = history.collect::<Option<Vec<_>>>()?;
        groups.push((name, profile, existed, history));
    }
    // Versions have the order in which the groups were last changed.
    groups.sort_by_key(|(.., history)| history.last().map(|update| update.at));
    for (name, profile, existed, mut history) in groups {
        for update in &mut history {
            update.version = memory.next_version();
        }
        memory.profiles.restore(name, profile, existed, history);
    }
    for event in take_list(&mut state, "events")? {
        let version = memory.next_version();
        memory.events.push(event, version);
    }
    memory.saved_version = 0;
    Some(memory)
}

fn take_list(value: &mut Value, name: &str) -> Option<Vec<Value>> {
    match value.get_mut(name)?.take() {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// Replaces the file in one step: readers see the old content or the new, never a part. Mode and symbolic links stay.
///
/// Where another file cannot take its place, as that of a file that is mounted into a container, it is written in place.
/// So it is in a folder that cannot be written.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = &target(path);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut new = tempfile::Builder::new();
    #[cfg(unix)]
    new.permissions(PermissionsExt::from_mode(0o666)); // Less the process's mask, as of other files.
    let mut file = match new.tempfile_in(folder.unwrap_or(Path::new("."))) {
        Ok(file) => file,
        Err(error) if path.is_file() && is_refused(&error) => return write_in_place(path, content),
        Err(error) => return Err(error),
    };
    if let Ok(old) = fs::metadata(path) {
        file.as_file().set_permissions(old.permissions())?;
    }
    file.write_all(content)?;
    file.as_file().sync_all()?;
    let Err(refused) = file.persist(path) else {
        return Ok(());
    };
    if path.is_file() {
        return write_in_place(path, content);
    }
    Err(refused.error)
}

/// Returns whether the folder cannot be written, unlike with a full disk, where half a file would be written.
fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem)
}

/// Writes over the file. Where that fails, as with a full disk, it writes the old content back, which takes no more room.
fn write_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let old = fs::read(path)?;
    let file = OpenOptions::new().write(true).open(path)?;
    let write = |content: &[u8]| {
        let mut file = &file;
        file.rewind()?;
        file.write_all(content)?;
        file.set_len(content.len() as u64)?;
        file.sync_all()
    };
    write(content).inspect_err(|_| {
        // An error of this would hide the cause.
        let _ = write(&old);
    })
}
