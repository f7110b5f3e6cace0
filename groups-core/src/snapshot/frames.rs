//! The format of a snapshot's file: a line of text, then frames.
//!
//! ```text
//! mixpanel-groups snapshot 1
//! length (4) · its complement (4) · checksum (8) · rows, each with its length (4)
//! …
//! ```
//! Numbers are little-endian. A frame that ends too early, at the end of the file, was interrupted. A wrong frame
//! anywhere else is damage. So is one behind an empty frame, until there are rows: a file that begins with that was complete
//! when it took its place.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};

use super::store::EachRow;
use crate::record::{Error, ErrorKind};
use crate::util::checksum::checksum;

pub(super) const FIRST_LINE: &[u8] = b"mixpanel-groups snapshot 1\n";
/// The bytes before a frame's rows.
const FRAME_HEAD: usize = 16;
/// The bytes before a row.
pub(super) const ROW_HEAD: usize = 4;
/// A frame that is being put together.
pub(super) struct Frame(Vec<u8>);

impl Frame {
    pub(super) fn new() -> Self {
        Self(vec![0; FRAME_HEAD])
    }

    /// Returns its length in bytes so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a row, and returns its position in the frame.
    pub(super) fn push(&mut self, row: &[u8]) -> u64 {
        let position = self.0.len() as u64;
        let length = u32::try_from(row.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(row);
        position
    }

    /// Returns the frame with its head.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, Error> {
        let (head, rows) = self.0.split_at_mut(FRAME_HEAD);
        let length = u32::try_from(rows.len()).map_err(|_| {
            let message = "more than 4 GiB are written to a snapshot at once";
            Error::new(ErrorKind::Io, message)
        })?;
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..8].copy_from_slice(&(!length).to_le_bytes());
        head[8..].copy_from_slice(&checksum(rows).to_le_bytes());
        Ok(self.0)
    }
}

pub(super) struct Scanned {
    /// The position behind the last good frame.
    pub(super) end: u64,
    /// Whether nothing follows it.
    pub(super) is_whole: bool,
}

pub(super) enum ScanError {
    Io(io::Error),
    Damaged(&'static str),
    Caller(Error),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Passes each row to `each`, with its position in the file.
pub(super) fn scan(mut file: &File, each: &mut EachRow<'_>) -> Result<Scanned, ScanError> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut first_line = Vec::new();
    reader
        .by_ref()
        .take(FIRST_LINE.len() as u64)
        .read_to_end(&mut first_line)?;
    let mut end = first_line.len() as u64;
    if first_line != FIRST_LINE {
        // An empty file is how one is made for a container to mount; a shorter line is one that was interrupted.
        let is_whole = first_line.is_empty();
        let is_zero = first_line.iter().all(|byte| *byte == 0) && is_zero(&mut reader)?;
        if FIRST_LINE.starts_with(&first_line) || is_zero {
            return Ok(Scanned { end: 0, is_whole });
        }
        let version = FIRST_LINE.len() - 2;
        return Err(ScanError::Damaged(
            if first_line.get(..version) == FIRST_LINE.get(..version) {
                "it was written by a newer version of this library"
            } else {
                "it is not a snapshot"
            },
        ));
    }
    let mut rows = Vec::new();
    let mut was_complete = false;
    while end < length {
        let rest = length - end;
        let interrupted = if was_complete {
            Err(ScanError::Damaged("it has lost its rows"))
        } else {
            Ok(Scanned {
                end,
                is_whole: false,
            })
        };
        let mut head = [0; FRAME_HEAD];
        if rest < FRAME_HEAD as u64 {
            return interrupted;
        }
        reader.read_exact(&mut head)?;
        let [frame, complement] = [&head[..4], &head[4..8]]
            .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap_or_default()));
        if frame != !complement {
            // After a power failure, what was not written may read as zeros.
            return if is_zero(&mut reader)? {
                interrupted
            } else {
                Err(ScanError::Damaged("it has an invalid frame"))
            };
        }
        let next = end + FRAME_HEAD as u64 + u64::from(frame);
        if next > length {
            return interrupted;
        }
        rows.clear();
        reader.by_ref().take(frame.into()).read_to_end(&mut rows)?;
        if checksum(&rows).to_le_bytes() != head[8..] {
            return if next == length {
                interrupted
            } else {
                Err(ScanError::Damaged("it has a frame with a wrong checksum"))
            };
        }
        was_complete = rows.is_empty();
        let mut place = end + FRAME_HEAD as u64;
        let mut rest = &rows[..];
        while let Some((row_length, after)) = rest.split_first_chunk() {
            let row_length = u32::from_le_bytes(*row_length) as usize;
            let Some((row, after)) = after.split_at_checked(row_length) else {
                return Err(ScanError::Damaged("it has an invalid row"));
            };
            each(place, row).map_err(ScanError::Caller)?;
            place += (ROW_HEAD + row_length) as u64;
            rest = after;
        }
        end = next;
    }
    Ok(Scanned {
        end,
        is_whole: true,
    })
}

fn is_zero(reader: &mut impl io::BufRead) -> io::Result<bool> {
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let length = bytes.len();
        if length == 0 {
            return Ok(true);
        }
        reader.consume(length);
    }
}
