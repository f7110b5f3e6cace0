//! Files as they are in containers: mounted, linked, read-only, full.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::Mount;
#[cfg(unix)]
use common::{in_child, is_own_process};
use mixpanel_groups::{Client, ErrorKind, Report, Snapshot};
use mixpanel_groups_emulator::Emulator;
#[cfg(unix)]
use mixpanel_groups_sqlite::SqliteSnapshot;

use crate::{Company, Folder, client, company, run};

#[test]
fn a_file_that_was_being_written_in_place_is_taken_from_beside_it() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    run(&folder, &client, &[company(1)]).into_result().unwrap();
    let good = fs::read(folder.file()).unwrap();
    for half in [
        good[..good.len() / 2].to_vec(),
        [&good[..20], b"old"].concat(),
    ] {
        fs::write(folder.0.join("companies.snapshot.tmp"), &good).unwrap();
        fs::write(folder.file(), half).unwrap();
        assert_eq!(run(&folder, &client, &[company(1)]), Report::default());
        assert_eq!(fs::read(folder.file()).unwrap(), good);
    }
}

#[test]
fn files_of_others_beside_it_keep_what_they_have() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let lock = folder.0.join("companies.snapshot.lock");
    fs::write(&lock, "4711\n").unwrap();
    let report = run(&folder, &client(&emulator), &[company(1)]);
    assert!(report.is_all_accepted());
    assert_eq!(fs::read_to_string(&lock).unwrap(), "4711\n");

    // A link that somebody put where the file is written anew.
    #[cfg(unix)]
    {
        let folder = Folder::new();
        let victim = folder.0.join("victim");
        let link = folder.0.join("companies.snapshot.tmp");
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        let client = Client::builder("T").endpoint(emulator.endpoint());
        many_nights(&folder.file(), &client.build().unwrap());
        assert!(!victim.exists() && !link.exists());
        let file = fs::symlink_metadata(folder.file()).unwrap();
        assert!(file.is_file());
    }
}

/// A fork shares the locked file with its parent.
#[test]
#[cfg(unix)]
fn a_child_that_drops_a_snapshot_leaves_it_locked() {
    if !is_own_process(a_child_that_drops_a_snapshot_leaves_it_locked, &[]) {
        return;
    }
    let folder = Folder::new();
    let shop = folder.0.join("shop.db");
    let mut file = Some(Snapshot::open(folder.file()).unwrap());
    let mut table = Some(SqliteSnapshot::open(&shop).unwrap());
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator);
    let child = || {
        let error = file.as_mut().unwrap().sync(&client, [company(1)]);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Closed);
        let error = SqliteSnapshot::open(&shop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        drop((file.take(), table.take()));
    };
    in_child(child, || ());
    for error in [
        Snapshot::open(folder.file()).unwrap_err(),
        SqliteSnapshot::open(&shop).unwrap_err(),
    ] {
        assert!(error.to_string().contains("in use"), "{error}");
    }
    drop((file, table));
    drop(Snapshot::open(folder.file()).unwrap());
}

#[test]
fn a_file_beside_it_that_is_not_needed_is_removed() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    run(&folder, &client, &[company(1)]).into_result().unwrap();
    // The process was killed before the other file was complete.
    fs::write(folder.0.join("companies.snapshot.tmp"), "mixpanel").unwrap();
    assert_eq!(run(&folder, &client, &[company(1)]), Report::default());
    assert_eq!(
        folder.files(),
        ["companies.snapshot", "companies.snapshot.lock"]
    );
}

#[test]
fn a_file_that_was_moved_away_does_not_come_back() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let first = run(&folder, &client, &[company(1)]);
    // The process was killed before the other file, which is complete, took its place.
    fs::rename(folder.file(), folder.0.join("companies.snapshot.tmp")).unwrap();
    assert_eq!(
        run(&folder, &client, &[company(1)]).accepted,
        first.accepted
    );
    assert!(first.accepted > 0);
}

