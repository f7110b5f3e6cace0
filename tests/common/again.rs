//! This program once more, as another process.

use std::any::type_name;
use std::env;
use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command};

/// Returns the command that runs this program again with one of its tests alone, also if that is ignored.
pub fn again<F: Fn()>(_test: F) -> Command {
    // "outbox::sqlite::crash::child" in the binary `outbox`.
    let (_, name) = type_name::<F>()
        .split_once("::")
        .expect("a test in a crate");
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([name, "--exact", "--include-ignored"]);
    command.args(["--nocapture", "--test-threads=1"]);
    command
}

/// Runs a test again in a process of its own, with these variables. Returns whether this is that process.
pub fn is_own_process<F: Fn()>(test: F, variables: &[(&str, &str)]) -> bool {
    const NAME: &str = "TEST_IN_A_PROCESS_OF_ITS_OWN";
    if env::var_os(NAME).is_some() {
        return true;
    }
    let mut command = again(test);
    // Whoever tries the library may have them.
    for name in ["MIXPANEL_TOKEN", "MIXPANEL_REGION", "MIXPANEL_ENDPOINT"] {
        command.env_remove(name);
    }
    let command = command.env(NAME, "1").envs(variables.iter().copied());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// Says something to the process that started this one. The line is out before anything else is done.
pub fn say(word: &str, what: impl Display) {
    let line = format!("\n> {word} {what}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// What a process says, a word and the rest; the test runner's own lines are left out.
pub fn said(child: &mut Child) -> impl Iterator<Item = (String, String)> + use<> {
    let output = child.stdout.take().expect("a pipe");
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    lines.filter_map(|line| {
        let (word, rest) = line.strip_prefix("> ")?.split_once(' ')?;
        Some((word.to_owned(), rest.to_owned()))
    })
}
