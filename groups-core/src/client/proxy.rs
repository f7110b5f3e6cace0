//! The choice of a proxy. The environment is read as curl reads it
//! ([curl, environment](https://curl.se/docs/manpage.html#ENVIRONMENT)), once, because a client has one
//! endpoint.

use std::net::IpAddr;

use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

use crate::client::endpoint::{Endpoint, has_valid_port};
use crate::record::Error;

#[derive(Clone)]
pub(super) enum ProxySetting {
    /// The proxy of the environment variables.
    Environment,
    None,
    /// It may hold a password.
    Url(String),
}

impl ProxySetting {
    /// Returns the proxy for the endpoint, if there is one. `variable` reads the environment.
    pub(super) fn resolve(
        &self,
        endpoint: &Endpoint,
        variable: impl Fn(&str) -> Result<Option<String>, Error>,
    ) -> Result<Option<Proxy>, Error> {
        // Of two, curl takes the lower case. It ignores `HTTP_PROXY`, which a CGI program's client
        // can set by a header.
        let names: &[&str] = match self {
            Self::None => return Ok(None),
            Self::Url(url) => return parse("proxy", url).map(Some),
            Self::Environment if endpoint.is_loopback() => return Ok(None),
            Self::Environment if endpoint.is_https() => {
                &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            }
            Self::Environment => &["http_proxy", "all_proxy", "ALL_PROXY"],
        };
        // An empty variable counts as one that is not set.
        let first = |names: &[&'static str]| {
            for name in names {
                let value = variable(name)?.filter(|value| !value.trim().is_empty());
                if let Some(value) = value {
                    return Ok(Some((*name, value)));
                }
            }
            Ok::<_, Error>(None)
        };
        let Some((name, url)) = first(names)? else {
            return Ok(None);
        };
        if let Some((_, list)) = first(&["no_proxy", "NO_PROXY"])?
            && is_listed(&list, endpoint.host(), endpoint.port())
        {
            return Ok(None);
        }
        parse(name, &url).map(Some)
    }
}

/// Returns how errors name a proxy: without user name and password.
pub(super) fn name(proxy: &Proxy) -> String {
    let scheme = match proxy.protocol() {
        ProxyProtocol::Http => "http",
        ProxyProtocol::Https => "https",
        ProxyProtocol::Socks4 => "socks4",
        ProxyProtocol::Socks4A => "socks4a",
        ProxyProtocol::Socks5h => "socks5h",
        _ => "socks5",
    };
    format!("{scheme}://{}:{}", proxy.host(), proxy.port())
}

/// Returns whether it is a proxy of SOCKS, of any version.
pub(super) fn is_socks(proxy: &Proxy) -> bool {
    !matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https)
}

/// Reads a proxy from the setting or variable of that name. A text that cannot be taken apart is not
/// shown, since there may be a password in it.
fn parse(setting: &str, text: &str) -> Result<Proxy, Error> {
    const EXPECTED: &str = "expected scheme, host and port, such as http://proxy:3128";
    let unreadable = || Error::config(format!("invalid {setting}: {EXPECTED}"));
    let text = text.trim();
    let text = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let uri: Uri = text.parse().map_err(|_| unreadable())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(unreadable());
    };
    // A password with `/`, `?` or `#` in it ends the authority before the `@`, and begins where a port would be.
    let rest = text.split_once("://");
    let rest = rest.and_then(|(_, rest)| rest.strip_prefix(authority.as_str()));
    let Some(rest) = rest.filter(|rest| !rest.contains('@')) else {
        return Err(unreadable());
    };
    let (user, place) = match authority.as_str().rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority.as_str()),
    };
    let scheme = scheme.to_ascii_lowercase();
    let refused = |why: &str| Error::config(format!("invalid {setting} {scheme}://{place}: {why}"));
    if authority.host().is_empty() || !has_valid_port(place) {
        return Err(unreadable());
    }
    if !matches!(rest, "" | "/") {
        return Err(refused("unexpected path, query or fragment"));
    }
    match &*scheme {
        "https" if !cfg!(feature = "tls") => {
            return Err(refused("a proxy with https needs the feature `tls`"));
        }
        "socks4" | "socks4a" if user.is_some() => {
            return Err(refused("version 4 of SOCKS has no user name and password"));
        }
        "http" | "https" | "socks4" | "socks4a" | "socks" | "socks5" | "socks5h" => {}
        _ => {
            return Err(refused(
                "unknown scheme; expected http, https, socks4, socks4a, socks5 or socks5h",
            ));
        }
    }
    let proxy = Proxy::new(&text).map_err(|_| unreadable())?;
    let is_socks5 = matches!(
        proxy.protocol(),
        ProxyProtocol::Socks5 | ProxyProtocol::Socks5h
    );
    // The length of each is one byte, and not 0.
    // ([RFC 1929, 2](https://www.rfc-editor.org/rfc/rfc1929#section-2))
    let fits = |text: Option<&str>| text.is_some_and(|text| matches!(text.len(), 1..=255));
    if is_socks5 && user.is_some() && !(fits(proxy.username()) && fits(proxy.password())) {
        return Err(refused(
            "version 5 of SOCKS needs a user name and a password of 1 to 255 bytes each",
        ));
    }
    Ok(proxy)
}

