//! A snapshot in a file, in the format of `frames`.
//!
//! Each `append` is a frame at the end of the file. A process that is killed while it writes leaves a frame that ends
//! too early, which is dropped; a wrong frame anywhere else is damage. `retain` writes another file beside it, named
//! with `.tmp`, and puts it in its place. The file is locked while the snapshot is open, and so is `….lock`. It is read and
//! written by the handle that has the lock alone, since locks are mandatory on some network drives.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::frames::{FIRST_LINE, Frame, ROW_HEAD, ScanError, Scanned, scan};
use super::lock::Locked;
use super::row::damaged;
use super::store::{EachRow, SnapshotStore};
use crate::record::{Error, ErrorKind};
use crate::util::atomic_file::{self, beside};

/// How many bytes of rows `retain` collects for a frame.
const FRAME: usize = 256 << 10;

pub(super) struct FileStore {
    path: PathBuf,
    /// The file, once it exists.
    file: Option<Locked>,
    is_writable: bool,
    /// The position behind the last good frame.
    end: u64,
    /// Whether there is something behind the last good frame.
    has_rest: bool,
    /// Released when the store is dropped. It is locked before there is a file, and while that is replaced.
    _beside: Option<Locked>,
}

impl FileStore {
    /// Locks the file, which need not exist. A symbolic link is followed.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let path = atomic_file::resolve(path);
        // Before there is a lock beside it, which stays.
        if path.is_dir() {
            return Err(io_error("read", &path, io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self {
            _beside: Locked::beside(&path)?,
            path,
            file: None,
            is_writable: false,
            end: 0,
            has_rest: false,
        })
    }

    fn failed(&self, verb: &str, error: io::Error) -> Error {
        io_error(verb, &self.path, error)
    }

    /// Opens and locks the file at the path, if there is one.
    fn open_file(&mut self) -> Result<(), Error> {
        // Another lock of the same file would be refused.
        (self.file, self.is_writable) = (None, false);
        let opened = File::options().read(true).write(true).open(&self.path);
        let is_writable = opened.is_ok();
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.or_else(|_| File::open(&self.path)),
        };
        let file = file.map_err(|error| self.failed("read", error))?;
        self.file = Some(Locked::new(file, &self.path)?);
        self.is_writable = is_writable;
        Ok(())
    }

    /// Ends the replacement of the file that a killed process had begun, if the new file is complete and the old one
    /// is not. If there is none, its user has moved it away.
    fn recover(&mut self) -> Result<(), Error> {
        let Ok(other) = beside(&self.path, "tmp") else {
            return Ok(());
        };
        if !other.exists() {
            return Ok(());
        }
        let is_whole = |file: &File| {
            let scanned = scan(file, &mut |_, _| Ok(()));
            matches!(scanned, Ok(Scanned { is_whole: true, .. }))
        };
        let file = self.file.as_ref();
        if file.is_some_and(|Locked { file, .. }| !is_whole(file))
            && File::open(&other).is_ok_and(|file| is_whole(&file))
        {
            return self.put(&other);
        }
        // In a folder that cannot be written it stays, and does no harm.
        let _ = fs::remove_file(other);
        Ok(())
    }

    /// Puts another file, which is written and synced, in the place of this one, and opens that.
    ///
    /// Where a rename is refused, as for a file that is mounted into a container, or the file is another user's, the content
    /// is written in place. A process that is killed meanwhile leaves the other file, which is complete.
    fn put(&mut self, other: &Path) -> Result<(), Error> {
        if atomic_file::replace(other, &self.path).is_err() {
            self.open_to_write()?;
            self.write_in_place(other)
                .and_then(|()| fs::remove_file(other))
                .map_err(|error| self.failed("write", error))?;
        }
        atomic_file::sync_folder(&self.path).map_err(|error| self.failed("write", error))?;
        self.open_file()
    }

    fn write_in_place(&mut self, other: &Path) -> io::Result<()> {
        let file = opened(&mut self.file)?;
        file.rewind()?;
        let written = io::copy(&mut File::open(other)?, file)?;
        file.set_len(written)?;
        file.sync_all()
    }

    fn open_to_write(&mut self) -> Result<(), Error> {
        if self.is_writable {
            return Ok(());
        }
        let failed = |error| self.failed("write", error);
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        options.open(&self.path).map_err(failed)?;
        if self.file.is_none() {
            atomic_file::sync_folder(&self.path).map_err(failed)?;
        }
        self.open_file()
    }

