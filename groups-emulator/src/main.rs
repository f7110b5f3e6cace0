//! `mixpanel-emulator`: the emulator as a program, for teams in any language.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use mixpanel_groups_emulator::Emulator;

/// How often the file is written.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// A signal that comes so long after the first one ends the program at once. An earlier one may be the same once more: a
/// terminal signals all its processes, and some pass the signal on to their children.
#[cfg(unix)]
const PATIENCE: Duration = Duration::from_secs(1);

const HELP: &str = "\
A stand-in for Mixpanel's group profiles and event import, on 127.0.0.1.

Usage: mixpanel-emulator [OPTIONS]

Options:
  --port PORT            the port (default: 8080; 0: any free one)
  --token TOKEN          the project's token (default: any)
  --keep FILE            a file that keeps profiles and events from run to run, written
                         every second and when SIGTERM or Ctrl-C ends the program
  --allow-origin ORIGIN  an origin whose web pages may send, such as https://app.example.com;
                         can be repeated (pages of this machine may always)
  --allow-host NAME      a name by which programs reach the emulator, such as
                         host.docker.internal; can be repeated (addresses and localhost always)
  -h, --help             this text
  --version              the version

Open the address that it prints in a browser to see what arrives. For tests:
  GET /emulator/snapshot      all profiles and events, as JSON
  POST /emulator/fail_next    a fault of the next request, such as {\"status\": 503}
  POST /emulator/fail_always  a fault of every request, until recover
  POST /emulator/recover      no faults
  POST /emulator/reset        forgets everything

The README lists the faults, and how to point official SDKs here.";

pub(crate) fn main() -> ExitCode {
    match arguments().and_then(|arguments| run(arguments.into_iter())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(io::stderr(), format_args!("mixpanel-emulator: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns the arguments, of which each is text: the name of a file that is not would be that of another one.
fn arguments() -> Result<Vec<String>, Box<dyn Error>> {
    let arguments = std::env::args_os().skip(1);
    let arguments: Result<_, _> = arguments.map(OsString::into_string).collect();
    arguments.map_err(|argument| {
        let argument = argument.display();
        format!("invalid argument {argument}: not UTF-8").into()
    })
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let mut emulator = Emulator::builder().port(8080);
    while let Some(argument) = arguments.next() {
        let (option, given) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        match option {
            "--help" | "-h" => {
                say(io::stdout(), HELP);
                return Ok(());
            }
            "--version" => {
                say(
                    io::stdout(),
                    concat!("mixpanel-emulator ", env!("CARGO_PKG_VERSION")),
                );
                return Ok(());
            }
            "--port" | "--token" | "--keep" | "--allow-origin" | "--allow-host" => {}
            other => return Err(format!("unknown option {other}: see --help").into()),
        }
        let Some(value) = given.or_else(|| arguments.next()) else {
            return Err(format!("{option} needs a value: see --help").into());
        };
        emulator = match option {
            "--port" => match value.parse() {
                Ok(port) => emulator.port(port),
                Err(_) => {
                    return Err(format!("invalid port {value}: expected 0 to 65535").into());
                }
            },
            "--token" => emulator.token(value),
            "--keep" => emulator.keep(value),
            "--allow-host" => emulator.allow_host(value),
            _ => emulator.allow_origin(value),
        };
    }
    let (end, ended) = sync_channel(1);
    #[cfg(unix)]
    end_by_signal(end)?;
    #[cfg(not(unix))]
    let _never: SyncSender<()> = end;
    let emulator = emulator.start()?;
    say(
        io::stdout(),
        format_args!("A local Mixpanel listens on {}", emulator.endpoint()),
    );
    let mut is_saved = true;
    while ended.recv_timeout(SAVE_EVERY) == Err(RecvTimeoutError::Timeout) {
        match emulator.save() {
            Ok(()) => is_saved = true,
            // For instance a full disk: it may have room again.
            Err(error) if is_saved => {
                is_saved = false;
                say(
                    io::stderr(),
                    format_args!("{error:#}; trying again every second"),
                );
            }
            Err(_) => {}
        }
    }
    // For its error: the drop, which saves what has come meanwhile, has none.
    Ok(emulator.save()?)
}

/// Writes a line. Its reader may have gone, and the program works all the same.
fn say(mut to: impl io::Write, line: impl fmt::Display) {
    let _ = writeln!(to, "{line}");
}

/// Starts the thread that receives SIGINT and SIGTERM, also while a file cannot be read or written.
#[cfg(unix)]
fn end_by_signal(end: SyncSender<()>) -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use std::time::Instant;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let receive = move || {
        let mut first = None;
        for _ in &mut signals {
            if first.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                std::process::exit(1);
            }
            let _ = end.try_send(()); // One is enough.
        }
    };
    std::thread::Builder::new().spawn(receive).map(drop)
}

#[cfg(test)]
mod tests {
    use super::run;

    fn run_with(arguments: &str) -> Result<(), String> {
        let arguments = arguments.split_whitespace().map(str::to_owned);
        run(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_wrong_with_the_options_is_said() {
        for (arguments, error) in [
            ("--prot 1", "unknown option --prot: see --help"),
            ("--prot=1", "unknown option --prot: see --help"),
            ("--port=x", "invalid port x: expected 0 to 65535"),
            ("--port", "--port needs a value: see --help"),
            ("--port 70000", "invalid port 70000: expected 0 to 65535"),
            ("--port 0 --keep", "--keep needs a value: see --help"),
        ] {
            assert_eq!(run_with(arguments).unwrap_err(), error);
        }
        assert_eq!(run_with("--help"), Ok(()));
        assert_eq!(run_with("--port=1 --token T -h"), Ok(()));
        assert_eq!(run_with("--port 1 --version"), Ok(()));
        // It gets as far as the file.
        let error = run_with(
            "--port 0 --token T --allow-origin http://a.example --allow-host a.example --keep /",
        )
        .unwrap_err();
        assert!(
            error.starts_with("cannot read the emulator's file"),
            "{error}"
        );
    }
}
