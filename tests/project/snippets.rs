//! The examples of the documentation show each import that what they show needs.

use std::path::Path;
use std::{fs, process};

/// The lines of an example that are hidden (`# …`), and those that are shown.
#[derive(Default)]
struct Snippet<'a> {
    hidden: Vec<&'a str>,
    shown: Vec<&'a str>,
}

impl Snippet<'_> {
    /// Returns the names that are imported in a hidden line and used in one that is shown.
    fn missing(&self) -> Vec<&str> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let uses = |name: &str| {
            let shown = self.shown.iter();
            let mut code = shown.map(|line| line.split(" // ").next().unwrap());
            code.any(|line| {
                let mut places = line.match_indices(name);
                places.any(|(at, _)| {
                    let (before, after) = (&line[..at], &line[at + name.len()..]);
                    !before.ends_with(is_part)
                        && !before.ends_with("::")
                        && !after.starts_with(is_part)
                })
            })
        };
        let imports = self
            .hidden
            .iter()
            .filter_map(|line| line.strip_prefix("use "));
        let names =
            imports.flat_map(|path| path.rsplit("::").next().unwrap().split(|c| !is_part(c)));
        names
            .filter(|name| !name.is_empty() && uses(name))
            .collect()
    }
}

/// Returns the examples in Rust of a page, or of a source file's doc comments.
fn snippets(text: &str, is_source: bool) -> Vec<Snippet<'_>> {
    let mut snippets = Vec::new();
    let mut open: Option<(bool, Snippet<'_>)> = None;
    for line in text.lines() {
        let mut line = line.trim();
        if is_source {
            let doc = line
                .strip_prefix("///")
                .or_else(|| line.strip_prefix("//!"));
            let Some(doc) = doc else { continue };
            line = doc.trim();
        }
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                let is_rust = ["", "rust", "no_run", "should_panic"]
                    .contains(&language.split(',').next().unwrap());
                open = Some((is_rust, Snippet::default()));
            }
            (Some(_), Some(_)) => snippets.extend(
                open.take()
                    .filter(|(is_rust, _)| *is_rust)
                    .map(|(_, snippet)| snippet),
            ),
            (None, Some((_, snippet))) => match line.strip_prefix("# ") {
                Some(hidden) => snippet.hidden.push(hidden.trim()),
                None => snippet.shown.push(line),
            },
            (None, None) => {}
        }
    }
    snippets
}

#[test]
fn examples_show_the_imports_that_they_need() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = process::Command::new("git")
        .args(["ls-files", "README.md", "groups-*.md", "groups-*.rs"])
        .current_dir(root)
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let mut count = 0;
    for file in list.lines().filter(|file| root.join(file).is_file()) {
        let text = fs::read_to_string(root.join(file)).unwrap();
        for snippet in snippets(&text, file.ends_with(".rs")) {
            count += 1;
            assert_eq!(
                snippet.missing(),
                [""; 0],
                "{file}: {:?}",
                snippet.shown.first()
            );
        }
    }
    assert!(count > 60, "{count}");
}