#[test]
fn a_file_that_was_written_anew_has_lost_nothing_or_is_damaged() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    write_anew(&mut snapshot, &client(&emulator));
    drop(snapshot);
    let good = fs::read(folder.file()).unwrap();
    let cut = (44..good.len())
        .step_by(61)
        .map(|length| good[..length].to_vec());
    let flipped = (0..good.len()).step_by(37).map(|byte| {
        let mut bad = good.clone();
        bad[byte] ^= 1;
        bad
    });
    let mut damaged = 0;
    for bad in cut.chain(flipped) {
        fs::write(folder.file(), &bad).unwrap();
        match Snapshot::open(folder.file()) {
            // What was appended after that may look as if it was interrupted.
            Ok(snapshot) => assert_eq!(snapshot.len(), 20),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0);
}

/// Runs for so many nights that the file is written anew. Returns its greatest length and its last one.
pub(crate) fn many_nights(file: &Path, client: &Client) -> (u64, u64) {
    let mut longest = 0;
    let length = || fs::metadata(file).unwrap().len();
    for night in 0..60 {
        let companies = (0..20).map(|id| Company {
            plan: night,
            ..company(id)
        });
        let mut snapshot = Snapshot::open(file).unwrap();
        let report = snapshot.sync(client, companies).unwrap();
        assert_eq!(report.accepted, if night == 0 { 60 } else { 20 });
        longest = longest.max(length());
    }
    (longest, length())
}

#[test]
#[cfg(unix)]
fn a_symbolic_link_and_the_mode_stay() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let target = folder.0.join("target");
    // An empty file, as it is made to be mounted.
    fs::write(&target, "").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&target, folder.file()).unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let (longest, last) = many_nights(&folder.file(), &client.build().unwrap());
    assert!(last < longest / 2, "it was written anew: {longest}, {last}");
    assert!(fs::symlink_metadata(folder.file()).unwrap().is_symlink());
    let mode = fs::metadata(&target).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(Snapshot::open(&target).unwrap().len(), 20);
}

/// Makes a mount read-only. A process that another test is just starting shares our open files for a moment, so it may
/// have to be tried again.
fn make_read_only(mounted: &Path) {
    let remount = || {
        let mut mount = Command::new("mount");
        mount.args(["-o", "remount,ro"]).arg(mounted).output()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !remount().unwrap().status.success() {
        assert!(Instant::now() < deadline, "{:?}", remount());
    }
}

/// As at the first deployment of many, each of which links to what they share.
#[test]
#[cfg(unix)]
fn a_symbolic_link_is_followed_also_before_there_is_a_file() {
    use std::os::unix::fs::symlink;
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let shared = folder.0.join("shared");
    fs::create_dir(&shared).unwrap();
    symlink("shared/companies", folder.0.join("between")).unwrap();
    symlink("between", folder.file()).unwrap();
    let first = Snapshot::open(folder.file()).unwrap();
    let error = Snapshot::open(shared.join("companies")).unwrap_err();
    assert!(error.to_string().contains("in use by another run"));
    drop(first);
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let (longest, last) = many_nights(&folder.file(), &client.build().unwrap());
    assert!(last < longest / 2, "it was written anew: {longest}, {last}");
    assert!(fs::symlink_metadata(folder.file()).unwrap().is_symlink());
    assert_eq!(Snapshot::open(shared.join("companies")).unwrap().len(), 20);
}

#[test]
fn a_mounted_file_is_written_in_place() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let outside = Folder::new();
    fs::write(outside.file(), "").unwrap();
    fs::write(folder.file(), "").unwrap();
    let file = folder.file();
    let Some(mount) = Mount::new(&["--bind", outside.file().to_str().unwrap()], &file) else {
        return;
    };
    let error = fs::rename(folder.file(), folder.0.join("other")).unwrap_err();
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::ResourceBusy,
        "it is a mount"
    );
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let (longest, last) = many_nights(&file, &client.build().unwrap());
    assert!(last < longest / 2, "it was written anew: {longest}, {last}");
    assert_eq!(
        folder.files(),
        ["companies.snapshot", "companies.snapshot.lock"]
    );
    drop(mount);
    assert_eq!(fs::metadata(outside.file()).unwrap().len(), last);
    assert_eq!(Snapshot::open(outside.file()).unwrap().len(), 20);
}

fn is_in_use(file: &Path) -> bool {
    let Err(error) = Snapshot::open(file) else {
        return false;
    };
    assert!(
        error.to_string().contains("in use by another run"),
        "{error}"
    );
    true
}

