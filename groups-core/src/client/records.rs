//! One request's body: records written straight into one byte buffer, within limits.

use crate::record::{MAX_RECORD, Record};
use std::marker::PhantomData;
use std::ops::Range;

use crate::group::Operation;
use crate::record::Encoded;
use crate::record::{RecordRef, Rejection};

/// The most records of a request.
/// ([Groups API, Limits](https://developer.mixpanel.com/reference/group-profiles))
pub(crate) const MAX_RECORDS: usize = 2_000;

/// The limits of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

impl Default for Limits {
    /// Returns the number that Mixpanel documents, and a size below each that it documents.
    fn default() -> Self {
        Self {
            records: MAX_RECORDS,
            bytes: 2_000_000,
        }
    }
}

impl Limits {
    pub(crate) fn most_bytes_a_record(self) -> usize {
        MAX_RECORD.min(self.bytes.saturating_sub("[]".len()))
    }
}

/// The records of one request.
///
/// In the buffer a byte precedes each record and one follows the last: brackets or commas, put
/// right when a body is taken, so that any run of records is a body without being copied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    buffer: Vec<u8>,
    entries: Vec<RecordSpan>,
}

#[derive(Clone, Copy, Debug)]
struct RecordSpan {
    /// Where the byte before the record is.
    start: usize,
    /// Which of the caller's records it is.
    position: usize,
    encoded: Encoded,
}

/// A record of a kind that was written before.
pub(crate) struct Written<'a, R> {
    members: &'a [u8],
    encoded: Encoded,
    kind: PhantomData<R>,
}

impl<R: Record> Record for Written<'_, R> {
    fn write(&self, out: &mut Vec<u8>) -> Result<Option<Encoded>, Box<Rejection>> {
        out.extend_from_slice(self.members);
        Ok(Some(self.encoded))
    }

    fn name(json: &[u8]) -> RecordRef {
        R::name(json)
    }
}

