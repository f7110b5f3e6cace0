use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rusqlite::Connection;

use crate::failure::Failure;

/// Room on the disk that is kept for sending what waits.
///
/// To remove an update SQLite must write, and an outbox that has filled its disk could never be emptied. So a file beside
/// it keeps some room. The sender empties it when the disk is full, and fills it again when it has written. While
/// it is short, updates are appended only where the database needs no more room for them.
pub(crate) struct Reserve {
    path: PathBuf,
    /// How many bytes it had when it was filled: on a small volume less than [`MOST`]. With fewer it is short.
    size: AtomicUsize,
    /// It was emptied, and the room was not shared since.
    is_used: AtomicBool,
}

/// As many bytes as SQLite may have to write for what was appended last, and then to send it.
const MOST: usize = 8 << 20;

/// With fewer bytes, not even one update might be removed.
pub(crate) const LEAST: usize = 64 << 10;

/// As many bytes are written at once.
const CHUNK: usize = 16 << 10;

/// More than a connection of SQLite has not yet written to the log before a transaction commits: its cache has 2,000 KiB.
const CACHE: usize = 4 << 20;

impl Reserve {
    /// Returns the reserve of an outbox, which may not have one yet.
    pub(crate) fn of(outbox: &Path) -> Self {
        let mut path = outbox.as_os_str().to_owned();
        path.push("-reserve");
        Self {
            path: path.into(),
            size: AtomicUsize::new(LEAST),
            is_used: AtomicBool::new(false),
        }
    }

    /// Fills it if it is new.
    pub(crate) fn prepare(self) -> Self {
        if self.is_missing() {
            self.refill();
        }
        self.set_size();
        self
    }

    fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Notes how many bytes it has.
    fn set_size(&self) {
        let size = self.kept().unwrap_or_default().clamp(LEAST, MOST);
        self.size.store(size, Ordering::Relaxed);
    }

    /// Returns how many bytes of the write-ahead log may wait to be moved to the database, which grows by them then. On a
    /// full disk there is only the reserve for that, and for the log to grow meanwhile.
    pub(crate) fn log_bytes(&self) -> usize {
        self.size() / 2
    }

    /// Returns whether it has less room than it had. Where it was removed, updates are not refused for that.
    pub(crate) fn is_short(&self) -> bool {
        let has_less = |file: fs::Metadata| file.len() < self.size() as u64;
        fs::symlink_metadata(&self.path).is_ok_and(has_less) && self.kept().is_some()
    }

    /// Returns whether there was little room for it.
    pub(crate) fn is_small(&self) -> bool {
        self.size() < MOST
    }