    /// Writes a frame at the end. If that fails, as on a full disk, what was written of it is removed if possible, so
    /// that the next run does not have to take it for lost rows.
    fn write_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        self.remove_rest()?;
        self.has_rest = true;
        let written = self.write_rest(frame);
        self.end = written.inspect_err(|_| drop(self.remove_rest()))?;
        self.has_rest = false;
        Ok(())
    }

    /// Writes a frame behind the last good one, and returns where it ends.
    fn write_rest(&mut self, frame: &[u8]) -> io::Result<u64> {
        let file = opened(&mut self.file)?;
        file.seek(SeekFrom::Start(self.end))?;
        if self.end == 0 {
            file.write_all(FIRST_LINE)?;
        }
        file.write_all(frame)?;
        file.sync_data()?;
        file.stream_position()
    }

    fn remove_rest(&mut self) -> io::Result<()> {
        if self.has_rest {
            opened(&mut self.file)?.set_len(self.end)?;
            self.has_rest = false;
        }
        Ok(())
    }

    /// Copies the rows at these places to another file, behind an empty frame. The last one is in a frame of its own: a wrong
    /// last frame may be one that was interrupted, and no other row is lost with it.
    fn copy(&mut self, places: &[u64], to: &mut File) -> Result<(), Error> {
        let path = self.path.clone();
        let failed = |error| io_error("write", &path, error);
        to.write_all(FIRST_LINE).map_err(failed)?;
        let mut frame = Frame::new();
        for (position, place) in places.iter().enumerate() {
            if position == 0 || position + 1 == places.len() || frame.len() > FRAME {
                let full = std::mem::replace(&mut frame, Frame::new());
                to.write_all(&full.finish()?).map_err(failed)?;
            }
            frame.push(&self.read(*place)?);
        }
        to.write_all(&frame.finish()?).map_err(failed)
    }

    fn explain(&self, error: ScanError) -> Error {
        match error {
            ScanError::Io(error) => self.failed("read", error),
            ScanError::Damaged(why) => damaged(&self.name(), why),
            ScanError::Caller(error) => error,
        }
    }

    fn name(&self) -> String {
        format!("the snapshot {}", self.path.display())
    }
}

/// Returns the file, which another program may have removed before it could be opened.
fn opened(file: &mut Option<Locked>) -> io::Result<&mut File> {
    let Some(Locked { file, .. }) = file else {
        return Err(io::ErrorKind::NotFound.into());
    };
    Ok(file)
}

impl SnapshotStore for FileStore {
    fn load(&mut self, each: &mut EachRow<'_>) -> Result<bool, Error> {
        (self.end, self.has_rest) = (0, false);
        self.open_file()?;
        self.recover()?;
        let Some(Locked { file, .. }) = &self.file else {
            return Ok(true);
        };
        let scanned = scan(file, each).map_err(|error| self.explain(error))?;
        self.end = scanned.end;
        self.has_rest = !scanned.is_whole;
        if self.has_rest {
            log::warn!(
                "the last write to the snapshot {} was interrupted: it is left out",
                self.path.display()
            );
        }
        Ok(scanned.is_whole)
    }

    fn read(&mut self, place: u64) -> Result<Vec<u8>, Error> {
        let mut read = || {
            let file = opened(&mut self.file)?;
            file.seek(SeekFrom::Start(place))?;
            let mut length = [0; ROW_HEAD];
            file.read_exact(&mut length)?;
            let length = u32::from_le_bytes(length);
            let mut row = Vec::new();
            file.take(length.into()).read_to_end(&mut row)?;
            Ok(row)
        };
        read().map_err(|error| io_error("read", &self.path, error))
    }

    fn append(&mut self, rows: &[Vec<u8>]) -> Result<Vec<u64>, Error> {
        let start = self.end.max(FIRST_LINE.len() as u64);
        let mut frame = Frame::new();
        let places = rows.iter().map(|row| start + frame.push(row)).collect();
        let frame = frame.finish()?;
        self.open_to_write()?;
        self.write_frame(&frame)
            .map_err(|error| self.failed(&format!("write {} bytes to", frame.len()), error))?;
        Ok(places)
    }

    fn retain(&mut self, places: &[u64]) -> Result<(), Error> {
        let path = self.path.clone();
        let failed = |error| io_error("write", &path, error);
        let other = beside(&path, "tmp").map_err(failed)?;
        let written = atomic_file::create_like(&other, &path)
            .map_err(failed)
            .and_then(|mut file| {
                self.copy(places, &mut file)?;
                file.sync_all().map_err(failed)
            });
        written.inspect_err(|_| {
            // An error of the removal would hide the cause.
            let _ = fs::remove_file(&other);
        })?;
        self.put(&other)
    }
}

