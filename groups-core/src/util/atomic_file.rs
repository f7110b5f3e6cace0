//! Replaces files atomically: a write that is interrupted leaves the old content.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Replaces a file's content, by writing another file and renaming it.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = beside(path, "tmp")?;
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    write().inspect_err(|_| {
        // An error of the removal would hide the cause.
        drop(fs::remove_file(&temporary));
    })
}

/// Returns the path with an extension appended. It is in the same folder, so a rename is atomic.
///
/// # Errors
/// If the path does not name a file, such as `..` or an empty path.
pub(crate) fn beside(path: &Path, extension: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path does not name a file")
    })?;
    let mut name = name.to_os_string();
    name.push(".");
    name.push(extension);
    Ok(path.with_file_name(name))
}

/// Syncs the folder of a file, without which a rename can be lost.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_beside_another() {
        let tmp = |path: &str| beside(Path::new(path), "tmp");
        assert_eq!(
            tmp("folder/file.db").unwrap(),
            Path::new("folder/file.db.tmp")
        );
        for path in ["", "/", "folder/.."] {
            assert!(tmp(path).is_err(), "{path}");
        }
    }
}
