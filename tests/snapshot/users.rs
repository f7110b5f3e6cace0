//! A snapshot in SQLite that several users may write.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use common::{again, postgres::server::unprivileged, said, say, say_skipped};
use mixpanel_groups_sqlite::SqliteSnapshot;

use crate::Folder;

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

/// The file that is locked is another user's, which they can only read.
#[test]
fn a_second_run_is_refused_also_if_both_are_of_another_user() {
    let folder = Folder::new();
    fs::set_permissions(&folder.0, Permissions::from_mode(0o777)).unwrap();
    let own = SqliteSnapshot::open(folder.file()).unwrap();
    fs::set_permissions(folder.file(), Permissions::from_mode(0o666)).unwrap();
    // Another user may not reach the folder of this program.
    let (program, copy) = (again(child), folder.0.join("program"));
    fs::copy(program.get_program(), &copy).unwrap();
    let mut runs = unprivileged(&copy);
    if runs.get_program() == copy {
        return say_skipped("a snapshot of two users: only root can run the program as another");
    }
    runs.args(program.get_args()).env(SNAPSHOT, folder.file());
    runs.stdout(Stdio::piped());
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