impl Records {
    /// Removes all records and keeps the buffers.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        self.entries.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the records, all of that kind, without what they were opened with.
    pub(crate) fn written<R: Record>(
        &self,
        opening: &[u8],
    ) -> impl Iterator<Item = Written<'_, R>> {
        let opening = opening.len();
        (0..self.len()).map(move |index| Written {
            members: &self.json(index)[opening..],
            encoded: self.encoded(index),
            kind: PhantomData,
        })
    }

    /// Appends one record, `opening` first: the bracket and the members that all records share. Returns whether there
    /// is anything to send.
    pub(crate) fn push<R: Record>(
        &mut self,
        position: usize,
        opening: &[u8],
        record: &R,
        limits: Limits,
    ) -> Result<bool, Box<Rejection>> {
        let start = self.begin();
        self.buffer.extend_from_slice(opening);
        let written = record.write(&mut self.buffer);
        let written = written.and_then(|written| match written {
            None => Ok(None),
            Some(encoded) => self
                .check_size::<R>(start, opening, limits)
                .map(|()| Some(encoded)),
        });
        match written {
            Ok(Some(encoded)) => {
                self.buffer.push(b',');
                self.entries.push(RecordSpan {
                    start,
                    position,
                    encoded,
                });
            }
            Ok(None) | Err(_) => self.buffer.truncate(start + 1),
        }
        written
            .map(|written| written.is_some())
            .map_err(|mut rejection| {
                rejection.position = position;
                rejection
            })
    }

    /// Returns where the byte before the next record is: the one behind the last record, if there is one.
    #[inline]
    fn begin(&mut self) -> usize {
        if self.buffer.is_empty() {
            self.buffer.push(b',');
        }
        self.buffer.len() - 1
    }

    fn check_size<R: Record>(
        &self,
        start: usize,
        opening: &[u8],
        limits: Limits,
    ) -> Result<(), Box<Rejection>> {
        let json = &self.buffer[start + 1..];
        let most = limits.most_bytes_a_record();
        if json.len() <= most {
            return Ok(());
        }
        let name = R::name(&json[opening.len()..]);
        Err(Box::new(Rejection::too_large(name, json.len(), most)))
    }

    /// Returns how much memory the buffer takes.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Returns whether the records fit into one request.
    pub(crate) fn fits(&self, limits: Limits) -> bool {
        self.entries.len() <= limits.records && self.buffer.len() <= limits.bytes
    }

    /// Returns whether as much again would fit.
    pub(crate) fn is_half_empty(&self, limits: Limits) -> bool {
        self.entries.len() <= limits.records / 2 && self.buffer.len() <= limits.bytes / 2
    }

    /// Moves the last record to the end of `other`.
    pub(crate) fn move_last_to(&mut self, other: &mut Self) {
        if let Some(entry) = self.entries.last() {
            let start = other.begin();
            other
                .buffer
                .extend_from_slice(&self.buffer[entry.start + 1..]);
            other.entries.push(RecordSpan { start, ..*entry });
            self.pop();
        }
    }

    /// Takes the last record out.
    pub(crate) fn pop(&mut self) {
        if let Some(RecordSpan { start, .. }) = self.entries.pop() {
            self.buffer.truncate(start + 1);
        }
    }

    /// Appends a record of `other`.
    pub(crate) fn copy(&mut self, other: &Self, index: usize) {
        let operation = other.entries[index].encoded.operation;
        self.copy_with(other, index, operation, |out| {
            out.extend_from_slice(other.json(index));
        });
    }

    /// Appends what takes the place of a record of `other`, from bracket to bracket.
    pub(crate) fn copy_with(
        &mut self,
        other: &Self,
        index: usize,
        operation: Option<Operation>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.begin();
        write(&mut self.buffer);
        self.buffer.push(b',');
        let RecordSpan {
            position, encoded, ..
        } = other.entries[index];
        let encoded = Encoded {
            operation,
            ..encoded
        };
        self.entries.push(RecordSpan {
            start,
            position,
            encoded,
        });
    }

    /// Returns a run of records as a JSON array.
    pub(crate) fn body(&mut self, range: &Range<usize>) -> &[u8] {
        for entry in &self.entries[range.clone()] {
            self.buffer[entry.start] = b',';
        }
        let Range { start, end } = self.span(range);
        self.buffer[start] = b'[';
        self.buffer[end - 1] = b']';
        &self.buffer[start..end]
    }

    /// Returns the length of the body of a run of records.
    pub(crate) fn bytes(&self, range: &Range<usize>) -> usize {
        self.span(range).len()
    }

    /// Returns the range of a run of records in the buffer, with the byte before and the byte after.
    fn span(&self, range: &Range<usize>) -> Range<usize> {
        let start = self.entries[range.start].start;
        let end = self
            .entries
            .get(range.end)
            .map_or(self.buffer.len(), |next| next.start + 1);
        start..end
    }

    /// Returns one record's bytes, from bracket to bracket.
    pub(crate) fn json(&self, index: usize) -> &[u8] {
        let Range { start, end } = self.span(&(index..index + 1));
        &self.buffer[start + 1..end - 1]
    }

    /// Returns the bytes that identify the group of a record, after its `opening` of that length.
    pub(crate) fn head(&self, index: usize, opening: usize) -> &[u8] {
        &self.json(index)[opening..][..self.entries[index].encoded.head]
    }

    /// Returns the bytes of the largest record.
    pub(crate) fn largest(&self) -> usize {
        (0..self.len())
            .map(|index| self.json(index).len())
            .max()
            .unwrap_or_default()
    }

    /// Returns the position of a record among the caller's.
    pub(crate) fn position(&self, index: usize) -> usize {
        self.entries[index].position
    }

    /// Returns what is known of a record that was written.
    pub(crate) fn encoded(&self, index: usize) -> Encoded {
        self.entries[index].encoded
    }
}
