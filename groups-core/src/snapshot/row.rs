//! The rows of a snapshot as bytes.
//!
//! ```text
//! group: name (16) · fingerprint (16) · run (4) · kind (4) · slot (4) · key · id · company · after · before
//! state: zeros (16) · version (4) · hash key (16) · project (16) · next run (4) · open runs (4 each)
//! ```
//! Numbers are little-endian. A text is its length, as a variable number of bytes of 7 bits each, and its bytes. A
//! later row of the same name replaces an earlier one, which its slot finds: the groups have slots in the order in which
//! their first rows were appended.

use std::collections::BTreeMap;

use super::known::{GroupName, Known, Trace};
use crate::record::{Error, ErrorKind};
use crate::util::siphash::HashKey;

const VERSION: u32 = 1;
/// The name of the row with the state; the hash of a group's name is another.
pub(super) const STATE: u128 = 0;

/// The fixed part of a group's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The hash of the group's key and id.
    pub(super) name: u128,
    /// The hash of all that is known to be in Mixpanel once the row's run has ended.
    pub(super) fingerprint: u128,
    /// The run that wrote it. As long as it is open, it is not known whether `after` or `before` holds.
    pub(super) run: u32,
    /// The hash of the group key; its lowest bit is whether the group is deleted.
    pub(super) kind: u32,
    pub(super) slot: u32,
}

/// What a row says of a group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: GroupName,
    /// What is known of the group once its updates are accepted; `None` if it is deleted.
    pub(super) after: Option<Known>,
    /// What else may be, as long as it is not known that they were: only what is not in `after`.
    pub(super) before: Known,
}

/// What a snapshot knows beside its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) key: HashKey,
    /// `None` before the first run.
    pub(super) project: Option<Project>,
    pub(super) next_run: u32,
    /// The runs that were begun and not ended.
    pub(super) open: Vec<u32>,
}

/// The project that the groups were sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Project {
    /// The hash of its token, but for the lowest bit.
    token: u128,
    /// Whether it has accepted anything, as far as is known.
    pub(super) has_accepted: bool,
}

pub(super) const DELETED: u32 = 1;

impl Head {
    pub(super) fn is_deleted(&self) -> bool {
        self.kind & DELETED != 0
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Reader(bytes);
        bytes.head()
    }
}

impl Row {
    pub(super) fn encode(&self, head: &Head) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&head.name.to_le_bytes());
        out.extend_from_slice(&head.fingerprint.to_le_bytes());
        out.extend_from_slice(&head.run.to_le_bytes());
        out.extend_from_slice(&head.kind.to_le_bytes());
        out.extend_from_slice(&head.slot.to_le_bytes());
        write_text(&mut out, &self.name.0);
        write_text(&mut out, &self.name.1);
        let known = self.after.as_ref().unwrap_or(&self.before);
        match &known.company_id {
            Some(company_id) => {
                out.push(1);
                write_text(&mut out, company_id);
            }
            None => out.push(0),
        }
        if let Some(after) = &self.after {
            write_traces(&mut out, &after.traces);
        }
        write_traces(&mut out, &self.before.traces);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<(Head, Self)> {
        let mut bytes = Reader(bytes);
        let head = bytes.head()?;
        let name = (bytes.text()?, bytes.text()?);
        let company_id = match bytes.byte()? {
            0 => None,
            _ => Some(bytes.text()?),
        };
        let mut known = || {
            Some(Known {
                company_id: company_id.clone(),
                traces: bytes.traces()?,
            })
        };
        let after = if head.is_deleted() {
            None
        } else {
            Some(known()?)
        };
        let before = known()?;
        let row = Self {
            name,
            after,
            before,
        };
        bytes.0.is_empty().then_some((head, row))
    }
}

impl State {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = STATE.to_le_bytes().to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.key.to_bytes());
        out.extend_from_slice(&Project::to_bits(self.project).to_le_bytes());
        out.extend_from_slice(&self.next_run.to_le_bytes());
        for run in &self.open {
            out.extend_from_slice(&run.to_le_bytes());
        }
        out
    }

    /// Reads the state from the bytes of its row.
    ///
    /// # Errors
    /// The reason, if it cannot be read.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let wrong = || "its state is invalid".to_owned();
        let mut bytes = Reader(bytes);
        bytes.array::<16>().ok_or_else(wrong)?;
        let version = bytes.u32().ok_or_else(wrong)?;
        if version != VERSION {
            return Err(format!(
                "it has version {version}, and this library reads {VERSION}"
            ));
        }
        let key = HashKey::from_bytes(bytes.array().ok_or_else(wrong)?);
        let project = u128::from_le_bytes(bytes.array().ok_or_else(wrong)?);
        let mut state = Self {
            key,
            project: Project::from_bits(project),
            next_run: bytes.u32().ok_or_else(wrong)?,
            open: Vec::new(),
        };
        while !bytes.0.is_empty() {
            state.open.push(bytes.u32().ok_or_else(wrong)?);
        }
        Ok(state)
    }
}

impl Project {
    pub(super) fn new(key: HashKey, token: &str) -> Self {
        Self {
            token: key.hash(token.as_bytes()) & !1,
            has_accepted: false,
        }
    }

    /// Returns whether it has the same token.
    pub(super) fn is(self, other: Self) -> bool {
        self.token == other.token
    }

    fn to_bits(project: Option<Self>) -> u128 {
        project.map_or(0, |project| {
            project.token | u128::from(project.has_accepted)
        })
    }

    fn from_bits(bits: u128) -> Option<Self> {
        (bits != 0).then_some(Self {
            token: bits & !1,
            has_accepted: bits & 1 == 1,
        })
    }
}

