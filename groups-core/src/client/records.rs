//! One request's body: records written straight into one byte buffer, within limits.

use std::ops::Range;

use crate::group::Operation;
use crate::record::group_hash::hash_written;
use crate::record::{Encoded, MAX_RECORD, Record, RecordRef, Rejection};
use crate::util::Buffer;

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
    buffer: Buffer,
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

/// A record that was written before.
pub(crate) struct Written<'a> {
    members: &'a [u8],
    encoded: Encoded,
}

impl Record for Written<'_> {
    fn write(&self, out: &mut Buffer) -> Result<Option<Encoded>, Box<Rejection>> {
        out.extend_from_slice(self.members);
        Ok(Some(self.encoded))
    }

    fn group_hash(&self) -> u64 {
        hash_written(&self.members[..self.encoded.head])
    }
}

/// What is written behind the records that end there. Removes it unless it becomes a record, also where a value panics.
struct Unfinished<'a>(&'a mut Buffer, usize);

impl Unfinished<'_> {
    /// Makes it a record.
    #[inline]
    fn finish(mut self) {
        self.0.push(b',');
        self.1 = self.0.len();
    }
}

impl Drop for Unfinished<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.truncate(self.1);
    }
}

/// A record that stays where it is.
pub(crate) struct Borrowed<'a, R>(pub(crate) &'a R);