    /// Returns whether there is no file: it is new, there was no room for it, or somebody has removed it.
    pub(crate) fn is_missing(&self) -> bool {
        let file = fs::symlink_metadata(&self.path);
        file.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Returns how many bytes it has. `None` if what is there is not a reserve: it may be another program's, or a link.
    fn kept(&self) -> Option<usize> {
        if self.is_missing() {
            return Some(0);
        }
        let file = fs::symlink_metadata(&self.path).ok()?;
        let length = usize::try_from(file.len()).ok()?;
        // It is longer than it should be where two filled it at once, on a file system without locks.
        let is_kept = file.is_file() && length <= 2 * MOST && (length == 0 || self.is_filled());
        is_kept.then_some(length)
    }

    /// Returns whether its bytes are those that it is filled with. Where they are another user's, they cannot be read.
    fn is_filled(&self) -> bool {
        let mut first = [0; 8];
        let read = File::open(&self.path).and_then(|mut file| file.read_exact(&mut first));
        match read {
            Ok(()) => Noise::default().next() == first,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
    }

    /// Waits until nobody fills it any more: meanwhile there is no room for anything else.
    pub(crate) fn wait_until_filled(&self) {
        let twin = self.beside("-new");
        let is_filling = || {
            let is_file = fs::symlink_metadata(&twin).is_ok_and(|file| file.is_file());
            let is_locked =
                |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
            is_file && File::open(&twin).is_ok_and(is_locked)
        };
        for _ in 0..20 {
            if !is_filling() {
                return;
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Returns the path of a file beside it.
    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push(ending);
        path.into()
    }

    /// Gives its room to the sender.
    pub(crate) fn spend(&self) {
        if self.kept().is_none_or(|kept| kept == 0) {
            return;
        }
        let emptied = File::options().write(true).open(&self.path);
        let emptied = match emptied.and_then(|file| file.set_len(0)) {
            // It is another user's.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::remove_file(&self.path).and_then(|()| File::create(&self.path).map(drop))
            }
            emptied => emptied,
        };
        if emptied.is_ok() && !self.is_used.swap(true, Ordering::Relaxed) {
            log::warn!(
                "the disk of the outbox, or its quota, is full: what waits is still sent, and little more is accepted"
            );
        }
    }

    /// Returns whether it was emptied, and the room was not [shared](Self::share) since.
    pub(crate) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// Returns whether the disk has room for the database to grow by so many bytes, with those that are kept for that. As many
    /// are in the write-ahead log, and nothing can be removed before they are moved to the database.
    pub(crate) fn has_room_for(&self, growth: usize, needed: usize) -> bool {
        let kept = self.kept().unwrap_or_default();
        if kept == 0 || growth <= kept {
            return true;
        }
        // Beside a long transaction that reads, the log grows and grows.
        let size = needed.min(growth - kept).saturating_add(CACHE);
        let path = self.beside("-try");
        let _ = fs::remove_file(&path);
        let filled = File::create_new(&path).and_then(|file| fill(&file, size..=size));
        let _ = fs::remove_file(&path);
        filled.is_ok()
    }

    /// Takes back what the sender has not used, and whatever room there is.
    fn put_back(&self) {
        let _ = self.fill(1, LEAST);
    }

    /// Keeps half of the room, once something was sent and removed: the other half is for publishing.
    pub(crate) fn share(&self) {
        self.spend();
        self.is_used.store(false, Ordering::Relaxed);
        self.warn_of(self.fill(2, LEAST));
        self.set_size();
    }

    /// Fills it if there is room for it and as much again: else the next write would spend it.
    pub(crate) fn refill(&self) {
        self.warn_of(self.fill(2, self.size()));
        if !self.is_short() {
            self.set_size();
        }
    }

    fn warn_of(&self, filled: io::Result<()>) {
        if let Err(error) = filled
            && self.kept().is_none_or(|kept| kept == 0)
        {
            log::warn!(
                "cannot keep room on the disk in {}: without it, nothing is sent while the disk is full; free {} KiB: {error}",
                self.path.display(),
                (2 * self.size()) >> 10,
            );
        }
    }

    /// Fills it with that part of the room that there is, if that is more than it has, unless another is filling it.
    fn fill(&self, part: usize, least: usize) -> io::Result<()> {
        let twin = self.beside("-new");
        // A link that somebody put there is not followed, and a pipe is not written.
        if fs::symlink_metadata(&twin).is_ok_and(|file| !file.is_file()) {
            fs::remove_file(&twin)?;
        }
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false);
        let file = file.open(&twin)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Ok(());
        }
        // Another may have filled it before it was locked.
        let filled = if twin.exists() {
            self.fill_locked(&twin, &file, part, least)
        } else {
            Ok(())
        };
        if filled.is_err() {
            let _ = fs::remove_file(&twin);
        }
        // A child process that is just being started shares the open file, so closing it would not do.
        let _ = file.unlock();
        filled
    }

    fn fill_locked(&self, twin: &Path, file: &File, part: usize, least: usize) -> io::Result<()> {
        file.set_len(0)?;
        let size = fill(file, part * least..=part * MOST)?;
        // A log that takes all of the other half adds somewhat less to the database, beside the log of the sender.
        let size = (size / part + (part - 1) * LEAST).min(size).min(MOST);
        if self.kept().is_none_or(|kept| kept >= size) {
            return fs::remove_file(twin);
        }
        file.set_len(size as u64)?;
        fs::rename(twin, &self.path)
    }
}

/// Writes that many bytes, as far as there is room, since a file with holes needs none. Returns how many there are.
fn fill(mut file: &File, sizes: RangeInclusive<usize>) -> io::Result<usize> {
    let mut noise = Noise::default();
    let mut chunk = vec![0; CHUNK];
    let mut size = 0;
    while size < *sizes.end() {
        for bytes in chunk.chunks_exact_mut(8) {
            bytes.copy_from_slice(&noise.next());
        }
        match file.write_all(&chunk) {
            Err(error) if size < *sizes.start() => return Err(error),
            Err(_) => break,
            Ok(()) => size += chunk.len(),
        }
    }
    Ok(size)
}

/// What the reserve is filled with. On a file system that compresses, or keeps equal parts once, other bytes than random ones
/// would need little room. They are the same each time, so that the reserve is known by its first ones.
struct Noise(u64);

impl Default for Noise {
    fn default() -> Self {
        Self(1)
    }
}

impl Noise {
    /// Returns the next bytes.
    fn next(&mut self) -> [u8; 8] {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.to_le_bytes()
    }
}

/// Calls the function, which writes little, and once more with the room of the reserve if the disk is full.
pub(crate) fn with_reserve<R>(
    reserve: &Reserve,
    db: &Connection,
    mut call: impl FnMut() -> Result<R, Failure>,
) -> Result<R, Failure> {
    let is_full = |result: &Result<R, Failure>| result.as_ref().is_err_and(Failure::is_full);
    let mut result = call();
    if is_full(&result) {
        reserve.wait_until_filled();
        result = call();
    }
    if is_full(&result) {
        reserve.spend();
        empty_log(db);
        result = call();
        // Before others use it: more may have to be written before anything is sent and removed.
        reserve.put_back();
    }
    result
}

/// Moves what is in the write-ahead log to where it belongs. The database may grow by it; then there is room for a log again.
pub(crate) fn empty_log(db: &Connection) {
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    let _ = db.query_row(sql, [], |_| Ok(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reserve_is_spent() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = || Reserve::of(&folder.path().join("outbox.db"));
        let path = reserve().path;
        reserve().spend();
        assert!(!path.exists());
        for foreign in ["another program's".to_owned(), "x".repeat(MOST)] {
            fs::write(&path, &foreign).unwrap();
            let reserve = reserve().prepare();
            reserve.spend();
            reserve.refill();
            assert!(!reserve.is_short());
            assert_eq!(fs::read_to_string(&path).unwrap(), foreign);
        }
        fs::remove_file(&path).unwrap();
        let reserve = reserve().prepare();
        #[cfg(unix)]
        {
            let link = Reserve::of(&folder.path().join("other.db"));
            std::os::unix::fs::symlink(&path, &link.path).unwrap();
            let link = link.prepare();
            link.spend();
            link.refill();
            assert!(link.path.is_symlink() && !reserve.is_short());
        }
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(MOST as u64 + (4 << 20)).unwrap();
        reserve.spend();
        assert_eq!(reserve.kept(), Some(0));
        assert!(reserve.is_short());
        reserve.put_back();
        assert_eq!(reserve.kept(), Some(MOST));
    }
}
