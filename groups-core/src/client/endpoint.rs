use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ureq::http::Uri;

use crate::record::Error;

/// A checked scheme, host and port.
#[derive(Clone)]
pub(crate) struct Endpoint {
    base: String,
    /// Without the brackets of an address of IPv6.
    host: String,
    port: u16,
    https: bool,
    loopback: bool,
}

impl Endpoint {
    pub(crate) fn parse(text: &str, allow_plain_http: bool) -> Result<Self, Error> {
        // Before any message that shows the text.
        if text.contains('@') {
            return Err(Error::config(
                "invalid endpoint: expected no user name or password in it",
            ));
        }
        let refused = |why: &str| Error::config(format!("invalid endpoint {text:?}: {why}"));
        let wrong = |why: &str| {
            let expected = "expected scheme, host and port, such as \"https://api.mixpanel.com\"";
            refused(&format!("{why}; {expected}"))
        };
        let base = text.trim();
        let base = base.strip_suffix('/').unwrap_or(base);
        let uri: Uri = base.parse().map_err(|error| wrong(&format!("{error}")))?;
        let scheme = uri.scheme_str().ok_or_else(|| wrong("missing scheme"))?;
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| wrong("missing host"))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if !has_valid_port(authority) {
            return Err(wrong("the port is not a number from 1 to 65535"));
        }
        if base.len() != scheme.len() + "://".len() + authority.len() {
            return Err(wrong("unexpected path or query"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = is_loopback(host);
        match scheme {
            "https" if cfg!(feature = "tls") => {}
            "https" => return Err(refused("`https` needs the feature `tls`")),
            "http" if loopback || allow_plain_http => {}
            "http" => {
                return Err(refused(
                    "plain `http` sends token and data unencrypted; use `https`, or set \
                     `allow_plain_http` if the network is trusted",
                ));
            }
            _ => return Err(wrong("the scheme is neither `https` nor `http`")),
        }
        Ok(Self {
            base: base.to_owned(),
            host: host.to_owned(),
            port: uri
                .port_u16()
                .unwrap_or(if scheme == "https" { 443 } else { 80 }),
            https: scheme == "https",
            loopback,
        })
    }

    /// Returns the endpoint of a client that sends nothing.
    pub(crate) fn nowhere() -> Self {
        Self::parse("http://localhost", false).expect("it is valid")
    }

    pub(crate) fn is_loopback(&self) -> bool {
        self.loopback
    }

    pub(crate) fn is_https(&self) -> bool {
        self.https
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.base)
    }
}

/// Writes the endpoint as it was given.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.base)
    }
}

/// Returns whether the port after the host is valid or left out.
pub(super) fn has_valid_port(authority: &str) -> bool {
    match authority.rsplit_once(':') {
        Some((_, port)) => {
            // A number's parser takes a sign too.
            port.ends_with(']') || !port.starts_with('+') && port.parse::<NonZeroU16>().is_ok()
        }
        None => true,
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
