//! An example of the workspace, run as a user runs it.

use std::env;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::eventually;

/// An example that runs. It is killed if the test ends before it does.
pub struct Example {
    child: Child,
    printed: Output,
    errors: Output,
}

/// What an example that has ended wrote.
pub struct Ended {
    pub status: ExitStatus,
    pub printed: String,
    pub errors: String,
}

impl Example {
    /// Returns the command that runs an example, without the variables that would make it use a real project.
    pub fn command(name: &str) -> Command {
        // The gate has built it just now, with the tests.
        if env::var_os("CI").is_none() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--locked", "--example", name]);
            build.args((!cfg!(debug_assertions)).then_some("--release"));
            assert!(build.status().unwrap().success());
        }
        let test = env::current_exe().unwrap();
        let examples = test.parent().unwrap().join("../examples");
        let mut command = Command::new(examples.join(name));
        for variable in ["TOKEN", "REGION", "ENDPOINT"] {
            command.env_remove(format!("MIXPANEL_{variable}"));
        }
        command
    }

    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            printed: Output::of(child.stdout.take().unwrap()),
            errors: Output::of(child.stderr.take().unwrap()),
            child,
        }
    }

    /// Runs it to its end.
    pub fn run(command: &mut Command) -> Ended {
        Self::start(command).end()
    }

    /// Waits for a line on the standard output that has these words, and returns what follows them.
    #[track_caller]
    pub fn wait_for(&self, words: &str) -> String {
        let mut found = None;
        eventually(words, || {
            let text = self.printed.text.lock().unwrap();
            let mut lines = text.split_inclusive('\n').filter(|it| it.ends_with('\n'));
            found = lines.find_map(|line| Some(line.trim_end().split_once(words)?.1.to_owned()));
            found.is_some()
        });
        found.unwrap()
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let kill = kill.args([format!("-{name}"), self.child.id().to_string()]);
        assert!(kill.status().unwrap().success());
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let mut status = None;
        eventually("ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        Ended {
            status: status.unwrap(),
            printed: self.printed.all(),
            errors: self.errors.all(),
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What arrives on a pipe, read by a thread so that the example never waits for its reader.
struct Output {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::<Mutex<String>>::default();
        let its_text = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe
                .read_until(b'\n', &mut line)
                .is_ok_and(|length| length > 0)
            {
                *its_text.lock().unwrap() += &String::from_utf8_lossy(&line);
                line.clear();
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    /// Returns everything that a process wrote that has ended.
    fn all(&mut self) -> String {
        self.reader.take().unwrap().join().unwrap();
        self.text.lock().unwrap().clone()
    }
}
