//! The file of a [`Snapshot`](crate::Snapshot): lines of JSON, a checksum at the end.
//!
//! ```text
//! {"key":"…","mixpanel-groups snapshot":1}
//! ["company","acme",null,{"plan":"6f3c0d41b2a29e55…","founding_year":null,"tags":["a","b"]}]
//! {"groups":1,"checksum":"…"}
//! ```
//! A group is its key, its id, its company's id and its properties. A property is the hash of its
//! value, `null` where it was set once, a list's items, or an object with the items that may be
//! there (`null` if it may be any value). The key of the hashes is random, so that nobody can make two values that
//! have the same hash.
//!
//! While a run is under way there is a file `….unfinished` beside it, with a line for each group that is about to be
//! sent. A later run that finds it knows that the run was killed. `….lock` is locked while a snapshot is open.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::known::{GroupName, Known, Trace, uncertain};
use crate::record::{Error, ErrorKind};
use crate::util::atomic_file::{self, beside};
use crate::util::siphash::HashKey;

const FORMAT: &str = "mixpanel-groups snapshot";
const VERSION: u64 = 1;
const UNCERTAIN: &str = "uncertain";

/// What a file holds: the key of its hashes, and the groups.
pub(super) type Content = (HashKey, HashMap<GroupName, Known>);

/// Returns the file that a path means: a symbolic link is followed, so that it is not replaced.
pub(super) fn resolve(path: PathBuf) -> PathBuf {
    fs::canonicalize(&path).unwrap_or(path)
}

/// A snapshot is in use until this is dropped or the process ends.
pub(super) struct Lock(File);

impl Drop for Lock {
    /// A child process that is just being started shares the open file, so closing it would not unlock it.
    fn drop(&mut self) {
        // An error would leave the lock to the end of the process: the next run says so.
        let _ = fs4::FileExt::unlock(&self.0);
    }
}

/// Locks the snapshot.
pub(super) fn lock(path: &Path) -> Result<Lock, Error> {
    let lock = beside(path, "lock").map_err(|error| io_error("use", path, error))?;
    let file = File::create(&lock).map_err(|error| io_error("lock", path, error))?;
    match fs4::FileExt::try_lock(&file) {
        Ok(()) => Ok(Lock(file)),
        Err(fs4::TryLockError::WouldBlock) => {
            let message = format!(
                "the snapshot {} is in use by another run: wait for its end",
                path.display()
            );
            Err(Error::new(ErrorKind::Io, message))
        }
        Err(fs4::TryLockError::Error(error)) => Err(io_error("lock", path, error)),
    }
}

/// Reads the file; there are no groups if there is no such file. What a killed run had begun is uncertain.
pub(super) fn load(path: &Path) -> Result<Content, Error> {
    let (key, mut groups) = load_saved(path)?;
    let note = unfinished(path)?;
    if let Some(begun) = read(&note)? {
        log::warn!(
            "a run with the snapshot {} was killed: all is sent again",
            path.display()
        );
        for known in groups.values_mut() {
            *known = uncertain(Some(known), None);
        }
        // A line without an end was not written whole, so nothing of it was sent.
        for line in begun
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            let (name, after) =
                parse_group(line).ok_or_else(|| damaged(&note, "a line of it is wrong"))?;
            let known = uncertain(groups.get(&name), Some(&after));
            groups.insert(name, known);
        }
    }
    Ok((key, groups))
}

fn load_saved(path: &Path) -> Result<Content, Error> {
    // An empty file is how one is made for a container to mount.
    let Some(text) = read(path)?.filter(|text| !text.is_empty()) else {
        return Ok((HashKey::random(), HashMap::new()));
    };
    parse(&text).or_else(|why| {
        // A run that was killed while it wrote the file in place has left the content beside it.
        let other = beside(path, "tmp")
            .ok()
            .and_then(|other| fs::read_to_string(other).ok());
        let other = other.and_then(|text| parse(&text).ok());
        other.ok_or_else(|| damaged(path, &why))
    })
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(damaged(path, "it is not text"))
        }
        Err(error) => Err(io_error("read", path, error)),
    }
}

/// Returns the path of the file that exists while a run is under way.
fn unfinished(path: &Path) -> Result<PathBuf, Error> {
    beside(path, "unfinished").map_err(|error| io_error("use", path, error))
}

/// Returns whether a run was begun and not ended: it was killed, or its caller's iterator panicked.
pub(super) fn is_unfinished(path: &Path) -> Result<bool, Error> {
    Ok(unfinished(path)?.exists())
}

/// The file that says what a run is about to send.
pub(super) struct Note {
    path: PathBuf,
    file: File,
}

/// Notes that a run is under way, and finds out whether the snapshot can be written.
pub(super) fn begin(path: &Path) -> Result<Note, Error> {
    match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("write", path, error));
        }
        _ => {}
    }
    let note = unfinished(path)?;
    let file = File::create(&note).and_then(|file| file.sync_all().map(|()| file));
    match file {
        Ok(file) => Ok(Note { path: note, file }),
        Err(error) => Err(io_error("write", &note, error)),
    }
}

impl Note {
    /// Notes what a group will be when its updates are accepted. A process that is killed afterwards has noted it.
    pub(super) fn add(&mut self, name: &GroupName, known: &Known) -> Result<(), Error> {
        let line = render_group(name, known);
        line.and_then(|line| self.file.write_all(line.as_bytes()))
            .map_err(|error| io_error("write", &self.path, error))
    }
}