/// Returns the error of a snapshot that cannot be used.
pub(super) fn damaged(what: &str, why: &str) -> Error {
    let message = format!(
        "{what} cannot be used, and is left as it is: {why}; move it away to send all anew; an older copy of it does not know what was sent since"
    );
    Error::new(ErrorKind::Damaged, message)
}

/// Lengths take one byte up to 127, two up to 16,383 and so on.
fn write_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.push(length.to_le_bytes()[0]);
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    write_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn write_traces(out: &mut Vec<u8>, traces: &BTreeMap<String, Trace>) {
    write_length(out, traces.len());
    for (name, trace) in traces {
        write_text(out, name);
        match trace {
            Trace::Value(hash) => {
                out.push(b'v');
                out.extend_from_slice(&hash.to_le_bytes());
            }
            Trace::Once => out.push(b'o'),
            Trace::MaybeOnce => out.push(b'p'),
            Trace::List(items) => {
                out.push(b'l');
                write_text(out, items);
            }
            Trace::Uncertain(Some(items)) => {
                out.push(b'm');
                write_text(out, items);
            }
            Trace::Uncertain(None) => out.push(b'u'),
        }
    }
}

/// Reads from the start of bytes; `None` if they are not what was written.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn head(&mut self) -> Option<Head> {
        Some(Head {
            name: u128::from_le_bytes(self.array()?),
            fingerprint: u128::from_le_bytes(self.array()?),
            run: self.u32()?,
            kind: self.u32()?,
            slot: self.u32()?,
        })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        let mut length = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(length);
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let length = self.length()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok().map(str::to_owned)
    }

    fn traces(&mut self) -> Option<BTreeMap<String, Trace>> {
        let mut traces = BTreeMap::new();
        for _ in 0..self.length()? {
            let name = self.text()?;
            let trace = match self.byte()? {
                b'v' => Trace::Value(u128::from_le_bytes(self.array()?)),
                b'o' => Trace::Once,
                b'p' => Trace::MaybeOnce,
                b'l' => Trace::List(self.list()?),
                b'm' => Trace::Uncertain(Some(self.list()?)),
                b'u' => Trace::Uncertain(None),
                _ => return None,
            };
            traces.insert(name, trace);
        }
        Some(traces)
    }

    /// Returns the JSON of a list, which is valid.
    fn list(&mut self) -> Option<String> {
        let list = self.text()?;
        serde_json::from_str::<Vec<&serde_json::value::RawValue>>(&list).ok()?;
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> (Head, Row) {
        let traces = [
            ("plan", Trace::Value(7)),
            ("founded", Trace::Once),
            ("first", Trace::MaybeOnce),
            ("tags", Trace::List("[1,\"é\"]".to_owned())),
            ("old", Trace::Uncertain(Some("[2]".to_owned()))),
            ("other", Trace::Uncertain(None)),
        ];
        let known = |company_id: Option<&str>| Known {
            company_id: company_id.map(str::to_owned),
            traces: traces
                .iter()
                .map(|(name, trace)| (name.repeat(40), trace.clone()))
                .collect(),
        };
        let head = Head {
            name: 1 << 100,
            fingerprint: 2 << 90,
            run: 3,
            kind: 8,
            slot: 5,
        };
        let row = Row {
            name: ("company".to_owned(), "acme".to_owned()),
            after: Some(known(Some("globex"))),
            before: known(Some("globex")),
        };
        (head, row)
    }

    #[test]
    fn what_was_written_is_read() {
        let (head, row) = row();
        let bytes = row.encode(&head);
        assert_eq!(Head::parse(&bytes), Some(head));
        assert_eq!(Row::decode(&bytes), Some((head, row)));

        let without_company = Row {
            after: Some(Known::default()),
            ..Row::default()
        };
        let bytes = without_company.encode(&head);
        assert_eq!(Row::decode(&bytes), Some((head, without_company)));

        let deleted = Head {
            kind: 8 | DELETED,
            ..head
        };
        let row = Row {
            after: None,
            ..self::row().1
        };
        assert_eq!(Row::decode(&row.encode(&deleted)), Some((deleted, row)));

        let key = HashKey::from_bytes([7; 16]);
        let tried = Project::new(key, "TOKEN");
        let known = Project {
            has_accepted: true,
            ..tried
        };
        for project in [None, Some(tried), Some(known)] {
            let state = State {
                key,
                project,
                next_run: 9,
                open: vec![3, 8],
            };
            assert_eq!(State::decode(&state.encode()), Ok(state));
        }
    }

    #[test]
    fn texts_of_every_length_are_read() {
        let (head, _) = row();
        for length in [0, 1, 127, 128, 129, 255, 256, 16_383, 16_384, 16_385] {
            let row = Row {
                name: ("company".to_owned(), "x".repeat(length)),
                after: Some(Known::default()),
                ..Row::default()
            };
            assert_eq!(Row::decode(&row.encode(&head)), Some((head, row)));
        }
    }

    #[test]
    fn what_was_not_written_is_an_error() {
        let (head, row) = row();
        let bytes = row.encode(&head);
        for length in 0..bytes.len() {
            assert_eq!(Row::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Row::decode(&[&bytes[..], &[0]].concat()), None);
        for at in 0..bytes.len() {
            for byte in [0, 0x7F, 0xFF] {
                let mut bytes = bytes.clone();
                bytes[at] = byte;
                drop(Row::decode(&bytes)); // No panic.
            }
        }
        let state = State {
            key: HashKey::from_bytes([7; 16]),
            project: None,
            next_run: 9,
            open: Vec::new(),
        };
        let bytes = state.encode();
        assert!(State::decode(&bytes[..bytes.len() - 1]).is_err());
        let mut newer = bytes;
        newer[16] = 2;
        let why = State::decode(&newer).unwrap_err();
        assert_eq!(why, "it has version 2, and this library reads 1");
    }
}
