//! TCP connections on which a write ends in time.
//!
//! ureq's own count the time of a write anew whenever the system takes a part of it: over a line that hardly moves, a
//! request took many times its timeout.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, ShutdownHandle,
    Transport,
};

use crate::client::connector::{deadline, left_until, share};

/// Connects to the host, unless there is a connection through a proxy already.
#[derive(Debug)]
pub(super) struct TcpConnector;

pub(super) struct TcpTransport {
    /// Shared with what aborts a request.
    stream: Arc<TcpStream>,
    buffers: LazyBuffers,
}

impl<In: Transport> Connector<In> for TcpConnector {
    type Out = Either<In, TcpTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if chained.is_some() {
            return Ok(chained.map(Either::A));
        }
        let stream = Arc::new(connect(&details.addrs, details.timeout)?);
        stream.set_nodelay(true)?;
        (details.register_shutdown)(Arc::downgrade(&stream) as Weak<dyn ShutdownHandle>)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(TcpTransport { stream, buffers })))
    }
}

/// Connects to the first address that accepts. Each one may take half of the time that is left, and the last one all of
/// it.
fn connect(addresses: &[SocketAddr], timeout: NextTimeout) -> Result<TcpStream, Error> {
    let deadline = deadline(timeout);
    let mut failed = Error::HostNotFound;
    for (position, address) in addresses.iter().enumerate() {
        let is_last = position + 1 == addresses.len();
        let connected = match share(deadline, timeout, is_last)?.not_zero() {
            Some(time) => TcpStream::connect_timeout(address, *time),
            None => TcpStream::connect(address),
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error_of(error, timeout),
        }
    }
    Err(failed)
}

/// Returns what is left until the deadline.
fn time_left(deadline: Option<Instant>, timeout: NextTimeout) -> Result<Option<Duration>, Error> {
    let left = left_until(deadline, timeout)?;
    Ok(left.not_zero().map(|left| *left))
}

/// Returns what an error means, of which the system has two for one that came too late.
fn error_of(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let call = Call::new(&self.stream, TcpStream::set_write_timeout, timeout);
        let mut output = &self.buffers.output()[..amount];
        while !output.is_empty() {
            let written = call.run(|mut stream| stream.write(output))?;
            if written == 0 {
                return Err(io::Error::from(ErrorKind::WriteZero).into());
            }
            output = &output[written..];
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let call = Call::new(&self.stream, TcpStream::set_read_timeout, timeout);
        let input = self.buffers.input_append_buf();
        let read = call.run(|mut stream| stream.read(input))?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    /// Returns whether nothing has come since the last response, neither bytes nor the end.
    fn is_open(&mut self) -> bool {
        let mut stream = &*self.stream;
        let mut is_quiet = || {
            stream.set_nonblocking(true)?;
            let read = stream.read(&mut [0]);
            stream.set_nonblocking(false)?;
            Ok::<_, io::Error>(matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock))
        };
        is_quiet().unwrap_or(false)
    }
}

/// Calls of the system that are to end within one timeout.
struct Call<'a, F> {
    stream: &'a TcpStream,
    set_timeout: F,
    timeout: NextTimeout,
    deadline: Option<Instant>,
}

impl<'a, F: Fn(&TcpStream, Option<Duration>) -> io::Result<()>> Call<'a, F> {
    fn new(stream: &'a TcpStream, set_timeout: F, timeout: NextTimeout) -> Self {
        let deadline = deadline(timeout);
        Self {
            stream,
            set_timeout,
            timeout,
            deadline,
        }
    }

    /// Calls the system within the time that is left, again where a signal interrupts it.
    fn run(&self, mut call: impl FnMut(&TcpStream) -> io::Result<usize>) -> Result<usize, Error> {
        loop {
            let left = time_left(self.deadline, self.timeout)?;
            match (self.set_timeout)(self.stream, left) {
                // macOS, once the peer has closed the connection. The call returns the reason.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                set => set?,
            }
            match call(self.stream) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                called => return called.map_err(|error| error_of(error, self.timeout)),
            }
        }
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TcpTransport")
    }
}
