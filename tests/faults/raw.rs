//! A server of a few lines, for answers that no HTTP library would give.

use std::io::{self, BufRead, BufReader, Read, Write};
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

    /// Answers every request so, and closes the connection then.
    pub(crate) fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        Self::start(move |stream, _| {
            let body = read_request(&stream).unwrap();
            // The client need not listen to the end.
            let _ = (&stream).write_all(&answer(&body));
        })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// The body of the request that comes next.
pub(crate) fn read_request(stream: &TcpStream) -> io::Result<String> {
    let (_, body) = read(stream)?;
    Ok(body)
}

/// The whole request that comes next.
pub(crate) fn read_head_and_body(stream: &TcpStream) -> io::Result<String> {
    let (head, body) = read(stream)?;
    Ok(head + &body)
}

fn read(stream: &TcpStream) -> io::Result<(String, String)> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut len) = (String::new(), 0);
    loop {
        let start = head.len();
        reader.read_line(&mut head)?;
        let line = head[start..].trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            len = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).map_err(io::Error::other)?;
    Ok((head, body))
}

/// A whole answer.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let len = body.len();
    let head = format!("HTTP/1.1 {status} Any\r\nconnection: close\r\ncontent-length: {len}\r\n");
    [&head, headers, "\r\n", body].concat().into_bytes()
}