/// Runs for so many nights, in one process, that the file is written anew.
fn write_anew(snapshot: &mut Snapshot, client: &Client) {
    for plan in 0..60 {
        let companies = (0..20).map(|id| Company {
            plan,
            ..company(id)
        });
        snapshot
            .sync(client, companies)
            .unwrap()
            .into_result()
            .unwrap();
    }
}

/// Each folder has a lock file of its own.
#[test]
#[cfg(unix)]
fn a_file_that_two_folders_have_is_in_use_by_one_run_at_a_time() {
    use std::os::unix::fs::MetadataExt as _;
    let (emulator, folder, other) = (Emulator::start().unwrap(), Folder::new(), Folder::new());
    let client = client(&emulator);
    let mut first = Snapshot::open(folder.file()).unwrap();
    let changed = first.sync(&client, [company(1)]).unwrap();
    changed.into_result().unwrap();
    fs::hard_link(folder.file(), other.file()).unwrap();
    assert!(is_in_use(&other.file()), "since it was made");
    let written = fs::metadata(folder.file()).unwrap().ino();
    write_anew(&mut first, &client);
    assert_ne!(fs::metadata(folder.file()).unwrap().ino(), written);
    fs::remove_file(other.file()).unwrap();
    fs::hard_link(folder.file(), other.file()).unwrap();
    assert!(is_in_use(&other.file()), "since it was written anew");
    drop(first);
    let second = Snapshot::open(other.file()).unwrap();
    assert_eq!(second.len(), 20);
    assert!(is_in_use(&folder.file()));
}

/// As it is in two containers with the file alone.
#[test]
fn a_file_that_is_mounted_twice_is_in_use_by_one_run_at_a_time() {
    let (emulator, outside) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    fs::write(outside.file(), "").unwrap();
    let containers = [Folder::new(), Folder::new()];
    let files = containers.each_ref().map(Folder::file);
    let mut mounts = Vec::new();
    for file in &files {
        fs::write(file, "").unwrap();
        let bind = ["--bind", outside.file().to_str().unwrap()].map(str::to_owned);
        let Some(mount) = Mount::new(&bind.each_ref().map(|word| &**word), file) else {
            return;
        };
        mounts.push(mount);
    }
    let [one, two] = &files;
    let mut first = Snapshot::open(one).unwrap();
    assert!(is_in_use(two));
    write_anew(&mut first, &client);
    assert!(is_in_use(two), "since it was written in place");
    drop(first);
    let second = Snapshot::open(two).unwrap();
    assert_eq!(second.len(), 20);
    assert!(is_in_use(one));
    drop((second, mounts));
}

#[test]
fn a_mounted_file_in_a_read_only_folder_is_locked_itself() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let outside = Folder::new();
    fs::write(outside.file(), "").unwrap();
    let Some(tmpfs) = Mount::new(&["-t", "tmpfs", "tmpfs"], &folder.0) else {
        return;
    };
    fs::write(folder.file(), "").unwrap();
    let file = folder.file();
    let bind = Mount::new(&["--bind", outside.file().to_str().unwrap()], &file).unwrap();
    make_read_only(&folder.0);
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let (longest, last) = many_nights(&file, &client.build().unwrap());
    assert_eq!(last, longest, "there is no room for another file");
    let first = Snapshot::open(&file).unwrap();
    let error = Snapshot::open(&file).unwrap_err();
    assert!(error.to_string().contains("in use by another run"));
    drop((first, bind, tmpfs));
    assert_eq!(Snapshot::open(outside.file()).unwrap().len(), 20);
}

#[test]
fn a_read_only_file_is_found_out_before_the_first_request() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let Some(mount) = Mount::new(&["-t", "tmpfs", "tmpfs"], &folder.0) else {
        return;
    };
    run(&folder, &client, &[company(1)]).into_result().unwrap();
    let requests = emulator.requests().len();
    make_read_only(&folder.0);
    // The data is as it was: nothing has to be written.
    assert_eq!(run(&folder, &client, &[company(1)]), Report::default());
    let changed = Company {
        plan: 2,
        ..company(1)
    };
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    let error = snapshot.sync(&client, [changed]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let text = format!("{error:#}");
    assert!(
        text.contains("companies.snapshot (1 undelivered): Read-only file system"),
        "{text}"
    );
    assert_eq!(emulator.requests().len(), requests);
    drop((snapshot, mount));
}

