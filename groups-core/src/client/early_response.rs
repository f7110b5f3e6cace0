//! Reads the response of a server that closes the connection before it has read the request.
//!
//! A proxy or firewall that refuses a request for its size or its head may respond and close the connection while
//! the body is still being sent. Writing then fails, but the response has arrived and gives the reason.

use std::io;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use crate::client::connector::left;
use crate::client::transport_error::is_closed;

/// Wraps the connection below TLS, so that TLS sees no error either.
#[derive(Debug)]
pub(super) struct EarlyResponseConnector;

#[derive(Debug)]
pub(super) struct EarlyResponseTransport<T> {
    transport: T,
    /// Why writing failed. Whatever is written after that is dropped.
    broken: Option<io::Error>,
}

impl<In: Transport> Connector<In> for EarlyResponseConnector {
    type Out = EarlyResponseTransport<In>;

    fn connect(
        &self,
        _details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|transport| EarlyResponseTransport {
            transport,
            broken: None,
        }))
    }
}

impl<T: Transport> Transport for EarlyResponseTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.broken.is_some() {
            return Ok(());
        }
        match self.transport.transmit_output(amount, left(timeout)?) {
            Err(Error::Io(error)) if is_closed(&error) => {
                self.broken = Some(error);
                Ok(())
            }
            written => written,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let read = self.transport.await_input(left(timeout)?);
        match self.broken.take() {
            // Nothing more comes: that writing failed is the reason.
            Some(error) if !matches!(read, Ok(true)) => Err(error.into()),
            broken => {
                self.broken = broken;
                read
            }
        }
    }

    fn is_open(&mut self) -> bool {
        self.broken.is_none() && self.transport.is_open()
    }

    fn is_tls(&self) -> bool {
        self.transport.is_tls()
    }
}
