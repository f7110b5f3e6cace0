//! The program `mixpanel-emulator`, as teams of other languages start it.
#![cfg(unix)]

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mixpanel-emulator");

/// Long enough for anything; reached only where a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Host and port.
    address: String,
}

impl Program {
    /// Starts the program on a free port, and reads the address that it prints.
    fn start(options: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        let command = command.args(["--port", "0"]).args(options);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim_end();
        let address = address.strip_prefix("A local Mixpanel listens on http://");
        Self {
            child,
            output,
            address: address.expect(&line).to_owned(),
        }
    }

    fn request(&self, head: &str, body: &str) -> String {
        request(&self.address, head, body).unwrap()
    }

    fn set(&self, token: &str, plan: &str) -> String {
        set(&self.address, token, plan).unwrap()
    }

    fn acme(&self) -> String {
        self.request("GET /emulator/group?key=company&id=acme", "")
    }

    /// Sends SIGTERM, as a container that is stopped does, and waits until the program has ended.
    fn terminate(self) {
        self.end("-TERM");
    }

    /// Sends a signal, and waits until the program has ended as if by itself.
    fn end(mut self, signal: &str) {
        send(signal, &self.child);
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{signal} does not end it");
            thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{signal}: {status}");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}

fn send(signal: &str, to: &Child) {
    let pid = to.id().to_string();
    let kill = Command::new("kill").args([signal, &pid]).status();
    assert!(kill.unwrap().success());
}

fn request(address: &str, head: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let len = body.len();
    let headers = "content-type: application/json\r\nconnection: close";
    let request =
        format!("{head} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\ncontent-length: {len}\r\n\r\n");
    stream.write_all((request + body).as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

fn set(address: &str, token: &str, plan: &str) -> io::Result<String> {
    let update = format!(
        r#"[{{"$token":"{token}","$group_key":"company","$group_id":"acme","$set":{{"plan":"{plan}"}}}}]"#
    );
    request(address, "POST /groups?verbose=1", &update)
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_takes_updates_and_shows_them() {
    let program = Program::start(&[]);
    let response = program.set("any", "free");
    assert!(response.contains(r#""status":1"#), "{response}");
    assert!(program.acme().contains(r#""profile":{"plan":"free"}"#));
    assert!(
        program
            .request("GET /", "")
            .contains("<title>Local Mixpanel</title>")
    );
    // Two run beside each other, as each has a port of its own.
    let other = Program::start(&[]);
    assert!(other.acme().contains(r#""profile":null"#));
    program.terminate();
    other.terminate();
}

#[test]
fn with_a_token_it_refuses_others() {
    let program = Program::start(&["--token", "RIGHT"]);
    let response = program.set("WRONG", "free");
    assert!(!response.contains(r#""status":1"#), "{response}");
    let response = program.set("RIGHT", "free");
    assert!(response.contains(r#""status":1"#), "{response}");
    program.terminate();
}

/// As by a container that has another name for this machine.
#[test]
fn an_allowed_host_may_be_used() {
    let program = Program::start(&["--allow-host", "host.docker.internal"]);
    for (host, status) in [("host.docker.internal:8080", 200), ("evil.example", 403)] {
        let mut stream = TcpStream::connect(&program.address).unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let begin = format!("HTTP/1.1 {status} ");
        assert!(response.starts_with(&begin), "{host}: {response:.200}");
    }
    program.terminate();
}

/// The second would overwrite what the first one keeps.
#[test]
fn two_cannot_keep_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    let options = ["--port", "0", "--keep", file.to_str().unwrap()];
    let first = Program::start(&options[2..]);
    let output = run(&options);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("is in use by another emulator"), "{error}");
    first.terminate();
    Program::start(&options[2..]).terminate();
}

#[test]
fn what_it_keeps_is_there_after_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    let options = ["--keep", file.to_str().unwrap()];
    let program = Program::start(&options);
    program.set("any", "pro");
    // It saves once a second.
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("pro")) {
        assert!(Instant::now() < deadline, "nothing is saved");
        thread::sleep(Duration::from_millis(20));
    }
    program.terminate();
    let program = Program::start(&options);
    assert!(program.acme().contains(r#""profile":{"plan":"pro"}"#));
    program.terminate();
}

/// Also within the second after which it saves by itself.
#[test]
fn what_was_acknowledged_before_a_signal_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let file = folder.path().join(signal);
        let options = ["--keep", file.to_str().unwrap()];
        let program = Program::start(&options);
        let address = program.address.clone();
        let (sender, acknowledged) = channel();
        let client = thread::spawn(move || {
            let is_acknowledged = |n: u64| {
                let response = set(&address, "any", &n.to_string());
                let is_acknowledged = response.is_ok_and(|text| text.contains(r#""status":1"#));
                is_acknowledged && sender.send(n).is_ok()
            };
            let mut n = 0;
            while is_acknowledged(n) {
                n += 1;
            }
        });
        for _ in 0..50 {
            acknowledged.recv_timeout(PATIENCE).unwrap();
        }
        program.end(signal);
        client.join().unwrap();
        let last = acknowledged.iter().last().unwrap_or(49);
        let acme = Program::start(&options).acme();
        let (_, kept) = acme.split_once(r#""profile":{"plan":""#).expect(&acme);
        let (kept, _) = kept.split_once('"').unwrap();
        assert!(
            kept.parse::<u64>().unwrap() >= last,
            "{kept} is kept of {last}"
        );
    }
}

/// A terminal signals each of its processes, and `npm run` passes the same signal on once more.
#[test]
fn a_signal_that_arrives_twice_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    let options = ["--keep", file.to_str().unwrap()];
    let mut program = Program::start(&options);
    program.set("any", "pro");
    // Enough that saving it takes a while.
    let text = "x".repeat(250);
    for batch in 0..20 {
        let update = |number| {
            format!(
                r#"{{"$token":"any","$group_key":"company","$group_id":"{batch}-{number}","$set":{{"text":"{text}"}}}}"#
            )
        };
        let updates: Vec<_> = (0..2_000).map(update).collect();
        let batch = format!("[{}]", updates.join(","));
        let response = program.request("POST /groups?verbose=1", &batch);
        assert!(response.contains(r#""status":1"#), "{response}");
    }
    send("-INT", &program.child);
    assert!(
        program.child.try_wait().unwrap().is_none(),
        "it still saves"
    );
    program.end("-INT");
    let acme = Program::start(&options).acme();
    assert!(acme.contains(r#""profile":{"plan":"pro"}"#), "{acme}");
}

/// Nothing is ever written into its file, so it does not get as far as an answer.
#[test]
fn an_impatient_second_signal_ends_what_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    let mut command = Command::new(PROGRAM);
    command.args(["--port", "0", "--keep"]).arg(&file);
    let mut child = command.spawn().unwrap();
    let (sender, opened) = channel();
    thread::spawn(move || sender.send(std::fs::File::options().write(true).open(file)));
    // The program opens it too, so it receives signals by now.
    let pipe = opened.recv_timeout(PATIENCE).unwrap().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        send("-INT", &child);
        thread::sleep(Duration::from_millis(600));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it does not end");
    };
    assert_eq!(status.code(), Some(1));
    drop(pipe);
}

fn run(options: &[&str]) -> Output {
    Command::new(PROGRAM).args(options).output().unwrap()
}

#[test]
fn help_version_and_mistakes() {
    let help = run(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.status.success() && text.contains("Usage: mixpanel-emulator"),
        "{text}"
    );
    // Each request of a test that it names is served.
    let program = Program::start(&[]);
    let requests: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(" /emulator/"))
        .collect();
    assert_eq!(requests.len(), 5, "{text}");
    for (method, rest) in requests {
        let name = rest.split(' ').next().unwrap();
        let head = format!("{} /emulator/{name}", method.trim());
        let response = program.request(&head, r#"{"status": 503}"#);
        assert!(response.starts_with("HTTP/1.1 20"), "{head}: {response}");
    }
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(
        version,
        concat!("mixpanel-emulator ", env!("CARGO_PKG_VERSION"), "\n")
    );
    for (options, expected) in [
        (
            &["--prot", "1"][..],
            "mixpanel-emulator: unknown option --prot: see --help\n",
        ),
        (
            &["--port"],
            "mixpanel-emulator: --port needs a value: see --help\n",
        ),
    ] {
        let output = run(options);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        let file = std::ffi::OsStr::from_bytes(b"--keep=\xFF.json");
        let output = Command::new(PROGRAM).arg(file).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "mixpanel-emulator: invalid argument --keep=\u{FFFD}.json: not UTF-8\n"
        );
    }
    // A port that is taken.
    let program = Program::start(&[]);
    let port = program.address.rsplit(':').next().unwrap();
    let output = run(&["--port", port]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "mixpanel-emulator: cannot listen on 127.0.0.1:{port}: choose another port, or 0 for any free one: "
    );
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with(&expected), "{error}"); // The cause is the system's.
}
