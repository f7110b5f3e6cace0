//! Connects through a SOCKS proxy to each address of a host in turn.
//!
//! ureq's connector passes the first address alone to a proxy that does not resolve names. If that one did not respond,
//! or the proxy had no route to it, no request ever arrived.

use ureq::Error;
use ureq::unversioned::transport::{ConnectionDetails, Connector, SocksConnector};

use crate::client::connector::{deadline, narrowed, share};
use crate::client::proxy;
use crate::client::transport_error::is_login_refused;

/// Wraps ureq's connector.
#[derive(Debug, Default)]
pub(super) struct EachAddressConnector(SocksConnector);

impl Connector for EachAddressConnector {
    type Out = <SocksConnector as Connector>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let is_passed_addresses = details
            .config
            .proxy()
            .is_some_and(|proxy| proxy::is_socks(proxy) && proxy.resolve_target());
        if !is_passed_addresses {
            return self.0.connect(details, chained);
        }
        let deadline = deadline(details.timeout);
        let mut failed = Error::HostNotFound;
        for (position, address) in details.addrs.iter().enumerate() {
            let is_last = position + 1 == details.addrs.len();
            let timeout = share(deadline, details.timeout, is_last)?;
            let mut addrs = details.resolver.empty();
            addrs.push(*address);
            let details = narrowed(details, details.resolver, addrs, timeout);
            match self.0.connect(&details, None) {
                // It is the same for each address.
                Err(Error::Io(error)) if is_login_refused(&error) => return Err(error.into()),
                Err(error) => failed = error,
                connected => return connected,
            }
        }
        Err(failed)
    }
}
