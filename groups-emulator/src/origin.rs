//! Which web pages may use the emulator: a browser sends requests for any site that is open in it.
//!
//! - The `Host` must be an IP address, `localhost` or allowed by
//!   [`allow_host`](crate::EmulatorBuilder::allow_host). A site whose own name resolves to 127.0.0.1 (DNS
//!   rebinding) is refused by it. An address is not necessarily this machine's: that of the host is 10.0.2.2 in
//!   the Android emulator. Some addresses are refused, see [`is_site_safe`].
//! - An `Origin` must be a page of this machine, of whatever port, or allowed by
//!   [`allow_origin`](crate::EmulatorBuilder::allow_origin). It gets CORS headers.
//! - A request without an `Origin`, as of an `<img>`, is refused if the browser says that it comes from
//!   another site (`Sec-Fetch-Site: cross-site`).
//!
//! Programs that are not browsers send neither of the two, and may do anything.

use std::net::IpAddr;

use ureq_proto::http::{HeaderMap, Method, Request, header};

use crate::reply::Reply;

/// What the builder allows beside this machine, compared without case.
#[derive(Default)]
pub(crate) struct Allowed {
    /// The names that may stand in `Host`, without a port.
    pub(crate) hosts: Vec<String>,
    /// The origins whose pages may send requests.
    pub(crate) origins: Vec<String>,
}

/// The origin that gets CORS headers, if the request has one, or the reason to refuse the request.
pub(crate) type Access = Result<Option<String>, String>;

const HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Checks a request for updates or events.
pub(crate) fn check(request: &Request<()>, allowed: &Allowed) -> Access {
    let headers = request.headers();
    let host = check_host(headers, allowed)?;
    let Some(origin) = text(headers, header::ORIGIN.as_str()) else {
        return match text(headers, "sec-fetch-site") {
            Some("cross-site") => Err("a page of another site must not send this".to_owned()),
            _ => Ok(None),
        };
    };
    if is_same(origin, host) || is_of_this_machine(origin) || is_in(&allowed.origins, origin) {
        return Ok(Some(origin.to_owned()));
    }
    Err(format!(
        "the origin {origin} is not of this machine: allow it with `allow_origin` or `--allow-origin`"
    ))
}

/// Checks a request for the page or its data, which are for the page itself. A link on another site may
/// lead to the page, but not frame it.
pub(crate) fn check_page(request: &Request<()>, allowed: &Allowed) -> Result<(), String> {
    let headers = request.headers();
    let host = check_host(headers, allowed)?;
    let is_link = request.method() == Method::GET
        && request.uri().path() == "/"
        && text(headers, "sec-fetch-dest") == Some("document");
    let is_own = match text(headers, header::ORIGIN.as_str()) {
        Some(origin) => is_same(origin, host),
        None => matches!(
            text(headers, "sec-fetch-site"),
            None | Some("same-origin" | "none")
        ),
    };
    if is_own || is_link {
        return Ok(());
    }
    let reason = "a web page other than the emulator's own must not read or control it: send this from a program, such \
                  as the test's runner";
    Err(reason.to_owned())
}

/// Returns whether the browser asks for permission to send a request.
pub(crate) fn is_preflight(request: &Request<()>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Returns the reply that gives the permission.
pub(crate) fn preflight(request: &Request<()>) -> Reply {
    let wanted = text(request.headers(), "access-control-request-headers");
    let mut reply = Reply::empty()
        .with_header(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST")
        .with_header(header::ACCESS_CONTROL_MAX_AGE, "600");
    if let Some(wanted) = wanted {
        reply = reply.with_header(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    }
    reply
}

/// Adds the headers that let a page read the reply. mixpanel-js sends its requests with credentials, so
/// the origin has to be named.
pub(crate) fn with_cors(reply: Reply, origin: Option<&str>) -> Reply {
    let Some(origin) = origin else { return reply };
    reply
        .with_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)
        .with_header(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")
        .with_header(header::VARY, "Origin")
}

/// Returns the `Host`, if it cannot be a site's name. An HTTP/1.0 client sends none.
fn check_host<'h>(headers: &'h HeaderMap, allowed: &Allowed) -> Result<&'h str, String> {
    if !headers.contains_key(header::HOST) {
        return Ok("");
    }
    let host = text(headers, header::HOST.as_str()).unwrap_or_default();
    let name = name_of(host);
    if is_in(&HOSTS, name) || is_in(&allowed.hosts, name) || address(name).is_some_and(is_site_safe)
    {
        Ok(host)
    } else {
        Err(format!(
            "the host {host:?} could be a website's: use 127.0.0.1 or localhost, or allow it with `allow_host` or \
             `--allow-host`"
        ))
    }
}

/// Returns the address of a host that is one. IPv6 stands in brackets.
fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

/// Returns whether a request that a site makes a browser on this machine send there is recognized. `0.0.0.0`, `[::]` and
/// `[::ffff:127.0.0.1]` lead to 127.0.0.1 as well, but browsers send them no `Sec-Fetch-Site`.
fn is_site_safe(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_unspecified() && address.to_ipv4_mapped().is_none(),
    }
}

fn is_in(names: &[impl AsRef<str>], name: &str) -> bool {
    let mut names = names.iter();
    names.any(|other| other.as_ref().eq_ignore_ascii_case(name))
}

fn is_of_this_machine(origin: &str) -> bool {
    let host = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    host.is_some_and(|host| is_in(&HOSTS, name_of(host)))
}

fn is_same(origin: &str, host: &str) -> bool {
    origin.strip_prefix("http://") == Some(host)
}

/// Returns an origin without the slash with which an address ends. That of `file://` belongs to it.
pub(crate) fn without_slash(origin: String) -> String {
    match origin.strip_suffix('/') {
        Some(rest) if !rest.ends_with('/') => rest.to_owned(),
        _ => origin,
    }
}

/// Returns whether a browser can send this as an origin.
pub(crate) fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else {
        return text.eq_ignore_ascii_case("null");
    };
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => Some("80"),
        "https" => Some("443"),
        _ => None,
    };
    if host.is_empty() {
        // As that of a page from a file.
        return is_made_of(scheme, b"+-.") && default_port.is_none();
    }
    let name = name_of(host);
    let is_port = |port: &str| {
        Some(port) != default_port && !port.starts_with('0') && port.parse::<u16>().is_ok()
    };
    is_made_of(scheme, b"+-.")
        && is_host(name)
        && host[name.len()..].strip_prefix(':').is_none_or(is_port)
}

/// Returns whether this can be a host, without a port.
pub(crate) fn is_host(text: &str) -> bool {
    is_made_of(text, b"-._") || address(text).is_some()
}

fn is_made_of(text: &str, marks: &[u8]) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || marks.contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// Returns a host without its port.
pub(crate) fn name_of(host: &str) -> &str {
    let (name, port) = match host.find(']') {
        Some(end) => host.split_at(end + 1),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    if port.bytes().all(|byte| byte.is_ascii_digit()) {
        name
    } else {
        host
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
