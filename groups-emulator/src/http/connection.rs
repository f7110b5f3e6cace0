use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use ureq_proto::http::{HeaderMap, Request, StatusCode, Version, header};
use ureq_proto::server::state::{ProvideResponse, RecvBody};
// In ureq-proto, `Reply` is the state machine of one request and its response.
use ureq_proto::server::{RecvRequestResult, Reply as Exchange, SendResponseResult};

use crate::reply::Reply;

/// The most that one read takes from the socket.
const CHUNK: usize = 64 * 1024;
/// The largest head, of a request and of a reply.
const MAX_HEAD: usize = CHUNK;
/// How a client that was given an `https` address begins.
const TLS_HANDSHAKE: &[u8] = b"\x16\x03";
/// The most that is read and dropped of a connection after a refusal, and how long the next of it may take.
const MAX_DROPPED: usize = 16 * CHUNK;
const PATIENCE: Duration = Duration::from_secs(1);

/// HTTP/1.1 over one socket.
pub(crate) struct HttpConnection<'a> {
    stream: &'a TcpStream,
    /// What one read fills.
    buffer: Vec<u8>,
    /// The bytes that were read and not used yet.
    input: Vec<u8>,
    /// Whether the last request was one of HTTP/1.0. Its connection is closed: the reply does not name `keep-alive`,
    /// without which such a client expects the end.
    is_http_1_0: bool,
}

/// The next thing to arrive on a connection.
pub(crate) enum Incoming {
    Request(Box<(Request<()>, UnreadBody)>),
    /// Something else than a request with a head that can be read: the reply to it.
    Unreadable(Reply),
    /// The client has closed the connection.
    End,
}

/// The state after a request's head, before its body.
pub(crate) struct UnreadBody(RecvRequestResult);

/// The state after a request's body, before the reply.
pub(crate) struct PendingReply(Exchange<ProvideResponse>);

