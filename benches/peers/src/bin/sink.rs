//! A server that counts what one peer sends it: `sink NAME VERSION UPDATES COMMAND [ARGUMENT…]`.
//!
//! The command finds the server's address in `ENDPOINT` and how many updates it is to send in
//! `UPDATES`, and prints the seconds that took. Then this prints the peer's line of the table:
//! name, version, updates, requests, bytes, seconds and updates a second. It fails if the server
//! did not see each update.

use std::env;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use flate2::read::GzDecoder;
use memchr::memmem;
use peers::Result;

#[derive(Default)]
struct Seen {
    requests: usize,
    /// Heads and bodies.
    bytes: usize,
    updates: usize,
    /// Compressed bodies, kept until the peer is done: unpacking them takes longer than the peer
    /// needs for the next.
    packed: Vec<Vec<u8>>,
}

fn main() -> Result {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [name, version, updates, program, arguments @ ..] = &arguments[..] else {
        return Err("sink NAME VERSION UPDATES COMMAND [ARGUMENT…]".into());
    };
    let expected: usize = updates.parse()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let seen = Mutex::default();
    let over = AtomicBool::new(false);
    let seconds = thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &seen, &over));
        let seconds = run(program, arguments, address, updates);
        over.store(true, Ordering::Relaxed);
        TcpStream::connect(address)?; // wakes the server
        seconds
    })?;

    let mut seen = seen.into_inner()?;
    for body in seen.packed {
        let mut text = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut text)?;
        seen.updates += updates_in(&text);
    }
    if seen.updates != expected {
        return Err(format!("{name}: {} of {updates} updates arrived", seen.updates).into());
    }
    let Seen {
        requests, bytes, ..
    } = seen;
    let rate = expected as f64 / seconds;
    println!("{name}\t{version}\t{updates}\t{requests}\t{bytes}\t{seconds:.3}\t{rate:.0}");
    Ok(())
}

/// The seconds that a peer says it took.
fn run(program: &str, arguments: &[String], address: SocketAddr, updates: &str) -> Result<f64> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("ENDPOINT", format!("http://{address}"))
        .env("UPDATES", updates)
        .stderr(Stdio::inherit());
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(proxy).env_remove(proxy.to_lowercase());
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{program}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Takes connections until it is over, and lets each come to its end.
fn serve(listener: &TcpListener, seen: &Mutex<Seen>, over: &AtomicBool) {
    thread::scope(|scope| {
        for stream in listener.incoming().flatten() {
            if over.load(Ordering::Relaxed) {
                break;
            }
            // An error is how some leave; what they did not send is missed in the count.
            scope.spawn(|| drop(converse(stream, seen)));
        }
    });
}

/// Responds to each request at once, and then looks at what it brought while the peer prepares the
/// next.
fn converse(mut stream: TcpStream, seen: &Mutex<Seen>) -> Result {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let mut filled = 0;
        let head = loop {
            match stream.read(&mut buffer[filled..])? {
                0 => return Ok(()),
                read => filled += read,
            }
            if let Some(head) = Head::read(&buffer[..filled])? {
                break head;
            }
        };
        let end = head.bytes + head.length;
        buffer.resize(end.max(buffer.len()), 0);
        let rest = buffer.get_mut(filled..end).ok_or("more than one request")?;
        stream.read_exact(rest)?;
        stream.write_all(head.response())?;

        let mut seen = seen.lock().map_err(|_| "another connection failed")?;
        seen.requests += 1;
        seen.bytes += end;
        let body = &buffer[head.bytes..end];
        if head.gzip {
            seen.packed.push(body.to_vec());
        } else {
            seen.updates += updates_in(body) + updates_in(&head.data);
        }
    }
}

/// What of a request's head matters here.
#[derive(Default)]
struct Head {
    bytes: usize,
    /// Of the body.
    length: usize,
    gzip: bool,
    form: bool,
    /// `data` of the query, where some send an update.
    data: Vec<u8>,
}

impl Head {
    /// Nothing if it is not all there yet.
    fn read(bytes: &[u8]) -> Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(bytes) = request.parse(bytes)? else {
            return Ok(None);
        };
        let mut head = Self {
            bytes,
            ..Self::default()
        };
        for header in request.headers.iter() {
            let value = str::from_utf8(header.value)?;
            match &*header.name.to_ascii_lowercase() {
                "content-length" => head.length = value.parse()?,
                "content-encoding" => head.gzip = value == "gzip",
                "content-type" => head.form = value.contains("form-urlencoded"),
                _ => {}
            }
        }
        let (_, query) = request
            .path
            .and_then(|path| path.split_once('?'))
            .unwrap_or_default();
        let mut query = form_urlencoded::parse(query.as_bytes());
        if let Some((_, data)) = query.find(|(name, _)| name == "data") {
            head.data = BASE64_STANDARD.decode(&*data)?;
        }
        Ok(Some(head))
    }

    /// Success in the words that the peer looks for: the Python SDK, the only one that sends a
    /// form, asks for JSON in it.
    fn response(&self) -> &'static [u8] {
        if self.form {
            b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{\"status\":1,\"error\":null}"
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
        }
    }
}

/// Each update names its group's key once, in whatever form it comes; so does PostHog's event.
fn updates_in(text: &[u8]) -> usize {
    memmem::find_iter(text, "group_key").count()
}
