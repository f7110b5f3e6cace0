//! Resolves a host's name when a connection to it is opened, and only then.
//!
//! ureq calls its resolver before each request, even if it then uses an idle connection, and with a time limit that
//! starts a thread. So its resolver here returns nothing, and the connector, which ureq calls only for a new connection,
//! calls the real one.
//!
//! ureq gives each step of connecting all of the time: the names of the proxy and the host, TCP, TLS, and each read of a
//! response to `CONNECT`. So a deadline is set here, which all of them keep.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{self, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
#[cfg(feature = "tls")]
use ureq::unversioned::transport::RustlsConnector;
use ureq::unversioned::transport::time::Duration;
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout,
};

use crate::client::early_response::EarlyResponseConnector;
use crate::client::one_write::OneWriteConnector;
use crate::client::socks::EachAddressConnector;
use crate::client::tcp::TcpConnector;

/// A resolver that returns no address.
#[derive(Debug)]
pub(super) struct LaterResolver;

impl Resolver for LaterResolver {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// A resolver that looks a name up in a thread, and waits for it until the timeout. ureq's own panics where no thread can be
/// started.
#[derive(Debug)]
pub(super) struct TimedResolver;

impl Resolver for TimedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let forever = NextTimeout {
            after: Duration::NotHappening,
            ..timeout
        };
        let time = match timeout.after {
            Duration::Exact(time) if !is_address(uri) => time,
            _ => return DefaultResolver::default().resolve(uri, config, forever),
        };
        let (found, addresses) = sync_channel(1);
        let look_up = {
            let (uri, config) = (uri.clone(), config.clone());
            move || {
                let resolved = DefaultResolver::default().resolve(&uri, &config, forever);
                let _ = found.send(resolved); // Nobody waits for what comes too late.
            }
        };
        thread::Builder::new().spawn(look_up).map_err(|error| {
            let message = format!("cannot start the thread that looks up a name: {error}");
            io::Error::other(message)
        })?;
        match addresses.recv_timeout(time) {
            // The name may be the endpoint's or the proxy's.
            Ok(Err(Error::Io(error))) => {
                let name = uri.host().unwrap_or_default();
                Err(io::Error::other(format!("cannot look up {name}: {error}")).into())
            }
            Ok(resolved) => resolved,
            Err(_) => Err(Error::Timeout(timeout.reason)),
        }
    }
}

/// Returns whether the host is an address, so that there is nothing to look up.
fn is_address(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

thread_local! {
    /// When the connection that this thread is opening must be open.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Sets the deadline, unless this is the connection to a proxy for one that has a deadline. Dropped, it puts back what was
/// there.
struct Connecting(Option<Instant>);

impl Connecting {
    fn until(deadline: Option<Instant>) -> Self {
        let outer = DEADLINE.get();
        DEADLINE.set(outer.or(deadline));
        Self(outer)
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        DEADLINE.set(self.0);
    }
}

/// Returns when a timeout that begins now ends.
pub(super) fn deadline(timeout: NextTimeout) -> Option<Instant> {
    match timeout.after {
        Duration::Exact(after) => Instant::now().checked_add(after),
        Duration::NotHappening => None,
    }
}

/// Returns what is left of the timeout while a connection is opened. A later timeout stays as it is.
pub(super) fn left(timeout: NextTimeout) -> Result<NextTimeout, Error> {
    left_until(DEADLINE.get(), timeout)
}

/// Returns what is left of the timeout until that time, if there is one.
pub(super) fn left_until(
    deadline: Option<Instant>,
    mut timeout: NextTimeout,
) -> Result<NextTimeout, Error> {
    let Some(deadline) = deadline else {
        return Ok(timeout);
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    timeout.after = timeout.after.min(left.into());
    Ok(timeout)
}

/// The least time for an address.
const LEAST: time::Duration = time::Duration::from_millis(10);

/// Returns the timeout for one of several addresses: half of what is left until that time, and all of it for the last one.
pub(super) fn share(
    deadline: Option<Instant>,
    timeout: NextTimeout,
    is_last: bool,
) -> Result<NextTimeout, Error> {
    let mut left = left_until(deadline, timeout)?;
    if let (Duration::Exact(time), false) = (left.after, is_last) {
        left.after = (time / 2).max(LEAST).into();
    }
    Ok(left)
}

/// Returns the details of a connection to these addresses within that time.
pub(super) fn narrowed<'a>(
    details: &ConnectionDetails<'a>,
    resolver: &'a dyn Resolver,
    addrs: ResolvedSocketAddrs,
    timeout: NextTimeout,
) -> ConnectionDetails<'a> {
    ConnectionDetails {
        uri: details.uri,
        addrs,
        config: details.config,
        request_level: details.request_level,
        resolver,
        now: (details.current_time)(),
        timeout,
        current_time: Arc::clone(&details.current_time),
        run_connector: Arc::clone(&details.run_connector),
        register_shutdown: Arc::clone(&details.register_shutdown),
    }
}

/// A connector that resolves the name for each new connection.
pub(super) struct ResolvingConnector<C> {
    resolver: Arc<dyn Resolver>,
    connector: C,
}

/// Returns a connector for all that a client needs: to a proxy or the host, and TLS.
pub(super) fn connector(resolver: Arc<dyn Resolver>) -> impl Connector {
    let connector =
        ().chain(EachAddressConnector::default())
            .chain(ConnectProxyConnector::default())
            .chain(TcpConnector)
            .chain(EarlyResponseConnector);
    #[cfg(feature = "tls")]
    let connector = connector.chain(RustlsConnector::default());
    let connector = connector.chain(OneWriteConnector);
    ResolvingConnector {
        resolver,
        connector,
    }
}

impl<C: Connector> Connector for ResolvingConnector<C> {
    type Out = C::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let _connecting = Connecting::until(deadline(details.timeout));
        // The connection to a proxy of HTTP comes here too, with the proxy's address.
        let is_proxys = details
            .config
            .proxy()
            .is_some_and(|proxy| !proxy.resolve_target());
        let addrs = if details.addrs.is_empty() && !is_proxys {
            let timeout = left(details.timeout)?;
            self.resolver
                .resolve(details.uri, details.config, timeout)?
        } else {
            details.addrs.clone()
        };
        let details = narrowed(details, &*self.resolver, addrs, left(details.timeout)?);
        self.connector.connect(&details, chained)
    }
}

impl<C> fmt::Debug for ResolvingConnector<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResolvingConnector")
    }
}
