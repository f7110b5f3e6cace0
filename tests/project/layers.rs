//! The rooms of the core import one way: each knows those above it, never one below.

use std::fs;
use std::path::Path;

/// From the room that knows nothing of the others to those that know most.
const ROOMS: [&str; 9] = [
    "util", "group", "json", "record", "profile", "client", "outbox", "buffered", "snapshot",
];

/// Returns the rooms that a source file imports, by `crate::…` outside of comments.
fn imported(source: &str) -> impl Iterator<Item = &str> {
    let code = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let paths = code.flat_map(|line| line.split("crate::").skip(1));
    paths.map(|path| {
        path.split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .unwrap()
    })
}

fn check(path: &Path, own: usize) {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        return entries.for_each(|entry| check(&entry.unwrap().path(), own));
    }
    for name in imported(&fs::read_to_string(path).unwrap()) {
        let room = ROOMS.iter().position(|room| *room == name);
        let room =
            room.unwrap_or_else(|| panic!("{}: `crate::{name}` is not a room", path.display()));
        assert!(
            room <= own,
            "{}: imports `{name}`, a room below its own",
            path.display()
        );
    }
}

#[test]
fn rooms_import_only_those_above_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("groups-core/src");
    for (own, room) in ROOMS.iter().enumerate() {
        let folder = src.join(room);
        check(
            &if folder.is_dir() {
                folder
            } else {
                folder.with_extension("rs")
            },
            own,
        );
    }
    let mut listed: Vec<_> = ROOMS.map(str::to_owned).into();
    // The documentation, what names the rooms, and a test of several of them.
    listed.extend(["guide", "lib", "simulation"].map(str::to_owned));
    for entry in fs::read_dir(src).unwrap() {
        let name = entry
            .unwrap()
            .path()
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert!(listed.contains(&name), "{name} is in no room");
    }
}