/// Returns whether a list of `NO_PROXY` contains the host: by its name or a domain that it belongs to, with or without a
/// leading dot or `*.`, or by its address or network, each with or without a port; `*` is every host.
fn is_listed(list: &str, host: &str, port: u16) -> bool {
    list.split(|char: char| char == ',' || char.is_whitespace())
        .filter(|entry| !entry.is_empty())
        .any(|entry| entry == "*" || is_host(entry, host, port))
}

fn is_host(entry: &str, host: &str, port: u16) -> bool {
    let name = match entry.rsplit_once(':') {
        // The colons of an address of IPv6 are not before a port.
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
            if digits.parse() != Ok(port) {
                return false;
            }
            name
        }
        _ => entry,
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return is_network(name, address);
    }
    let name = name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase();
    let name = name.trim_start_matches('.').trim_end_matches('.');
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    // No host ends with a dot now, so an empty name is the end of none.
    host.strip_suffix(name)
        .is_some_and(|domain| domain.is_empty() || domain.ends_with('.'))
}

/// Returns whether an address is that of the text, or in its network, such as `10.0.0.0/8`.
fn is_network(text: &str, address: IpAddr) -> bool {
    let text = text.replace(['[', ']'], "");
    let (network, bits) = match text.split_once('/') {
        Some((network, bits)) => (network, bits.parse().ok()),
        None => (&*text, Some(u32::MAX)),
    };
    let Some(bits) = bits else { return false };
    match (network.parse(), address) {
        (Ok(IpAddr::V4(network)), IpAddr::V4(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= bits.min(u32::BITS)
        }
        (Ok(IpAddr::V6(network)), IpAddr::V6(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= bits.min(u128::BITS)
        }
        _ => false,
    }
}

#[cfg(all(test, not(feature = "tls")))]
#[test]
fn a_proxy_with_https_needs_the_feature() {
    let error = parse("proxy", "https://proxy").unwrap_err();
    let message = "invalid proxy https://proxy: a proxy with https needs the feature `tls`";
    assert_eq!(error.to_string(), message);
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;

    /// What a client for the endpoint does with these variables: the proxy's name, or none, or the
    /// error.
    fn chosen(endpoint: &str, variables: &[(&str, &str)]) -> String {
        let endpoint = Endpoint::parse(endpoint, true).unwrap();
        let variable = |name: &str| {
            let found = variables.iter().find(|(of, _)| *of == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        };
        match ProxySetting::Environment.resolve(&endpoint, variable) {
            Ok(proxy) => proxy.map_or("none".to_owned(), |proxy| name(&proxy)),
            Err(error) => error.to_string(),
        }
    }

    const MIXPANEL: &str = "https://api.mixpanel.com";

    /// The proxy, unless `no_proxy` lists the endpoint.
    fn unless(is_listed: bool) -> &'static str {
        if is_listed {
            "none"
        } else {
            "http://proxy:3128"
        }
    }

    #[test]
    fn the_variables_of_an_https_endpoint_in_curls_order() {
        let all = [
            ("https_proxy", "http://one:1"),
            ("HTTPS_PROXY", "http://two:2"),
            ("all_proxy", "http://three:3"),
            ("ALL_PROXY", "http://four:4"),
        ];
        let expected = [
            "http://one:1",
            "http://two:2",
            "http://three:3",
            "http://four:4",
            "none",
        ];
        for (first, expected) in expected.into_iter().enumerate() {
            assert_eq!(chosen(MIXPANEL, &all[first..]), expected);
        }
        let with_empty = [("https_proxy", ""), ("HTTPS_PROXY", " "), all[3]];
        assert_eq!(chosen(MIXPANEL, &with_empty), "http://four:4");
    }

    #[test]
    fn variables_for_http_are_for_http_endpoints() {
        let http = [
            ("http_proxy", "http://one:1"),
            ("HTTP_PROXY", "http://two:2"),
        ];
        assert_eq!(chosen(MIXPANEL, &http), "none");
        assert_eq!(chosen("http://mixpanel.test", &http), "http://one:1");
        assert_eq!(
            chosen("http://mixpanel.test", &http[1..]),
            "none",
            "as a CGI program's"
        );
        let https = [("https_proxy", "http://one:1")];
        assert_eq!(chosen("http://mixpanel.test", &https), "none");
        let all = [("ALL_PROXY", "http://one:1")];
        assert_eq!(chosen("http://mixpanel.test", &all), "http://one:1");
    }

    #[test]
    fn this_machine_needs_no_proxy_of_the_environment() {
        let variables = [("https_proxy", "http://one:1"), ("http_proxy", "bad:bad")];
        for endpoint in [
            "https://localhost",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
        ] {
            assert_eq!(chosen(endpoint, &variables), "none");
        }
    }

    #[test]
    fn each_form_of_a_proxy() {
        for (text, expected) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("http://proxy:3128/", "http://proxy:3128"),
            (" proxy:3128\n", "http://proxy:3128"),
            ("proxy", "http://proxy:80"),
            ("HTTP://proxy:3128", "http://proxy:3128"),
            ("https://proxy", "https://proxy:443"),
            ("http://user:PASSWORD@proxy:3128", "http://proxy:3128"),
            ("user:PASSWORD@proxy:3128", "http://proxy:3128"),
            ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
            ("socks4://proxy", "socks4://proxy:1080"),
            ("socks4a://proxy", "socks4a://proxy:1080"),
            ("socks://proxy", "socks5://proxy:1080"),
            ("socks5://proxy:1", "socks5://proxy:1"),
            ("socks5h://user:PASSWORD@proxy:1", "socks5h://proxy:1"),
        ] {
            assert_eq!(
                chosen(MIXPANEL, &[("ALL_PROXY", text)]),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_an_error_that_names_the_variable() {
        let scheme = "unknown scheme; expected http, https, socks4, socks4a, socks5 or socks5h";
        let expected = "expected scheme, host and port, such as http://proxy:3128";
        let more = "unexpected path, query or fragment";
        for (text, message) in [
            ("ftp://proxy:21", format!("invalid HTTPS_PROXY ftp://proxy:21: {scheme}")),
            ("ftp://user:PASSWORD@proxy:21", format!("invalid HTTPS_PROXY ftp://proxy:21: {scheme}")),
            ("http://user:PASSWORD@proxy:99999", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://proxy:0", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://proxy:", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://user:PASSWORD@", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://user:PASS WORD@proxy:3128", format!("invalid HTTPS_PROXY: {expected}")),
            ("\"http://user:PASSWORD@proxy:3128\"", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://user:PASSWORD%ff@proxy:3128", format!("invalid HTTPS_PROXY: {expected}")),
            // A password that is not percent-encoded ends what a URL reads as host and port.
            ("http://user:PASSWORD/x@proxy:3128", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://user:12/PASSWORD@proxy:3128", format!("invalid HTTPS_PROXY: {expected}")),
            ("user:PASSWORD?x@proxy:3128", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://me@corp:PASSWORD#x@proxy:3128", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://user:12#x@proxy:3128", format!("invalid HTTPS_PROXY: {expected}")),
            ("ftp://user:12#x@proxy:3128", format!("invalid HTTPS_PROXY: {expected}")),
            ("socks5h://user:12?x@proxy:3128", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://user:PASSWORD%40proxy:3128", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://user:PASSWORD\\x@proxy:3128", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://user:PASSWORD", format!("invalid HTTPS_PROXY: {expected}")),
            ("http://proxy:3128/path", format!("invalid HTTPS_PROXY http://proxy:3128: {more}")),
            ("http://proxy:3128?query", format!("invalid HTTPS_PROXY http://proxy:3128: {more}")),
            ("http://proxy:3128/#fragment", format!("invalid HTTPS_PROXY http://proxy:3128: {more}")),
            ("socks4://user:PASSWORD@proxy", "invalid HTTPS_PROXY socks4://proxy: version 4 of SOCKS has no user name and password".to_owned()),
        ] {
            assert_eq!(chosen(MIXPANEL, &[("HTTPS_PROXY", text)]), message, "{text:?}");
        }
    }

    #[test]
    fn a_user_name_and_password_that_socks_cannot_carry_are_refused() {
        let (most, more) = ("x".repeat(255), "x".repeat(256));
        let encoded = "%41".repeat(255);
        for (user, fits) in [
            ("user", false),
            ("user:", false),
            (":PASSWORD", false),
            (":", false),
            ("", false),
            (&*format!("{more}:PASSWORD"), false),
            (&*format!("user:{more}"), false),
            (&*format!("{most}:{most}"), true),
            (&*format!("{encoded}:{encoded}"), true),
        ] {
            for (scheme, name) in [
                ("socks", "socks5"),
                ("socks5", "socks5"),
                ("socks5h", "socks5h"),
            ] {
                let text = format!("{scheme}://{user}@proxy:1");
                let expected = if fits {
                    format!("{name}://proxy:1")
                } else {
                    format!(
                        "invalid ALL_PROXY {scheme}://proxy:1: version 5 of SOCKS needs a user name and a password of \
                         1 to 255 bytes each"
                    )
                };
                assert_eq!(
                    chosen(MIXPANEL, &[("ALL_PROXY", &text)]),
                    expected,
                    "{text}"
                );
            }
            let http = format!("http://{user}@proxy:1");
            assert_eq!(chosen(MIXPANEL, &[("ALL_PROXY", &http)]), "http://proxy:1");
        }
    }

    #[test]
    fn no_proxy_lists_hosts_as_curl_reads_them() {
        let proxy = ("HTTPS_PROXY", "http://proxy:3128");
        for (list, is_listed) in [
            ("localhost, .mixpanel.com", true),
            ("mixpanel.com", true),
            ("api.mixpanel.com", true),
            ("API.Mixpanel.COM", true),
            ("localhost mixpanel.com.", true),
            ("*.mixpanel.com", true),
            ("*", true),
            ("localhost,*", true),
            ("com", true),
            ("mixpanel.com:443", true),
            ("mixpanel.com:8443", false),
            ("mixpanel.com:", false),
            ("", false),
            (".", false),
            (", ,", false),
            ("*mixpanel.com.evil", false),
            ("panel.com", false),
            ("org", false),
            (":443", false),
            ("*.", false),
            ("eu.api.mixpanel.com", false),
            ("localhost,127.0.0.1,10.0.0.0/8", false),
        ] {
            let expected = unless(is_listed);
            assert_eq!(
                chosen(MIXPANEL, &[proxy, ("NO_PROXY", list)]),
                expected,
                "{list:?}"
            );
        }
        let both = [proxy, ("no_proxy", "example.com"), ("NO_PROXY", "*")];
        assert_eq!(
            chosen(MIXPANEL, &both),
            "http://proxy:3128",
            "the lower case counts"
        );
        let useless = [("HTTPS_PROXY", "ftp://proxy"), ("NO_PROXY", "*")];
        assert_eq!(chosen(MIXPANEL, &useless), "none");
    }

    #[test]
    fn no_proxy_lists_addresses_and_networks() {
        let proxy = ("HTTPS_PROXY", "http://proxy:3128");
        for (endpoint, list, is_listed) in [
            ("https://10.1.2.3", "10.1.2.3", true),
            ("https://10.1.2.3", "10.1.2.4", false),
            ("https://10.1.2.3:8443", "10.1.2.3:8443", true),
            ("https://10.1.2.3", "10.1.2.3:8443", false),
            ("https://10.1.2.3", "10.0.0.0/8", true),
            ("https://10.1.2.3", "10.0.0.0/16", false),
            ("https://10.1.2.3", "0.0.0.0/0", true),
            ("https://10.1.2.3", "10.1.2.3/32", true),
            ("https://10.1.2.3", "10.0.0.0/x", false),
            ("https://10.1.2.3", ".2.3", false),
            ("https://[2001:db8::1]", "2001:db8::1", true),
            ("https://[2001:db8::1]", "[2001:db8::1]", true),
            ("https://[2001:db8::1]", "[2001:db8::1]:443", true),
            ("https://[2001:db8::1]", "[2001:db8::1]:444", false),
            ("https://[2001:db8::1]", "2001:db8::/32", true),
            ("https://[2001:db8::1]", "2001:db9::/32", false),
            ("https://[2001:db8::1]", "10.0.0.0/8", false),
        ] {
            let expected = unless(is_listed);
            assert_eq!(
                chosen(endpoint, &[proxy, ("NO_PROXY", list)]),
                expected,
                "{list:?}"
            );
        }
    }

    #[test]
    fn a_proxy_that_is_set_is_used_whatever_the_environment_says() {
        let endpoint = Endpoint::parse("http://127.0.0.1:8080", false).unwrap();
        let environment = |name: &str| panic!("{name} is not read");
        let set = ProxySetting::Url("http://proxy:3128".to_owned());
        let proxy = set.resolve(&endpoint, environment).unwrap();
        assert_eq!(
            proxy.as_ref().map(name).as_deref(),
            Some("http://proxy:3128")
        );
        let none = ProxySetting::None.resolve(&endpoint, environment).unwrap();
        assert_eq!(none, None);
    }
}
