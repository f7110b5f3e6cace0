use std::fmt;
use std::ops::{Deref, DerefMut, Range};

/// Bytes that are written one after the other, by writers that know the position.
///
/// A `Vec` keeps its length in memory, and each write waits until the one before has changed it. [`put`](Self::put) takes
/// the position and returns the next one, so that it stays in a register: an update of nine properties takes some 10 %
/// less time. What is written counts as soon as the length says so, so what is given up needs no removal.
#[derive(Default)]
pub(crate) struct Buffer {
    /// Behind what is written there is room, whatever it holds.
    bytes: Vec<u8>,
    len: usize,
}

/// The least and the most room that is made at once beyond what is needed. It is filled with zeros, and so takes memory.
const ROOM: [usize; 2] = [16, 32 << 10];

impl Buffer {
    /// Writes the bytes there, and returns where they end.
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> usize {
        loop {
            if let Some(room) = self.room_for(at) {
                *room = bytes;
                return at + N;
            }
            self.make_room(at + N);
        }
    }

    /// Writes the bytes there, and returns where they end.
    #[inline]
    pub(crate) fn put_slice(&mut self, at: usize, bytes: &[u8]) -> usize {
        let end = at + bytes.len();
        // The bytes are used here alone: if a call took them too, they would be stored and loaded again.
        loop {
            if let Some(room) = self.room(at, bytes.len()) {
                room.copy_from_slice(bytes);
                return end;
            }
            self.make_room(end);
        }
    }

    /// Returns so many bytes to write to, if there is room.
    #[inline]
    pub(crate) fn room(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        self.bytes.get_mut(at..)?.get_mut(..len)
    }

    /// Returns the bytes to write to, if there is room.
    #[inline]
    pub(crate) fn room_for<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        self.bytes.get_mut(at..)?.first_chunk_mut()
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, end: usize) {
        let [least, most] = ROOM;
        let more = self.bytes.len().clamp(least, most);
        self.bytes.resize(end.saturating_add(more), 0);
    }

    /// Returns what was written there, whether or not it counts yet.
    #[inline]
    pub(crate) fn written(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Returns what was written there, to change it.
    pub(crate) fn written_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.bytes[range]
    }

    /// Makes what was written up to `len` count.
    #[inline]
    pub(crate) fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.bytes.len(), "{len} bytes were not written");
        self.len = len;
    }

    /// Appends what `write` writes there and says where it ends, and returns where it starts.
    #[inline]
    pub(crate) fn append<E>(
        &mut self,
        write: impl FnOnce(&mut Self, usize) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let start = self.len;
        let end = write(self, start)?;
        self.set_len(end);
        Ok(start)
    }

    #[inline]
    pub(crate) fn push(&mut self, byte: u8) {
        self.len = self.put(self.len, [byte]);
    }

    #[inline]
    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.len = self.put_slice(self.len, bytes);
    }

    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Allocates so many bytes for an empty buffer.
    pub(crate) fn reserve(&mut self, len: usize) {
        self.bytes.reserve_exact(len);
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Returns what is written.
    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        self.bytes.truncate(self.len);
        self.bytes
    }
}

/// A copy of what is written, without the room.
impl Clone for Buffer {
    fn clone(&self) -> Self {
        let bytes = self.to_vec();
        let len = bytes.len();
        Self { bytes, len }
    }
}

/// What is written.
impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_has_what_was_written_up_to_its_length(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), 0..4_u8), 0..40),
        ) {
            let mut buffer = Buffer::default();
            let mut model = Vec::new();
            for (piece, how) in pieces {
                match (how, &piece[..]) {
                    (0, &[first, second, third, ..]) => {
                        let end = buffer.put(buffer.len(), [first, second, third]);
                        buffer.set_len(end);
                        model.extend_from_slice(&[first, second, third]);
                    }
                    // Given up.
                    (1, piece) => drop(buffer.put_slice(buffer.len(), piece)),
                    (2, piece) => {
                        buffer.truncate(piece.len());
                        model.truncate(piece.len());
                    }
                    (_, piece) => {
                        buffer.extend_from_slice(piece);
                        model.extend_from_slice(piece);
                    }
                }
                prop_assert_eq!(&buffer[..], &model[..]);
            }
            let copy = buffer.clone();
            prop_assert!(copy == buffer && copy.capacity() == model.len());
            prop_assert_eq!(buffer.into_vec(), model);
        }
    }
}