impl<'a> HttpConnection<'a> {
    pub(crate) fn new(stream: &'a TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; CHUNK],
            input: Vec::new(),
            is_http_1_0: false,
        })
    }

    /// Reads the head of the next request.
    pub(crate) fn next_request(&mut self) -> io::Result<Incoming> {
        let mut exchange = Exchange::new().map_err(io::Error::other)?;
        let request = loop {
            match exchange.try_request(&self.input) {
                Ok((used, Some(request))) if used <= MAX_HEAD => {
                    self.input.drain(..used);
                    self.is_http_1_0 = request.version() == Version::HTTP_10;
                    break request;
                }
                Ok((_, None)) if self.input.len() <= MAX_HEAD => {
                    if !self.fill()? {
                        return Ok(Incoming::End);
                    }
                }
                Ok(_) => return Ok(Incoming::Unreadable(self.too_large())),
                Err(error) => {
                    return Ok(Incoming::Unreadable(self.unreadable(&error.to_string())));
                }
            }
        };
        Ok(match exchange.proceed() {
            Some(next) => Incoming::Request(Box::new((request, UnreadBody(next)))),
            None => Incoming::End,
        })
    }

    /// Returns the reply to what cannot be read as a head.
    fn unreadable(&self, error: &str) -> Reply {
        if self.input.len() > MAX_HEAD {
            return self.too_large();
        }
        if error.contains("too many headers") {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Reply::error(status, "the request has too many headers");
        }
        let reason = if self.input.starts_with(TLS_HANDSHAKE) {
            "this is TLS, not HTTP: use http:// in the client's endpoint"
        } else {
            &format!("this is not HTTP: {error}")
        };
        Reply::error(StatusCode::BAD_REQUEST, reason)
    }

    /// Returns the reply to a head that is too large: for its address, or as a whole.
    fn too_large(&self) -> Reply {
        let line = self.input.iter().position(|byte| *byte == b'\n');
        if line.is_none_or(|len| len > MAX_HEAD) {
            let reason = format!(
                "the address of the request is longer than {MAX_HEAD} bytes: send less, or with POST"
            );
            return Reply::error(StatusCode::URI_TOO_LONG, &reason);
        }
        let reason = format!("the head of the request is larger than {MAX_HEAD} bytes");
        Reply::error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &reason)
    }

    /// Replies to what cannot be read, which is the end of the connection.
    pub(crate) fn refuse(&mut self, reply: &Reply) -> io::Result<()> {
        let (status, body) = (reply.status, &reply.body);
        write!(
            self.stream,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len(),
        )?;
        self.stream.shutdown(Shutdown::Write)?;
        // What is left unread would reset the connection, and the client not see the reply. A client that sends no more and
        // does not close is not waited for.
        self.stream.set_read_timeout(Some(PATIENCE))?;
        let mut dropped = 0;
        while dropped < MAX_DROPPED {
            match self.stream.read(&mut self.buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => dropped += read,
            }
        }
        Ok(())
    }

    /// Reads a request's body. Returns `None` in place of a body larger than `max`.
    ///
    /// A body that is too large is read to its end all the same: a client does not read the reply
    /// before it has written its request.
    pub(crate) fn read_body(
        &mut self,
        headers: &HeaderMap,
        unread: UnreadBody,
        max: usize,
    ) -> io::Result<(Option<Vec<u8>>, PendingReply)> {
        let mut exchange = match unread.0 {
            RecvRequestResult::ProvideResponse(exchange) => {
                return Ok((Some(Vec::new()), PendingReply(exchange)));
            }
            RecvRequestResult::RecvBody(exchange) => exchange,
            RecvRequestResult::Send100(exchange) => {
                let mut line = [0; 64];
                let (written, exchange) = exchange.accept(&mut line).map_err(io::Error::other)?;
                self.stream.write_all(&line[..written])?;
                exchange
            }
        };
        let body = if headers.contains_key(header::CONTENT_LENGTH)
            || headers.contains_key(header::TRANSFER_ENCODING)
        {
            self.read_body_up_to(&mut exchange, max)?
        } else {
            // Such a request has no body (RFC 9112, 6.3), but this state machine expects chunks.
            exchange
                .read(b"0\r\n\r\n", &mut [])
                .map_err(io::Error::other)?;
            Vec::new()
        };
        let exchange = exchange.proceed().map_err(io::Error::other)?;
        let body = (body.len() <= max).then_some(body);
        Ok((body, PendingReply(exchange)))
    }

    /// Reads the body to its end, and returns at least its first `max + 1` bytes.
    fn read_body_up_to(
        &mut self,
        exchange: &mut Exchange<RecvBody>,
        max: usize,
    ) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let mut chunk = vec![0; CHUNK];
        while !exchange.is_ended() {
            let (used, len) = exchange
                .read(&self.input, &mut chunk)
                .map_err(io::Error::other)?;
            self.input.drain(..used);
            if body.len() <= max {
                body.extend_from_slice(&chunk[..len]);
            }
            if used == 0 && (self.input.len() > CHUNK || !self.fill()?) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(body)
    }

    /// Writes the reply. Returns whether the connection stays open.
    pub(crate) fn send(&mut self, pending: PendingReply, reply: &Reply) -> io::Result<bool> {
        let (bytes, stays_open) = write_reply(pending, reply, &mut self.buffer)?;
        self.stream.write_all(&bytes)?;
        Ok(stays_open && !self.is_http_1_0)
    }

    /// Writes the reply without the second half of its body.
    pub(crate) fn send_half(&mut self, pending: PendingReply, reply: &Reply) -> io::Result<()> {
        let (bytes, _) = write_reply(pending, reply, &mut self.buffer)?;
        let missing = reply.body.len().div_ceil(2);
        self.stream
            .write_all(&bytes[..bytes.len().saturating_sub(missing)])
    }

    /// Closes the connection, so that the client sees its end at once.
    pub(crate) fn close(&self) {
        // Fails only if the client has closed it already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Reads more input. Returns `false` if the client has closed its side.
    fn fill(&mut self) -> io::Result<bool> {
        let read = self.stream.read(&mut self.buffer)?;
        self.input.extend_from_slice(&self.buffer[..read]);
        Ok(read > 0)
    }
}

/// Returns the bytes of a reply, and whether the connection stays open after it. `buffer` has room for the head.
fn write_reply(
    pending: PendingReply,
    reply: &Reply,
    buffer: &mut [u8],
) -> io::Result<(Vec<u8>, bool)> {
    let head = reply.head().map_err(io::Error::other)?;
    let mut exchange = pending.0.provide(head).map_err(io::Error::other)?;
    let len = exchange.write(buffer).map_err(io::Error::other)?;
    if !exchange.is_finished() {
        let message = format!("the head of the reply is larger than {MAX_HEAD} bytes");
        return Err(io::Error::other(message));
    }
    let mut bytes = buffer[..len].to_vec();
    let done = match exchange.proceed() {
        SendResponseResult::Cleanup(done) => done,
        SendResponseResult::SendBody(mut exchange) => {
            bytes.extend_from_slice(reply.body.as_bytes());
            exchange
                .consume_direct_write(reply.body.len())
                .map_err(io::Error::other)?;
            exchange.proceed()
        }
    };
    Ok((bytes, !done.must_close_connection()))
}