impl<R: Record> Record for Borrowed<'_, R> {
    fn write(&self, out: &mut Buffer) -> Result<Option<Encoded>, Box<Rejection>> {
        self.0.write(out)
    }

    fn group_hash(&self) -> u64 {
        self.0.group_hash()
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

    /// Returns the records without what they were opened with.
    pub(crate) fn written(&self, opening: &[u8]) -> impl Iterator<Item = Written<'_>> {
        let opening = opening.len();
        (0..self.len()).map(move |index| Written {
            members: &self.json(index)[opening..],
            encoded: self.encoded(index),
        })
    }

    /// Appends one record, `opening` first: the bracket and the members that all records share. Returns whether there
    /// is anything to send.
    #[inline]
    pub(crate) fn push<R: Record>(
        &mut self,
        position: usize,
        opening: &[u8],
        record: &R,
    ) -> Result<bool, Box<Rejection>> {
        let start = self.begin();
        let end = start + 1;
        let out = Unfinished(&mut self.buffer, end);
        out.0.extend_from_slice(opening);
        match record.write(out.0) {
            Ok(Some(encoded)) => {
                out.finish();
                self.entries.push(RecordSpan {
                    start,
                    position,
                    encoded,
                });
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(mut rejection) => {
                rejection.position = position;
                Err(rejection)
            }
        }
    }

    /// Appends one record as [`push`](Self::push) does, unless it is too large. Then the rejection has the record's `name`.
    #[inline]
    pub(crate) fn push_within<R: Record>(
        &mut self,
        position: usize,
        opening: &[u8],
        record: &R,
        limits: Limits,
        name: fn(&[u8]) -> RecordRef,
    ) -> Result<bool, Box<Rejection>> {
        // The byte before it is there, or is the first one.
        let before = self.buffer.len().max(1);
        let is_there = self.push(position, opening, record)?;
        let most = limits.most_bytes_a_record();
        if is_there && self.buffer.len() - before - 1 > most {
            return Err(self.too_large(opening.len(), most, name));
        }
        Ok(is_there)
    }

    /// Takes the last record, with an opening of that length, out again.
    #[cold]
    fn too_large(
        &mut self,
        opening: usize,
        most: usize,
        name: fn(&[u8]) -> RecordRef,
    ) -> Box<Rejection> {
        let last = self.len() - 1;
        let json = self.json(last);
        let mut rejection = Rejection::too_large(name(&json[opening..]), json.len(), most);
        rejection.position = self.position(last);
        self.pop();
        Box::new(rejection)
    }

    /// Returns where the byte before the next record is: the one behind the last record, if there is one.
    #[inline]
    fn begin(&mut self) -> usize {
        if self.buffer.is_empty() {
            self.buffer.push(b',');
        }
        self.buffer.len() - 1
    }

    /// Allocates what `other` takes and some more, unless there is a buffer already: one that grows piece by piece leaves
    /// pieces behind.
    pub(crate) fn reserve_as_much_as(&mut self, other: &Self) {
        if self.capacity() == 0 {
            self.buffer.reserve(other.buffer.len() / 8 * 9);
            self.entries.reserve_exact(other.entries.len());
        }
    }

    /// Returns how many bytes of memory the buffers take.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity() + self.entries.capacity() * size_of::<RecordSpan>()
    }

    /// Returns whether the records fit into one request.
    pub(crate) fn fits(&self, limits: Limits) -> bool {
        self.entries.len() <= limits.records && self.buffer.len() <= limits.bytes
    }

    /// Returns whether as much again would fit.
    pub(crate) fn is_half_empty(&self, limits: Limits) -> bool {
        self.entries.len() <= limits.records / 2 && self.buffer.len() <= limits.bytes / 2
    }

    /// Returns how many of the first records fit into one request: one at least, since none alone is too large.
    pub(crate) fn fitting(&self, limits: Limits) -> usize {
        let counts = 0..=self.len().min(limits.records);
        let fits = |count: &usize| self.end(*count) <= limits.bytes;
        counts.rev().find(fits).unwrap_or_default()
    }

    /// Moves the records from `first` on to the end of `other`.
    pub(crate) fn move_rest_to(&mut self, first: usize, other: &mut Self) {
        let Some(&RecordSpan { start: from, .. }) = self.entries.get(first) else {
            return;
        };
        let to = other.begin();
        other.buffer.extend_from_slice(&self.buffer[from + 1..]);
        other
            .entries
            .extend(self.entries.drain(first..).map(|entry| RecordSpan {
                start: entry.start - from + to,
                ..entry
            }));
        self.buffer.truncate(from + 1);
    }

    /// Takes the last record out.
    pub(crate) fn pop(&mut self) {
        if let Some(RecordSpan { start, .. }) = self.entries.pop() {
            self.buffer.truncate(start + 1);
        }
    }

    /// Takes records out, which are in ascending order.
    pub(crate) fn remove(&mut self, gone: &[usize]) {
        let Some(&first) = gone.first() else {
            return;
        };
        let mut gone = gone.iter().peekable();
        let (mut kept, mut to) = (first, self.entries[first].start);
        for index in first..self.len() {
            if gone.next_if_eq(&&index).is_some() {
                continue;
            }
            // The byte after it precedes the next record.
            let Range { start, end } = self.span(&(index..index + 1));
            self.buffer.copy_within(start..end - 1, to);
            self.entries[kept] = RecordSpan {
                start: to,
                ..self.entries[index]
            };
            to += end - 1 - start;
            kept += 1;
        }
        self.entries.truncate(kept);
        self.buffer.truncate(to + 1);
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
        write: impl FnOnce(&mut Buffer),
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
        self.entries[range.start].start..self.end(range.end)
    }

    /// Returns where the byte after the first `count` records ends.
    fn end(&self, count: usize) -> usize {
        let next = self.entries.get(count);
        next.map_or(self.buffer.len(), |next| next.start + 1)
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use proptest::prelude::*;

    use super::*;

    const OPENING: &[u8] = b"{\"$token\":\"T\",";

    /// A record of that many bytes, nothing, or an error, which leaves what it has written.
    #[derive(Clone, Debug)]
    enum Fake {
        Bytes(usize),
        Nothing,
        Fails,
        Panics,
    }

    impl Record for Fake {
        fn write(&self, out: &mut Buffer) -> Result<Option<Encoded>, Box<Rejection>> {
            let (operation, head) = (None, 1);
            let length = match self {
                Self::Bytes(length) => *length,
                Self::Nothing => return Ok(None),
                Self::Fails | Self::Panics => 5,
            };
            out.extend_from_slice(&b"x".repeat(length));
            out.push(b'}');
            match self {
                // Without the hook, which would print it.
                Self::Panics => std::panic::resume_unwind(Box::new(())),
                Self::Fails => Err(Box::new(Rejection::too_large(name(b""), 0, 0))),
                _ => Ok(Some(Encoded { operation, head })),
            }
        }

        fn group_hash(&self) -> u64 {
            0
        }
    }

    fn name(_members: &[u8]) -> RecordRef {
        RecordRef::Update {
            group: crate::group::Group::new("company", "acme"),
            operation: Operation::Delete,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(Fake),
        Pop,
        /// Those whose bits are set.
        Remove(u64),
        Clear,
        /// Takes the body of a run, from and to these fractions of the records.
        Body(usize, usize),
        /// Moves what is behind this fraction of the records.
        MoveRest(usize),
        Copy(usize),
        Replace(usize),
        /// The other one's turn.
        Swap,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..20_usize).prop_map(|length| Step::Push(Fake::Bytes(length))),
            1 => Just(Step::Push(Fake::Bytes(100))), // too large
            1 => Just(Step::Push(Fake::Nothing)),
            1 => Just(Step::Push(Fake::Fails)),
            1 => Just(Step::Push(Fake::Panics)),
            1 => Just(Step::Pop),
            1 => any::<u64>().prop_map(Step::Remove),
            1 => Just(Step::Clear),
            3 => (0..10_usize, 0..10_usize).prop_map(|(from, to)| Step::Body(from, to)),
            2 => (0..10_usize).prop_map(Step::MoveRest),
            1 => (0..10_usize).prop_map(Step::Copy),
            1 => (0..10_usize).prop_map(Step::Replace),
            2 => Just(Step::Swap),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn records_are_what_was_written_whatever_is_done_with_them(
            steps in prop::collection::vec(step(), 0..40),
        ) {
            let limits = Limits { records: 100, bytes: 60 };
            let mut real = [Records::default(), Records::default()];
            let mut model: [Vec<(usize, String)>; 2] = [vec![], vec![]];
            for (position, step) in steps.into_iter().enumerate() {
                let [one, other] = &mut real;
                let [is, others] = &mut model;
                let len = is.len();
                match step {
                    Step::Push(record) => {
                        let push = || one.push_within(position, OPENING, &record, limits, name);
                        let Ok(pushed) = catch_unwind(AssertUnwindSafe(push)) else {
                            continue;
                        };
                        let json = match record {
                            Fake::Bytes(length) => {
                                format!("{}{}}}", String::from_utf8_lossy(OPENING), "x".repeat(length))
                            }
                            _ => String::new(),
                        };
                        match (record, pushed) {
                            (Fake::Bytes(_), Ok(true)) if json.len() <= 58 => is.push((position, json)),
                            (Fake::Bytes(_), Err(error)) if json.len() > 58 => {
                                prop_assert_eq!(error.position, position);
                            }
                            (Fake::Nothing, Ok(false)) => {}
                            (Fake::Fails, Err(error)) => prop_assert_eq!(error.position, position),
                            (record, pushed) => prop_assert!(false, "{:?} {:?}", record, pushed),
                        }
                    }
                    Step::Pop => {
                        one.pop();
                        is.pop();
                    }
                    Step::Remove(mask) if len > 0 => {
                        let gone: Vec<_> = (0..len).filter(|index| mask >> (index % 64) & 1 == 1).collect();
                        one.remove(&gone);
                        for index in gone.into_iter().rev() {
                            is.remove(index);
                        }
                    }
                    Step::Clear => {
                        one.clear();
                        is.clear();
                    }
                    Step::Body(from, to) if len > 0 => {
                        let (from, to) = (from % len, to % len);
                        let run = from.min(to)..from.max(to) + 1;
                        let records: Vec<_> = is[run.clone()].iter().map(|(_, json)| &json[..]).collect();
                        let body = format!("[{}]", records.join(","));
                        prop_assert_eq!(one.bytes(&run), body.len());
                        prop_assert_eq!(String::from_utf8_lossy(one.body(&run)), body);
                    }
                    Step::MoveRest(from) => {
                        let from = from % (len + 1);
                        one.move_rest_to(from, other);
                        others.extend(is.drain(from..));
                    }
                    Step::Copy(index) if len > 0 => {
                        other.copy(one, index % len);
                        others.push(is[index % len].clone());
                    }
                    Step::Replace(index) if len > 0 => {
                        other.copy_with(one, index % len, None, |out| out.extend_from_slice(b"{}"));
                        others.push((is[index % len].0, "{}".to_owned()));
                    }
                    Step::Swap => {
                        real.swap(0, 1);
                        model.swap(0, 1);
                    }
                    Step::Body(..) | Step::Copy(_) | Step::Replace(_) | Step::Remove(_) => {}
                }
                for (real, model) in real.iter().zip(&model) {
                    let records = (0..real.len()).map(|index| {
                        (real.position(index), String::from_utf8_lossy(real.json(index)).into_owned())
                    });
                    prop_assert_eq!(&records.collect::<Vec<_>>(), model);
                }
            }
        }
    }
}
