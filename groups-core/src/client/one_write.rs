//! Writes the head of a request and its body together.
//!
//! ureq writes one after the other: two calls of the system, two packets, and a server that is woken for half a request.

use std::io;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Wraps the connection above TLS, where heads can be read.
#[derive(Debug)]
pub(super) struct OneWriteConnector;

#[derive(Debug)]
pub(super) struct OneWriteTransport<T> {
    transport: T,
    /// The head that waits for its body.
    head: Vec<u8>,
}

impl<In: Transport> Connector<In> for OneWriteConnector {
    type Out = OneWriteTransport<In>;

    fn connect(
        &self,
        _details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|transport| OneWriteTransport {
            transport,
            head: Vec::new(),
        }))
    }
}

/// Returns whether this is a head whose body has so many bytes at most, and at least one.
fn has_body_within(head: &[u8], most: usize) -> bool {
    const LENGTH: &str = "\r\ncontent-length: ";
    // At once for a part of a body, which may be long.
    if !head.ends_with(b"\r\n\r\n") {
        return false;
    }
    let head = std::str::from_utf8(head).unwrap_or_default();
    let after = head.split_once(LENGTH).map_or("", |(_, after)| after);
    let length = after.split("\r\n").next().unwrap_or_default();
    length
        .parse()
        .is_ok_and(|length: usize| (1..=most).contains(&length))
}

impl<T: Transport> OneWriteTransport<T> {
    /// Writes the head that waits, and so much of the output buffer behind it.
    fn transmit_with_head(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let len = self.head.len();
        let output = self.transport.buffers().output();
        let Some(output) = output.get_mut(..len + amount) else {
            let message = "a body is longer than its head says";
            return Err(io::Error::other(message).into());
        };
        output.copy_within(..amount, len);
        output[..len].copy_from_slice(&self.head);
        self.head.clear();
        self.transport.transmit_output(len + amount, timeout)
    }
}

impl<T: Transport> Transport for OneWriteTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if !self.head.is_empty() {
            return self.transmit_with_head(amount, timeout);
        }
        let output = self.transport.buffers().output();
        if has_body_within(&output[..amount], output.len() - amount) {
            self.head.extend_from_slice(&output[..amount]);
            return Ok(());
        }
        self.transport.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if !self.head.is_empty() {
            self.transmit_with_head(0, timeout)?;
        }
        self.transport.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.head.is_empty() && self.transport.is_open()
    }

    fn is_tls(&self) -> bool {
        self.transport.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use ureq::Timeout;
    use ureq::unversioned::transport::LazyBuffers;
    use ureq::unversioned::transport::time::Duration;

    use super::*;

    /// Keeps what is written, write by write.
    struct Written(LazyBuffers, Vec<String>);

    impl std::fmt::Debug for Written {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{:?}", self.1)
        }
    }

    impl Transport for Written {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.0
        }

        fn transmit_output(&mut self, amount: usize, _timeout: NextTimeout) -> Result<(), Error> {
            let written = String::from_utf8_lossy(&self.0.output()[..amount]);
            self.1.push(written.into_owned());
            Ok(())
        }

        fn await_input(&mut self, _timeout: NextTimeout) -> Result<bool, Error> {
            Ok(true)
        }

        fn is_open(&mut self) -> bool {
            true
        }
    }

    const SIZE: usize = 100;

    /// Writes these one after the other, waits for a response, and returns the writes.
    fn written(texts: &[&str]) -> Vec<String> {
        let mut transport = OneWriteTransport {
            transport: Written(LazyBuffers::new(SIZE, SIZE), Vec::new()),
            head: Vec::new(),
        };
        let timeout = NextTimeout {
            after: Duration::NotHappening,
            reason: Timeout::Global,
            per_read: None,
            per_write: None,
        };
        for text in texts {
            transport.buffers().output()[..text.len()].copy_from_slice(text.as_bytes());
            transport.transmit_output(text.len(), timeout).unwrap();
        }
        assert!(transport.await_input(timeout).unwrap());
        assert!(transport.is_open());
        transport.transport.1
    }

    fn head(length: usize) -> String {
        format!("POST / HTTP/1.1\r\ncontent-length: {length}\r\nx: y\r\n\r\n")
    }

    #[test]
    fn a_head_and_a_body_for_which_there_is_room_are_one_write() {
        let most = SIZE - head(10).len();
        for length in [1, 10, most] {
            let (head, body) = (head(length), "b".repeat(length));
            assert_eq!(written(&[&head, &body]), [head + &body]);
        }
        let (head, body) = (head(10), "b".repeat(5));
        assert_eq!(written(&[&head, &body, &body]), [head + &body, body]);
    }

    #[test]
    fn other_writes_are_as_they_were() {
        let large = head(SIZE);
        let long = "b".repeat(SIZE);
        for writes in [
            &[large.as_str(), long.as_str()][..],
            &[&head(0)],
            &["CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"],
            &["POST / HTTP/1.1\r\ncontent-length: 3\r\n", "\r\n", "abc"],
            &["POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"],
        ] {
            assert_eq!(written(writes), writes);
        }
        // Its body does not come.
        assert_eq!(written(&[&head(9)]), [head(9)]);
    }
}
