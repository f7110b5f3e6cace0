//! Benchmarks whose server and clients are processes of their own: the same program once more, in a role.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The program once more, in the role that the variable `ROLE` names.
pub fn role(role: &str) -> Command {
    let program = std::env::args_os().next().unwrap_or_default();
    let mut command = Command::new(program);
    command.env("ROLE", role);
    command
}

/// Starts the program in the role `server`, and returns its endpoint.
pub fn start_server() -> Result<(Child, String)> {
    let mut server = role("server").stdout(Stdio::piped()).spawn()?;
    let mut endpoint = String::new();
    let stdout = server.stdout.take().ok_or("no output")?;
    BufReader::new(stdout).read_line(&mut endpoint)?;
    Ok((server, endpoint.trim_end().to_owned()))
}

/// The role `server`: takes everything, looks at nothing, and responds after that time.
pub fn serve(response_time: Duration) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("http://{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || respond_to_all(&stream, response_time));
    }
    Ok(())
}

fn respond_to_all(mut stream: &TcpStream, response_time: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    loop {
        let (mut line, mut len) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                len = value.trim_end().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut reader.by_ref().take(len), &mut std::io::sink())?;
        thread::sleep(response_time);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1")?;
    }
}

#[allow(dead_code)] // Not every benchmark needs it.
/// A line of `/proc/self/status` in kilobytes, on Linux.
pub fn memory(line: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|other| other.strip_prefix(line));
    Ok(value
        .and_then(|value| value.split_whitespace().next())
        .ok_or("no such line")?
        .parse()?)
}
