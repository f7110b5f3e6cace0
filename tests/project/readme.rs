//! What the README says about the project's files.

use std::fs;
use std::path::Path;

#[test]
fn the_tests_that_the_comparison_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, table) = readme.split_once("| shown by |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| !line.is_empty());
    let cells = rows.map(|row| row.trim_end_matches(" |").rsplit_once("| ").unwrap().1);
    let names: Vec<_> = cells.flat_map(|cell| cell.split(", ")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let path = name.trim_matches('`');
        let is_there = [root.join("tests"), root.to_owned()].map(|base| base.join(path).exists());
        assert!(is_there.contains(&true), "{name}");
    }
}
