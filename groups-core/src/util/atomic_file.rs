//! What it takes to replace a file in one step: names beside it, its mode, links that lead to it, and syncing its folder.

use std::fs::{self, File};
use std::io;
#[cfg(unix)]
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Creates a file anew, with the mode of another one and, where that is allowed, its owner, if that exists. A link of that
/// name is removed, not followed.
pub(crate) fn create_like(path: &Path, other: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::create_new(path)?;
    if let Ok(metadata) = fs::metadata(other) {
        // Before it is somebody else's: who may give it away may not be allowed to change its mode then.
        file.set_permissions(metadata.permissions())?;
        #[cfg(unix)]
        // Only root may give a file to somebody else: `replace` writes in place where that was refused.
        let _ = std::os::unix::fs::fchown(&file, Some(metadata.uid()), Some(metadata.gid()));
    }
    Ok(file)
}

/// Puts a file in the place of another one, which keeps its owner.
///
/// # Errors
/// If it cannot, or if the file is somebody else's, who might not be able to read it then.
pub(crate) fn replace(file: &Path, other: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let (Ok(new), Ok(old)) = (fs::metadata(file), fs::metadata(other))
        && (new.uid(), new.gid()) != (old.uid(), old.gid())
    {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    fs::rename(file, other)
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

    #[cfg(unix)]
    #[test]
    fn a_file_like_another_ones() {
        use std::os::unix::fs::{PermissionsExt as _, chown};

        let folder = tempfile::tempdir().unwrap();
        let [new, other] = ["new", "other"].map(|name| folder.path().join(name));
        fs::write(&other, "").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o640)).unwrap();
        let _ = chown(&other, Some(1), Some(1)); // Only root may.
        drop(create_like(&new, &other).unwrap());
        let of = |path: &Path| {
            let file = fs::metadata(path).unwrap();
            (file.uid(), file.gid(), file.mode())
        };
        assert_eq!(of(&new), of(&other));
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
