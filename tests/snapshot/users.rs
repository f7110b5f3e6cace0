//! A snapshot that several users may write.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{again, postgres::server::unprivileged, said, say, say_skipped};
use mixpanel_groups::{Client, Snapshot};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_sqlite::SqliteSnapshot;

use crate::Folder;
use crate::files::many_nights;

const SNAPSHOT: &str = "SNAPSHOT_OF_ANOTHER_USER";

/// Says how two runs of this user end that are under way at once.
#[test]
#[ignore = "run by another test"]
fn child() {
    let Some(path) = std::env::var_os(SNAPSHOT) else {
        return;
    };
    let runs = [(); 2].map(|()| SqliteSnapshot::open(&path));
    for run in runs {
        match run {
            Ok(_) => say("opened", "it"),
            Err(error) => say("failed", format!("{error:#}")),
        }
    }
}

/// Returns a command that runs this program as another user, with a copy of it in that folder: the user may not reach that of
/// the program itself. `None` if this user cannot do that.
fn as_another(program: &Command, folder: &Path) -> Option<Command> {
    let copy = folder.join("program");
    fs::copy(program.get_program(), &copy).unwrap();
    let mut command = unprivileged(&copy);
    if command.get_program() == copy {
        say_skipped("a snapshot of two users: only root can run the program as another");
        return None;
    }
    command.args(program.get_args());
    Some(command)
}

/// The file that is locked is another user's, which they can only read.
#[test]
fn a_second_run_is_refused_also_if_both_are_of_another_user() {
    let folder = Folder::new();
    fs::set_permissions(&folder.0, Permissions::from_mode(0o777)).unwrap();
    let own = SqliteSnapshot::open(folder.file()).unwrap();
    fs::set_permissions(folder.file(), Permissions::from_mode(0o666)).unwrap();
    let Some(mut runs) = as_another(&again(child), &folder.0) else {
        return;
    };
    runs.env(SNAPSHOT, folder.file()).stdout(Stdio::piped());
    let mut run_twice = || {
        let mut child = runs.spawn().unwrap();
        let said: Vec<_> = said(&mut child).collect();
        assert!(child.wait().unwrap().success());
        said
    };
    for (word, message) in run_twice() {
        assert_eq!(word, "failed");
        assert!(message.contains("in use by another run"), "{message}");
    }
    drop(own);
    let said = run_twice();
    let words: Vec<_> = said.iter().map(|(word, _)| word.as_str()).collect();
    assert_eq!(words, ["opened", "failed"], "{said:?}");
}

const ENDPOINT: &str = "ENDPOINT_OF_ANOTHER_USER";

/// Runs until the file is written anew.
#[test]
#[ignore = "run by another test"]
fn nights() {
    let Some(path) = std::env::var_os(SNAPSHOT) else {
        return;
    };
    let endpoint = std::env::var(ENDPOINT).unwrap();
    let client = Client::builder("T").endpoint(endpoint).build().unwrap();
    let (longest, last) = many_nights(Path::new(&path), &client);
    assert!(last < longest / 2, "it was written anew: {longest}, {last}");
}

/// Somebody runs the job once by hand, as another user than the one whom the file belongs to.
#[test]
fn a_file_that_another_user_writes_anew_keeps_its_owner() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    fs::set_permissions(&folder.0, Permissions::from_mode(0o777)).unwrap();
    let Some(mut runs) = as_another(&again(nights), &folder.0) else {
        return;
    };
    let owner = || {
        let file = fs::metadata(folder.file()).unwrap();
        (file.uid(), file.gid())
    };
    fs::write(folder.file(), "").unwrap();
    fs::set_permissions(folder.file(), Permissions::from_mode(0o606)).unwrap();
    let own = owner();
    runs.env(SNAPSHOT, folder.file());
    runs.env(ENDPOINT, emulator.endpoint());
    assert!(runs.status().unwrap().success());
    assert_eq!(owner(), own, "it was written in place");
    assert_eq!(Snapshot::open(folder.file()).unwrap().len(), 20);

    let other = (own.0 + 1, own.1 + 1);
    fs::write(folder.file(), "").unwrap();
    chown(folder.file(), Some(other.0), Some(other.1)).unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    many_nights(&folder.file(), &client.build().unwrap());
    assert_eq!(owner(), other, "root gave it to its owner");
}