#[test]
fn a_full_volume_is_found_out_before_the_request_that_depends_on_it() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let Some(mount) = Mount::new(&["-t", "tmpfs", "-o", "size=64k", "tmpfs"], &folder.0) else {
        return;
    };
    let all = || (0..=255).map(company);
    fs::write(folder.0.join("other"), vec![0; 48 << 10]).unwrap();
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    let error = snapshot.sync(&client, all()).unwrap_err();
    assert!(
        format!("{error:#}").contains("No space left on device"),
        "{error:#}"
    );
    let accepted = error.report().unwrap().accepted;
    assert_eq!(emulator.requests().len() * 3, accepted);
    assert!((1..256 * 3).contains(&accepted), "{accepted}");

    // Once there is room, the rest is sent.
    fs::remove_file(folder.0.join("other")).unwrap();
    let report = snapshot.sync(&client, all()).unwrap();
    assert!(report.is_all_accepted());
    assert_eq!(emulator.profiles().len(), 256);
    assert_eq!(snapshot.sync(&client, all()).unwrap(), Report::default());
    drop((snapshot, mount));
}

/// The row that did not fit is of a request that was not started.
#[test]
fn a_volume_that_is_full_in_the_middle_of_a_write_makes_no_other_group_uncertain() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let Some(mount) = Mount::new(&["-t", "tmpfs", "-o", "size=64k", "tmpfs"], &folder.0) else {
        return;
    };
    run(&folder, &client, &(0..100).map(company).collect::<Vec<_>>())
        .into_result()
        .unwrap();
    // A page is left, and the changed groups need more.
    let other = folder.0.join("other");
    fs::write(&other, vec![0; 64 << 10]).unwrap_err();
    let free_a_page = |file: fs::File| file.set_len(file.metadata()?.len() - (4 << 10));
    let opened = fs::File::options().write(true).open(&other);
    opened.and_then(free_a_page).unwrap();
    let changed = || {
        let changed = (0..60).map(|id| Company {
            plan: 2,
            ..company(id)
        });
        changed.chain((60..100).map(company))
    };
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    let length = || fs::metadata(folder.file()).unwrap().len();
    let error = snapshot.sync(&client, changed()).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("No space left on device"), "{text}");
    assert!(text.contains(" bytes to the snapshot "), "{text}");
    drop(snapshot);
    let full = length();
    // Until there is room, it is read, and says the same.
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    let again = snapshot.sync(&client, changed()).unwrap_err();
    let text = format!("{again:#}");
    assert!(text.contains(" bytes to the snapshot "), "{text}");
    drop(snapshot);
    fs::remove_file(other).unwrap();

    let before = emulator.requests().len();
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    assert_eq!(length(), full);
    let report = snapshot.sync(&client, changed()).unwrap();
    assert!(report.is_all_accepted());
    let sent = emulator.requests().split_off(before);
    let sent: String = sent.iter().map(|request| &*request.body).collect();
    for id in 60..100 {
        assert!(!sent.contains(&format!("\"{id}\"")), "{id} is as it was");
    }
    assert_eq!(
        snapshot.sync(&client, changed()).unwrap(),
        Report::default()
    );
    drop((snapshot, mount));
}

/// As after damage of the disk since the file was opened.
#[test]
fn a_row_that_is_invalid_when_it_is_needed_is_an_error_that_names_the_file() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    run(&folder, &client, &[company(1)]).into_result().unwrap();
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    let mut bytes = fs::read(folder.file()).unwrap();
    let key = bytes.windows(7).position(|text| text == b"company");
    bytes[key.unwrap()] = 0xFF;
    fs::write(folder.file(), bytes).unwrap();
    let changed = Company {
        plan: 2,
        ..company(1)
    };
    let error = snapshot.sync(&client, [changed]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let file = folder.file().display().to_string();
    assert!(error.to_string().contains(&file), "{error}");
}

#[test]
fn a_folder_in_the_place_of_a_file_is_an_error_and_gets_nothing_beside_it() {
    let folder = Folder::new();
    fs::create_dir(folder.file()).unwrap();
    let error = Snapshot::open(folder.file()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let file = folder.file().display().to_string();
    assert!(error.to_string().contains(&file), "{error}");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}