pub(super) fn io_error(verb: &str, path: &Path, error: io::Error) -> Error {
    let message = format!("cannot {verb} the snapshot {}", path.display());
    Error::new(ErrorKind::Io, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(store: &mut FileStore) -> Result<(Vec<Vec<u8>>, bool), Error> {
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        let is_whole = store.load(&mut |place, row| {
            rows.push(row.to_vec());
            places.push(place);
            Ok(())
        })?;
        for (place, row) in places.into_iter().zip(&rows) {
            assert_eq!(store.read(place)?, *row);
        }
        Ok((rows, is_whole))
    }

    #[test]
    fn rows_are_read_where_they_were_appended_and_retained_in_the_order_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FileStore::open(folder.path().join("snapshot")).unwrap();
        assert_eq!(rows(&mut store).unwrap(), (Vec::new(), true));
        let large = vec![7; 2 * FRAME];
        let all = [b"one".to_vec(), Vec::new(), large.clone(), b"four".to_vec()];
        let mut places = store.append(&all[..2]).unwrap();
        places.extend(store.append(&all[2..]).unwrap());
        for (place, row) in places.iter().zip(&all) {
            assert_eq!(store.read(*place).unwrap(), *row);
        }
        store.retain(&[places[3], places[2], places[1]]).unwrap();
        let kept = vec![b"four".to_vec(), large, Vec::new()];
        assert_eq!(rows(&mut store).unwrap(), (kept, true));
        assert!(!folder.path().join("snapshot.tmp").exists());
    }

    #[test]
    fn of_a_file_that_was_rewritten_no_row_but_the_last_is_lost_without_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let mut store = FileStore::open(path.clone()).unwrap();
        let all = [b"one".to_vec(), b"two".to_vec(), b"state".to_vec()];
        let places = store.append(&all).unwrap();
        store.retain(&places).unwrap();
        assert_eq!(rows(&mut store).unwrap(), (all.to_vec(), true));
        let good = fs::read(&path).unwrap();
        let head = FIRST_LINE.len() + Frame::new().len();
        let flipped = (0..good.len()).map(|byte| {
            let mut bad = good.clone();
            bad[byte] ^= 1;
            bad
        });
        let cut = (head + 1..good.len()).map(|length| good[..length].to_vec());
        for bad in flipped.chain(cut) {
            fs::write(&path, bad).unwrap();
            match rows(&mut store) {
                Ok((read, _)) => assert_eq!(read, all[..2]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{error}"),
            }
        }
    }

    #[test]
    fn a_write_that_was_interrupted_at_any_byte_is_left_out_and_other_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let mut store = FileStore::open(path.clone()).unwrap();
        let appends = [
            &[b"one".to_vec(), b"two".to_vec()][..],
            &[b"three".to_vec()],
        ];
        let mut ends = vec![0];
        for rows in appends {
            store.append(rows).unwrap();
            ends.push(fs::metadata(&path).unwrap().len());
        }
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            let before = ends.partition_point(|end| *end <= length as u64) - 1;
            let expected: Vec<_> = appends[..before].concat();
            // After a power failure, what was not written may read as zeros.
            let zeros = usize::try_from(ends[before + 1]).unwrap() - length;
            for zeros in [0, zeros] {
                fs::write(&path, [&good[..length], &vec![0; zeros]].concat()).unwrap();
                if zeros > 0 && (1..FIRST_LINE.len()).contains(&length) {
                    continue; // No part of a page.
                }
                let (found, is_whole) = rows(&mut store).unwrap();
                assert_eq!(found, expected, "{length}");
                let is_end = ends.contains(&(length as u64)) || length == FIRST_LINE.len();
                assert_eq!(is_whole, zeros == 0 && is_end, "{length}");
                // The next write takes the place of the interrupted one.
                store.append(&[b"next".to_vec()]).unwrap();
                let next = [&expected[..], &[b"next".to_vec()]].concat();
                assert_eq!(rows(&mut store).unwrap(), (next, true), "{length}");
            }
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            match rows(&mut store) {
                // Damage of the last write looks as if it was interrupted.
                Ok((found, is_whole)) => {
                    assert_eq!((found, is_whole), (appends[0].to_vec(), false));
                    assert!(bit / 8 >= usize::try_from(ends[1]).unwrap());
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                    assert_eq!(fs::read(&path).unwrap(), bad);
                }
            }
        }
    }
    /// Returns the lengths of the frames in a file.
    fn frames(path: &Path) -> Vec<usize> {
        let bytes = fs::read(path).unwrap();
        let mut rest = &bytes[FIRST_LINE.len()..];
        let mut frames = Vec::new();
        while let Some((length, _)) = rest.split_first_chunk() {
            let length = 16 + u32::from_le_bytes(*length) as usize;
            frames.push(length);
            rest = &rest[length..];
        }
        frames
    }

    #[test]
    fn retained_rows_are_in_frames_of_some_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let mut store = FileStore::open(path.clone()).unwrap();
        let row = 1_000;
        let all: Vec<_> = (0..2 * FRAME / row)
            .map(|number| vec![number.to_le_bytes()[0]; row])
            .collect();
        let places = store.append(&all).unwrap();
        assert_eq!(frames(&path).len(), 1);
        store.retain(&places).unwrap();
        let frames = frames(&path);
        assert_eq!(frames.len(), 4, "{frames:?}");
        assert!(frames[1] > FRAME && frames[1] < FRAME + 2 * row);
        assert_eq!(rows(&mut store).unwrap(), (all, true));
    }

    #[test]
    fn what_is_not_a_snapshot_is_told_apart_from_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("snapshot");
        let mut store = FileStore::open(path.clone()).unwrap();
        let zeros = [0; FIRST_LINE.len()];
        for (content, expected) in [
            (
                &b"mixpanel-groups snapshot 2\n"[..],
                "it was written by a newer version of this library",
            ),
            (b"something else that is a file", "it is not a snapshot"),
            (b"something", "it is not a snapshot"),
            (
                b"mixpanel-groups, as a list of them",
                "it is not a snapshot",
            ),
            (&[&zeros[..], b"something"].concat(), "it is not a snapshot"),
        ] {
            fs::write(&path, content).unwrap();
            let error = rows(&mut store).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
            let message = format!(
                "the snapshot {} cannot be used, and is left as it is: {expected}; move it away to send all anew; an older copy of it does not know what was sent since",
                path.display(),
            );
            assert_eq!(error.to_string(), message);
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        // After a power failure, a new file may have its length and no content.
        for length in [zeros.len() - 1, zeros.len(), 4096] {
            fs::write(&path, vec![0; length]).unwrap();
            assert_eq!(rows(&mut store).unwrap(), (Vec::new(), false), "{length}");
        }
    }

    #[test]
    fn a_replacement_that_was_interrupted_is_ended_if_only_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let mut store = FileStore::open(path.clone()).unwrap();
        let [old, new] = [b"old", b"new"].map(|row| {
            fs::write(&path, []).unwrap();
            rows(&mut store).unwrap();
            store.append(&[row.to_vec()]).unwrap();
            fs::read(&path).unwrap()
        });
        let cut = |whole: &[u8]| whole[..whole.len() - 1].to_vec();
        for (file, beside, found, is_whole) in [
            (old.clone(), new.clone(), Some(b"old"), true),
            (cut(&old), new.clone(), Some(b"new"), true),
            (cut(&old), cut(&new), None, false),
            (old.clone(), cut(&new), Some(b"old"), true),
        ] {
            fs::write(&path, file).unwrap();
            let other = folder.path().join("snapshot.tmp");
            fs::write(&other, beside).unwrap();
            let expected: Vec<_> = found.iter().map(|row| row.to_vec()).collect();
            assert_eq!(rows(&mut store).unwrap(), (expected, is_whole));
            assert!(!other.exists());
        }
    }

    #[test]
    fn in_place_the_old_content_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let [path, new] = ["snapshot", "new"].map(|name| folder.path().join(name));
        let mut store = FileStore::open(path.clone()).unwrap();
        for content in ["short", "a longer one", "", "x"] {
            fs::write(&path, "before").unwrap();
            fs::write(&new, content).unwrap();
            store.open_to_write().unwrap();
            store.write_in_place(&new).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    /// Where locks are mandatory, nothing else can read the file.
    #[test]
    fn whether_a_replacement_is_needed_is_seen_in_the_file_that_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let mut store = FileStore::open(path.clone()).unwrap();
        store.append(&[b"row".to_vec()]).unwrap();
        let other = folder.path().join("snapshot.tmp");
        fs::rename(&path, &other).unwrap();
        store.recover().unwrap();
        assert!(!path.exists() && !other.exists());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("snapshot");
        let mut store = FileStore::open(path.clone()).unwrap();
        fs::create_dir(&path).unwrap();
        let error = rows(&mut store).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let message = format!("cannot read the snapshot {}", path.display());
        assert_eq!(error.to_string(), message);
        assert!(std::error::Error::source(&error).is_some());
        let error = store.append(&[b"row".to_vec()]).unwrap_err();
        let written = format!("cannot write the snapshot {}", path.display());
        assert_eq!(error.to_string(), written);
        #[cfg(unix)]
        {
            // Not the same as one that does not exist.
            fs::remove_dir(&path).unwrap();
            std::os::unix::fs::symlink(&path, &path).unwrap();
            assert_eq!(rows(&mut store).unwrap_err().to_string(), message);
        }
    }
}