/// Notes that the run is over and saved.
pub(super) fn end(path: &Path) -> Result<(), Error> {
    let note = unfinished(path)?;
    fs::remove_file(&note).map_err(|error| io_error("remove", &note, error))
}

fn damaged(path: &Path, why: &str) -> Error {
    let path = path.display();
    let message = format!(
        "the snapshot {path} cannot be used, and is left as it is: {why}; restore it, or move it away to send all anew"
    );
    Error::new(ErrorKind::Damaged, message)
}

fn io_error(verb: &str, path: &Path, error: io::Error) -> Error {
    let message = format!("cannot {verb} the snapshot {}", path.display());
    Error::new(ErrorKind::Io, message).with_source(error)
}

fn parse(text: &str) -> Result<Content, String> {
    let (head, rest) = text.split_once('\n').ok_or("it has no first line")?;
    let head: Value = serde_json::from_str(head).unwrap_or_default();
    match head.get(FORMAT).and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(newer) => {
            return Err(format!(
                "it is of version {newer}, and this library reads {VERSION}"
            ));
        }
        None => return Err("it is no snapshot".to_owned()),
    }
    let key = head["key"].as_str().and_then(|key| key.parse().ok());
    let key: HashKey = key.ok_or("its first line is wrong")?;
    let cut = || "it does not end as it should".to_owned();
    let end = rest
        .trim_end_matches('\n')
        .rfind('\n')
        .map_or(0, |at| at + 1);
    let (lines, last) = rest.split_at(end);
    let last: Value = serde_json::from_str(last).map_err(|_| cut())?;
    if last["checksum"] != checksum(key, lines) {
        return Err("its checksum is wrong".to_owned());
    }
    let groups: HashMap<_, _> = lines
        .lines()
        .enumerate()
        .map(|(number, line)| parse_group(line).ok_or(format!("line {} is wrong", number + 2)))
        .collect::<Result<_, _>>()?;
    if last["groups"] != groups.len() {
        return Err(cut());
    }
    Ok((key, groups))
}

fn checksum(key: HashKey, lines: &str) -> String {
    format!("{:032x}", key.hash(lines))
}

fn parse_group(line: &str) -> Option<(GroupName, Known)> {
    type Group<'a> = (
        String,
        String,
        Option<String>,
        BTreeMap<String, &'a RawValue>,
    );
    let (key, id, company_id, traces): Group<'_> = serde_json::from_str(line).ok()?;
    let traces = traces.into_iter().map(|(name, trace)| {
        let json = trace.get();
        let trace = match json.as_bytes().first()? {
            b'n' => Trace::Once,
            b'"' => Trace::Value(u128::from_str_radix(json.trim_matches('"'), 16).ok()?),
            b'[' => Trace::List(json.to_owned()),
            _ => {
                let uncertain: BTreeMap<&str, &RawValue> = serde_json::from_str(json).ok()?;
                let items = uncertain.get(UNCERTAIN)?.get();
                Trace::Uncertain(items.starts_with('[').then(|| items.to_owned()))
            }
        };
        Some((name, trace))
    });
    let known = Known {
        company_id,
        traces: traces.collect::<Option<_>>()?,
    };
    Some(((key, id), known))
}

pub(super) fn save(
    path: &Path,
    key: HashKey,
    groups: &HashMap<GroupName, Known>,
) -> Result<(), Error> {
    render(key, groups)
        .and_then(|text| atomic_file::write(path, text.as_bytes()))
        .map_err(|error| io_error("write", path, error))
}

fn render(key: HashKey, groups: &HashMap<GroupName, Known>) -> io::Result<String> {
    let mut names: Vec<_> = groups.keys().collect();
    names.sort();
    let mut lines = String::new();
    for name in names {
        lines += &render_group(name, &groups[name])?;
    }
    let head = json!({FORMAT: VERSION, "key": key.to_string()});
    let last = json!({"groups": groups.len(), "checksum": checksum(key, &lines)});
    Ok(format!("{head}\n{lines}{last}\n"))
}

fn render_group(name: &GroupName, known: &Known) -> io::Result<String> {
    let traces = known.traces.iter().map(|(property, trace)| {
        let trace = match trace {
            Trace::Once => "null".to_owned(),
            Trace::Value(hash) => format!("\"{hash:032x}\""),
            Trace::List(list) => list.clone(),
            Trace::Uncertain(items) => {
                let items = items.as_deref().unwrap_or("null");
                format!("{{\"{UNCERTAIN}\":{items}}}")
            }
        };
        Ok((property, RawValue::from_string(trace)?))
    });
    let traces: BTreeMap<_, _> = traces.collect::<io::Result<_>>()?;
    let line = serde_json::to_string(&(&name.0, &name.1, &known.company_id, traces))?;
    Ok(line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_shares_the_open_file_does_not_keep_the_lock() {
        let path = std::env::temp_dir().join(format!("mixpanel-lock-{}", std::process::id()));
        let first = lock(&path).unwrap();
        let shared = first.0.try_clone().unwrap();
        assert!(lock(&path).is_err());
        drop(first);
        lock(&path).unwrap();
        drop(shared);
        fs::remove_file(beside(&path, "lock").unwrap()).unwrap();
    }
}
