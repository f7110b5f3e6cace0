use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Room on the disk that is kept for sending what waits.
///
/// To remove an update SQLite must write, and an outbox that has filled its disk could never be emptied. So a file beside
/// it keeps some room. The sender empties it when the disk is full, and fills it again when there is room. While
/// it is empty, updates are appended only where the database needs no more room for them.
pub(crate) struct Reserve(PathBuf);

/// As many bytes as SQLite may have to write for what was appended last, and then to send it.
pub(crate) const SIZE: usize = 8 << 20;

impl Reserve {
    /// Returns the reserve of an outbox, which may not have one yet.
    pub(crate) fn of(outbox: &Path) -> Self {
        let mut path = outbox.as_os_str().to_owned();
        path.push("-reserve");
        Self(path.into())
    }

    /// Fills it if it is new.
    pub(crate) fn prepare(&self) {
        if self.is_missing() {
            self.refill();
        }
    }

    /// Returns whether there is no file: it is new, there was no room for it, or somebody has removed it.
    pub(crate) fn is_missing(&self) -> bool {
        let file = fs::symlink_metadata(&self.0);
        file.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Returns whether it was emptied and not filled again.
    pub(crate) fn is_spent(&self) -> bool {
        self.has_length(0..=0)
    }

    /// Returns whether it has such a length, and is not a link.
    fn has_length(&self, lengths: RangeInclusive<usize>) -> bool {
        let file = fs::symlink_metadata(&self.0);
        file.is_ok_and(|file| {
            file.is_file() && usize::try_from(file.len()).is_ok_and(|len| lengths.contains(&len))
        })
    }

    /// Gives its room to the sender. Returns whether that is more room than there was. What is not a full reserve is left
    /// alone: it may be another program's.
    pub(crate) fn spend(&self) -> bool {
        // It is longer where another process was still filling it, and was killed.
        if !self.has_length(SIZE..=2 * SIZE) {
            return false;
        }
        let emptied = File::options().write(true).open(&self.0);
        let emptied = match emptied.and_then(|file| file.set_len(0)) {
            // It is another user's.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::remove_file(&self.0).and_then(|()| File::create(&self.0).map(drop))
            }
            emptied => emptied,
        };
        if emptied.is_ok() {
            log::warn!(
                "the disk of the outbox, or its quota, is full: what waits is still sent, and little more is accepted"
            );
        }
        emptied.is_ok()
    }

    /// Fills it, if there is room for it and as much again: else the next write would spend it.
    pub(crate) fn refill(&self) {
        let mut twin = self.0.as_os_str().to_owned();
        twin.push("-new");
        let twin = PathBuf::from(twin);
        let filled = fill(&twin, 2 * SIZE).and_then(|file| {
            file.set_len(SIZE as u64)?;
            match fs::rename(&twin, &self.0) {
                // Another filled it at the same time, with the same bytes.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                renamed => renamed,
            }
        });
        if let Err(error) = filled {
            let _ = fs::remove_file(&twin);
            log::warn!(
                "cannot keep {} MiB in {}: without them, nothing is sent while the disk is full; free {} MiB: {error}",
                SIZE >> 20,
                self.0.display(),
                (2 * SIZE) >> 20,
            );
        }
    }
}

/// Writes that many bytes, since a file with holes needs no room. On a file system that compresses them, or keeps equal parts
/// once, others than random ones would need little. They are the same each time: another may be writing them too.
fn fill(path: &Path, size: usize) -> io::Result<File> {
    const CHUNK: usize = 1 << 20;
    // A link that somebody put there is not followed.
    if fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink()) {
        fs::remove_file(path)?;
    }
    // Not truncated: another may be filling it, and a reserve without a byte is one that was spent.
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let mut chunk = vec![0; CHUNK];
    let mut random = 1_u64;
    for _ in 0..size / CHUNK {
        for bytes in chunk.chunks_exact_mut(8) {
            // Marsaglia's xorshift.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes.copy_from_slice(&random.to_le_bytes());
        }
        file.write_all(&chunk)?;
    }
    Ok(file)
}

/// Calls the function, and once more with the room of the reserve if the disk is full.
pub(crate) fn with_reserve<R>(
    reserve: &Reserve,
    mut call: impl FnMut() -> Result<R, Failure>,
) -> Result<R, Failure> {
    match call() {
        Err(failure) if failure.is_full() && reserve.spend() => call(),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_reserve_is_spent() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(&folder.path().join("outbox.db"));
        assert!(reserve.is_missing() && !reserve.spend());
        fs::write(&reserve.0, "another program's").unwrap();
        assert!(!reserve.spend() && !reserve.is_spent());
        assert_eq!(fs::read_to_string(&reserve.0).unwrap(), "another program's");
        fs::remove_file(&reserve.0).unwrap();
        reserve.prepare();
        #[cfg(unix)]
        {
            let link = Reserve::of(&folder.path().join("other.db"));
            std::os::unix::fs::symlink(&reserve.0, &link.0).unwrap();
            assert!(!link.spend() && !reserve.is_spent());
        }
        let file = File::options().write(true).open(&reserve.0).unwrap();
        file.set_len(SIZE as u64 + (4 << 20)).unwrap();
        assert!(reserve.spend() && reserve.is_spent());
    }
}
