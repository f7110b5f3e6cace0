//! Replaces files: a write that is interrupted leaves the old content, or the new one beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Replaces a file's content, by writing another file and renaming it. The file's mode stays.
///
/// Where a rename is refused, as for a file that is mounted into a container, the content is written in place. A
/// process that is killed meanwhile leaves the other file, named with `.tmp`, which is complete.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = beside(path, "tmp")?;
    let write = || {
        let mut file = File::create(&temporary)?;
        if let Ok(metadata) = fs::metadata(path) {
            file.set_permissions(metadata.permissions())?;
        }
        file.write_all(content)?;
        file.sync_all()
    };
    write().inspect_err(|_| {
        // An error of the removal would hide the cause.
        drop(fs::remove_file(&temporary));
    })?;
    if fs::rename(&temporary, path).is_err() {
        write_in_place(path, content)?;
        fs::remove_file(&temporary)?;
    }
    sync_folder(path)
}

fn write_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
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
    fn in_place_the_old_content_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for content in ["short", "a longer one", "", "x"] {
            fs::write(&path, "before").unwrap();
            write_in_place(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

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
