//! A PostgreSQL server to test against: the one that `MIXPANEL_TEST_POSTGRES` names, or one that is
//! started for this process, in a temporary folder, and ends with it.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use postgres::{Client, Config, NoTls};

use crate::{say_missing, say_skipped};

/// A connection string in this variable names the server.
pub const VARIABLE: &str = "MIXPANEL_TEST_POSTGRES";

/// How to reach a server; if there is none, says so, and what to do. On CI that is a failure.
pub fn server() -> Option<Config> {
    connection_string().map(|config| config.parse().expect("a connection string"))
}

/// The same as text, for other processes.
pub fn connection_string() -> Option<String> {
    static SERVER: OnceLock<Result<String, String>> = OnceLock::new();
    match SERVER.get_or_init(find_or_start) {
        Ok(config) => Some(config.clone()),
        Err(why) => {
            let test = thread::current();
            let test = test.name().unwrap_or("test").to_owned();
            say_missing(format_args!(
                "{test}: {why}. Set {VARIABLE} to the connection string of a PostgreSQL \
                 15 or newer, or install one: apt-get install postgresql"
            ));
            None
        }
    }
}

fn find_or_start() -> Result<String, String> {
    if let Ok(given) = env::var(VARIABLE) {
        return Ok(given);
    }
    let programs = programs().ok_or("no PostgreSQL 15 or newer is installed")?;
    start(&programs)
}

/// Whether the server is one of this machine that the tests have started: they know its processes, and how to log in. If it
/// is another one, says what is skipped.
pub fn is_ours(what: &str) -> bool {
    let is_ours = env::var_os(VARIABLE).is_none();
    if !is_ours {
        say_skipped(format_args!("{what}: {VARIABLE} is set"));
    }
    is_ours
}

/// The same as [`programs`]; if there are none, says so. On CI that is a failure.
pub fn programs_for(what: &str) -> Option<PathBuf> {
    let programs = programs();
    if programs.is_none() {
        say_missing(format_args!(
            "{what}: no PostgreSQL 15 or newer is installed"
        ));
    }
    programs
}

/// Where the newest server's programs are.
pub fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let version = versions
        .filter_map(|folder| folder.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|version| *version >= 15)
        .max()?;
    let programs = PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"));
    programs.join("initdb").exists().then_some(programs)
}

/// PostgreSQL does not run as root.
pub fn unprivileged(program: &Path) -> Command {
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout == b"0\n");
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    command.arg(program);
    command
}

fn start(programs: &Path) -> Result<String, String> {
    let data = env::temp_dir().join(format!("mixpanel-groups-postgres.{}", process::id()));
    create(programs, &data)?;
    let options = "-c track_commit_timestamp=on -c max_prepared_transactions=10";
    let (server, port) = serve(programs, &data, options)?;
    // Never closed: it is open as long as this process lives.
    std::mem::forget(server);
    let config = connection_string_of(port);
    wait_for(&config, &data)?;
    Ok(config)
}

pub fn connection_string_of(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user=test dbname=postgres")
}

/// Creates the data of a server, whose user is `test`.
pub fn create(programs: &Path, data: &Path) -> Result<(), String> {
    run(unprivileged(&programs.join("initdb"))
        .args([
            "--auth=trust",
            "--username=test",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--pgdata",
        ])
        .arg(data))
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command.current_dir("/").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Starts a server on a folder and a free port. It ends, and the folder goes, when what this returns is dropped or this
/// process ends, however it does.
pub fn serve(programs: &Path, data: &Path, options: &str) -> Result<(ChildStdin, u16), String> {
    let failed = |what: &str, error: io::Error| format!("cannot {what}: {error}");
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| failed("find a free port", error))?
        .port();
    let script = r#""$0" -D "$1" -p "$2" -k "" -c listen_addresses=127.0.0.1 \
        -c log_min_messages=panic $3 2>"$1/log" </dev/null &
        read -r _; kill -INT $!; wait $!; rm -rf "$1""#;
    let mut shell = unprivileged(Path::new("sh"))
        .args(["-c", script])
        .arg(programs.join("postgres"))
        .arg(data)
        .args([&port.to_string(), options])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed("start the server", error))?;
    Ok((shell.stdin.take().expect("piped"), port))
}

/// Waits until a server responds.
pub fn wait_for(config: &str, data: &Path) -> Result<(), String> {
    let started = Instant::now();
    while let Err(error) = Client::connect(config, NoTls) {
        if started.elapsed() > Duration::from_secs(60) {
            let log = fs::read_to_string(data.join("log")).unwrap_or_default();
            return Err(format!("the server does not respond: {error}\n{log}"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
