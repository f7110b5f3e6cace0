use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

use crate::record::Error;

/// A checked scheme, host and port.
#[derive(Clone)]
pub(crate) struct Endpoint {
    base: String,
    loopback: bool,
}

impl Endpoint {
    pub(crate) fn parse(text: &str, allow_plain_http: bool) -> Result<Self, Error> {
        // Before any message that shows the text.
        if text.contains('@') {
            return Err(Error::config(
                "endpoint: a user name or password does not belong in it",
            ));
        }
        let refused = |why: &str| Error::config(format!("endpoint {text:?}: {why}"));
        let wrong = |why: &str| {
            let wanted = "scheme, host and port are wanted, such as \"https://api.mixpanel.com\"";
            refused(&format!("{why}; {wanted}"))
        };
        let base = text.strip_suffix('/').unwrap_or(text);
        let uri: Uri = base.parse().map_err(|error| wrong(&format!("{error}")))?;
        let scheme = uri
            .scheme_str()
            .ok_or_else(|| wrong("there is no scheme"))?;
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| wrong("no host"))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.ends_with(':')
            || authority
                .rsplit_once(':')
                .is_some_and(|(_, port)| !port.ends_with(']') && port.parse::<u16>().is_err())
        {
            return Err(wrong("the port is no number up to 65535"));
        }
        if base.len() != scheme.len() + "://".len() + authority.len() {
            return Err(wrong("there is a path or a query"));
        }
        let loopback = is_loopback(host);
        match scheme {
            "https" if cfg!(feature = "tls") => {}
            "https" => return Err(refused("`https` needs the feature `tls`")),
            "http" if loopback || allow_plain_http => {}
            "http" => {
                return Err(refused(
                    "plain `http` shows token and data to everyone on the way; it is for this \
                     machine only, unless `allow_plain_http` says otherwise",
                ));
            }
            _ => return Err(wrong("the scheme is neither `https` nor `http`")),
        }
        Ok(Self {
            base: base.to_owned(),
            loopback,
        })
    }

    /// For a client that sends nothing.
    pub(crate) fn nowhere() -> Self {
        Self {
            base: "http://localhost".to_owned(),
            loopback: true,
        }
    }

    pub(crate) fn is_loopback(&self) -> bool {
        self.loopback
    }

    pub(crate) fn url(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.base)
    }
}

/// The endpoint as it is written.
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

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
