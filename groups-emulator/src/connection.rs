//! HTTP/1.1 over one socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use ureq_proto::http::{HeaderMap, Request, header};
use ureq_proto::server::state::{ProvideResponse, RecvBody};
use ureq_proto::server::{RecvRequestResult, Reply, SendResponseResult};

use crate::answer::Answer;

/// How much is read from the socket at once.
const CHUNK: usize = 64 * 1024;
/// The most that a head may take, the answer's too.
const MAX_HEAD: usize = 16 * 1024;
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

pub(crate) struct Connection<'a> {
    stream: &'a TcpStream,
    /// Where the socket's bytes come in.
    buffer: Vec<u8>,
    /// Those that are not used yet.
    input: Vec<u8>,
}

/// A request whose body is still to be read.
pub(crate) struct Unread(RecvRequestResult);

/// A request that waits for its answer.
pub(crate) struct Pending(Reply<ProvideResponse>);

impl<'a> Connection<'a> {
    pub(crate) fn new(stream: &'a TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; CHUNK],
            input: Vec::new(),
        })
    }

    /// The next request, if the client has one.
    pub(crate) fn head(&mut self) -> io::Result<Option<(Request<()>, Unread)>> {
        let mut reply = Reply::new().map_err(io::Error::other)?;
        let request = loop {
            match reply.try_request(&self.input) {
                Ok((used, Some(request))) => {
                    self.input.drain(..used);
                    break request;
                }
                Ok((_, None)) if self.input.len() <= MAX_HEAD => {
                    if !self.fill()? {
                        return Ok(None);
                    }
                }
                Ok(_) | Err(_) => {
                    self.stream.write_all(BAD_REQUEST)?;
                    return Ok(None);
                }
            }
        };
        Ok(reply.proceed().map(|next| (request, Unread(next))))
    }

    /// The request's body; nothing if it is larger than `max`. It is read to its end all the same:
    /// a client that is still writing does not look for an answer.
    pub(crate) fn body(
        &mut self,
        headers: &HeaderMap,
        unread: Unread,
        max: usize,
    ) -> io::Result<(Option<Vec<u8>>, Pending)> {
        let mut reply = match unread.0 {
            RecvRequestResult::ProvideResponse(reply) => {
                return Ok((Some(Vec::new()), Pending(reply)));
            }
            RecvRequestResult::RecvBody(reply) => reply,
            RecvRequestResult::Send100(reply) => {
                let mut line = [0; 64];
                let (written, reply) = reply.accept(&mut line).map_err(io::Error::other)?;
                self.stream.write_all(&line[..written])?;
                reply
            }
        };
        let body = if headers.contains_key(header::CONTENT_LENGTH)
            || headers.contains_key(header::TRANSFER_ENCODING)
        {
            self.read_body(&mut reply, max)?
        } else {
            // Such a request has no body (RFC 9112, 6.3), but this state machine waits for chunks.
            reply
                .read(b"0\r\n\r\n", &mut [])
                .map_err(io::Error::other)?;
            Vec::new()
        };
        let reply = reply.proceed().map_err(io::Error::other)?;
        let body = (body.len() <= max).then_some(body);
        Ok((body, Pending(reply)))
    }

    /// The body, or a little more than the first `max` bytes of it.
    fn read_body(&mut self, reply: &mut Reply<RecvBody>, max: usize) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let mut chunk = vec![0; CHUNK];
        while !reply.is_ended() {
            let (used, len) = reply
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

    /// Answers, and says whether the connection stays open.
    pub(crate) fn answer(&mut self, pending: Pending, answer: &Answer) -> io::Result<bool> {
        let (out, stays_open) = write_answer(pending, answer)?;
        self.stream.write_all(&out)?;
        Ok(stays_open)
    }

    /// Answers, but for the second half of the body.
    pub(crate) fn answer_half(&mut self, pending: Pending, answer: &Answer) -> io::Result<()> {
        let (out, _) = write_answer(pending, answer)?;
        let missing = answer.body.len().div_ceil(2);
        self.stream
            .write_all(&out[..out.len().saturating_sub(missing)])
    }

    /// Reads more of the input; nothing comes after the client has closed its side.
    fn fill(&mut self) -> io::Result<bool> {
        let read = self.stream.read(&mut self.buffer)?;
        self.input.extend_from_slice(&self.buffer[..read]);
        Ok(read > 0)
    }
}

fn write_answer(pending: Pending, answer: &Answer) -> io::Result<(Vec<u8>, bool)> {
    let head = answer.head().map_err(io::Error::other)?;
    let mut reply = pending.0.provide(head).map_err(io::Error::other)?;
    let mut out = vec![0; MAX_HEAD];
    let len = reply.write(&mut out).map_err(io::Error::other)?;
    if !reply.is_finished() {
        return Err(io::Error::other("the answer's head is too long"));
    }
    out.truncate(len);
    let done = match reply.proceed() {
        SendResponseResult::Cleanup(done) => done,
        SendResponseResult::SendBody(mut reply) => {
            out.extend_from_slice(answer.body.as_bytes());
            reply
                .consume_direct_write(answer.body.len())
                .map_err(io::Error::other)?;
            reply.proceed()
        }
    };
    Ok((out, !done.must_close_connection()))
}
