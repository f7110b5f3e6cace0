//! A server of a few lines, for responses that no HTTP library would give.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub(crate) struct Raw {
    pub(crate) endpoint: String,
    connections: Arc<AtomicUsize>,
}

impl Raw {
    /// Calls `serve` with each connection and its number, one after the other. The thread ends with
    /// the test's process.
    pub(crate) fn start(mut serve: impl FnMut(TcpStream, usize) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), counter.fetch_add(1, Ordering::SeqCst));
            }
        });
        Self {
            endpoint,
            connections,
        }
    }

    /// Responds so to every request, and closes the connection then.
    pub(crate) fn responding(response: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        Self::start(move |stream, _| {
            let body = read_request(&stream).unwrap();
            // The client need not listen to the end.
            let _ = (&stream).write_all(&response(&body));
        })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// The body of the request that comes next.
pub(crate) fn read_request(stream: &TcpStream) -> io::Result<String> {
    read_head(stream)?.read_body(stream)
}

/// The whole request that comes next.
pub(crate) fn read_head_and_body(stream: &TcpStream) -> io::Result<String> {
    let head = read_head(stream)?;
    let body = head.read_body(stream)?;
    Ok(head.text + &body)
}

/// The head of a request.
pub(crate) struct Head {
    text: String,
    /// How many bytes the body has.
    pub(crate) len: usize,
}

/// Reads a head and no byte more.
pub(crate) fn read_head(mut stream: &TcpStream) -> io::Result<Head> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        text.extend(byte);
    }
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    let lower = text.to_ascii_lowercase();
    let len = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let len = len.map_or(Ok(0), |len| len.trim().parse());
    let len = len.map_err(io::Error::other)?;
    Ok(Head { text, len })
}

impl Head {
    pub(crate) fn read_body(&self, mut stream: &TcpStream) -> io::Result<String> {
        let mut body = vec![0; self.len];
        stream.read_exact(&mut body)?;
        String::from_utf8(body).map_err(io::Error::other)
    }
}

/// A whole response.
pub(crate) fn response(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let len = body.len();
    let head = format!("HTTP/1.1 {status} Any\r\nconnection: close\r\ncontent-length: {len}\r\n");
    [&head, headers, "\r\n", body].concat().into_bytes()
}

/// A response whose body ends too early.
pub(crate) fn cut_off(status: u16, headers: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} Any\r\ncontent-length: 1000\r\n");
    [&head, headers, "\r\n", r#"{"error": "Too"#]
        .concat()
        .into_bytes()
}
