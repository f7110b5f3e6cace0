//! The file of a [`Snapshot`](crate::Snapshot): lines of JSON, a checksum at the end.
//!
//! ```text
//! {"mixpanel-groups snapshot":1}
//! ["company","acme",null,{"plan":"6f3c0d41b2a29e55","founding_year":null,"tags":["a","b"]}]
//! {"groups":1,"checksum":"…"}
//! ```
//! A group is its key, its id, its company's id and its properties. A property is the hash of its
//! value, `null` where it was set once, a list's items, or an object with the items that may be
//! there. While a run is under way there is a file `….unfinished` beside it: found by a later run,
//! it says that the run was killed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::known::{GroupName, Known, Trace, uncertain};
use crate::record::{Error, ErrorKind};
use crate::util::atomic_file::{self, beside};
use crate::util::fnv::hash;

const FORMAT: &str = "mixpanel-groups snapshot";
const VERSION: u64 = 1;
const UNCERTAIN: &str = "uncertain";

/// Reads the groups; none, if there is no such file.
pub(super) fn load(path: &Path) -> Result<HashMap<GroupName, Known>, Error> {
    let note = unfinished(path)?;
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(damaged(path, "it is not text"));
        }
        Err(error) => return Err(io_error("read", path, error)),
    };
    let mut groups = parse(&text).map_err(|why| damaged(path, &why))?;
    if note.exists() {
        log::warn!(
            "a run with the snapshot {} was killed: all is sent again",
            path.display()
        );
        for known in groups.values_mut() {
            *known = uncertain(Some(known), None);
        }
    }
    Ok(groups)
}

/// Returns the path of the file that exists while a run is under way.
fn unfinished(path: &Path) -> Result<PathBuf, Error> {
    beside(path, "unfinished").map_err(|error| io_error("use", path, error))
}

/// Notes that a run is under way.
pub(super) fn begin(path: &Path) -> Result<(), Error> {
    let note = unfinished(path)?;
    File::create(&note)
        .map(drop)
        .map_err(|error| io_error("write", &note, error))
}

/// Notes that the run is over and saved.
pub(super) fn end(path: &Path) -> Result<(), Error> {
    let note = unfinished(path)?;
    fs::remove_file(&note).map_err(|error| io_error("remove", &note, error))
}

fn damaged(path: &Path, why: &str) -> Error {
    let path = path.display();
    let message = format!("the snapshot {path} cannot be used, and is left as it is: {why}");
    Error::new(ErrorKind::Damaged, message)
}

fn io_error(verb: &str, path: &Path, error: io::Error) -> Error {
    let message = format!("cannot {verb} the snapshot {}", path.display());
    Error::new(ErrorKind::Io, message).with_source(error)
}

fn parse(text: &str) -> Result<HashMap<GroupName, Known>, String> {
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
    let cut = || "it does not end as it should".to_owned();
    let end = rest
        .trim_end_matches('\n')
        .rfind('\n')
        .map_or(0, |at| at + 1);
    let (lines, last) = rest.split_at(end);
    let last: Value = serde_json::from_str(last).map_err(|_| cut())?;
    if last["checksum"] != checksum(lines) {
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
    Ok(groups)
}

fn checksum(lines: &str) -> String {
    format!("{:016x}", hash(lines))
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
            b'"' => Trace::Value(u64::from_str_radix(json.trim_matches('"'), 16).ok()?),
            b'[' => Trace::List(json.to_owned()),
            _ => {
                let uncertain: BTreeMap<&str, &RawValue> = serde_json::from_str(json).ok()?;
                Trace::Uncertain(uncertain.get(UNCERTAIN)?.get().to_owned())
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

pub(super) fn save(path: &Path, groups: &HashMap<GroupName, Known>) -> Result<(), Error> {
    render(groups)
        .and_then(|text| atomic_file::write(path, text.as_bytes()))
        .map_err(|error| io_error("write", path, error))
}

fn render(groups: &HashMap<GroupName, Known>) -> io::Result<String> {
    let mut names: Vec<_> = groups.keys().collect();
    names.sort();
    let mut lines = String::new();
    for name in names {
        let known = &groups[name];
        let traces = known.traces.iter().map(|(property, trace)| {
            let trace = match trace {
                Trace::Once => "null".to_owned(),
                Trace::Value(hash) => format!("\"{hash:016x}\""),
                Trace::List(list) => list.clone(),
                Trace::Uncertain(items) => format!("{{\"{UNCERTAIN}\":{items}}}"),
            };
            Ok((property, RawValue::from_string(trace)?))
        });
        let traces: BTreeMap<_, _> = traces.collect::<io::Result<_>>()?;
        lines += &serde_json::to_string(&(&name.0, &name.1, &known.company_id, traces))?;
        lines.push('\n');
    }
    let head = json!({FORMAT: VERSION});
    let last = json!({"groups": groups.len(), "checksum": checksum(&lines)});
    Ok(format!("{head}\n{lines}{last}\n"))
}
