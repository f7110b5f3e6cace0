//! Replaces files: a write that is interrupted leaves the old content, or the new one beside it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Creates a file with the mode of another one, if that exists.
pub(crate) fn create_like(path: &Path, other: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    if let Ok(metadata) = fs::metadata(other) {
        file.set_permissions(metadata.permissions())?;
    }
    Ok(file)
}

/// The most symbolic links that are followed one after the other, as in Linux.
const MAX_LINKS: usize = 40;

/// Returns the path of the file itself where symbolic links lead to it, also if it does not exist yet: so the names of the
/// files beside it stay the same once it does.
pub(crate) fn resolve(path: PathBuf) -> PathBuf {
    let mut file = path.clone();
    for _ in 0..MAX_LINKS {
        let Ok(target) = fs::read_link(&file) else {
            break;
        };
        file = file.parent().unwrap_or(Path::new("")).join(target);
    }
    let folder = fs::canonicalize(folder_of(&file));
    match (fs::canonicalize(&file), folder, file.file_name()) {
        (Ok(file), _, _) => file,
        (Err(_), Ok(folder), Some(name)) => folder.join(name),
        _ => path,
    }
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent();
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Puts a file that is written and synced in the place of another one in the same folder.
///
/// Where a rename is refused, as for a file that is mounted into a container, the content is written in place. A
/// process that is killed meanwhile leaves the new file, which is complete.
pub(crate) fn put(new: &Path, path: &Path) -> io::Result<()> {
    if fs::rename(new, path).is_err() {
        write_in_place(new, path)?;
        fs::remove_file(new)?;
    }
    sync_folder(path)
}

fn write_in_place(new: &Path, path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let written = io::copy(&mut File::open(new)?, &mut file)?;
    file.set_len(written)?;
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
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder_of(path))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_place_the_old_content_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let [path, new] = ["file", "new"].map(|name| folder.path().join(name));
        for content in ["short", "a longer one", "", "x"] {
            fs::write(&path, "before").unwrap();
            fs::write(&new, content).unwrap();
            write_in_place(&new, &path).unwrap();
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
