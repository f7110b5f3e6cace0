//! One request and its response over HTTP.

use std::borrow::Cow;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ureq::config::Config;
#[cfg(feature = "tls")]
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::Resolver;
use ureq::{Agent, Body, Proxy, http};

use crate::client::connector::{LaterResolver, TimedResolver, connector};
use crate::client::endpoint::Endpoint;
use crate::client::proxy;
use crate::client::secrets::Secrets;
pub(crate) use crate::client::transport_error::TransportError;

/// How many bytes of a response are kept.
pub(crate) const MAX_RESPONSE: u64 = 1 << 20;

/// The most bytes of a body that are written at once. A large `send` takes 5 % less CPU time than with the 128 KB that ureq
/// has, since it makes fewer calls of the system.
const OUTPUT_BUFFER: usize = 256 << 10;

/// The same through a SOCKS proxy, to which ureq connects itself: it counts the time of a write anew whenever the system takes
/// a part of it.
const SOCKS_OUTPUT_BUFFER: usize = 16 << 10;

/// The most bytes of a response that are read at once. Few are longer; the memory is each connection's.
const INPUT_BUFFER: usize = 32 << 10;

/// The most bytes of a response's head. A head that fills the buffer is not read further.
const MAX_HEAD: usize = INPUT_BUFFER - 1;

/// A connection that carries one request at a time.
pub(crate) trait Transport: Send + Sync {
    /// Posts a body and reads the response, whatever its status.
    fn post(&self, request: Request<'_>) -> Result<Response, TransportError>;

    /// Aborts the request in progress and refuses each later one.
    fn abort(&self);

    /// Returns the proxy that requests go through, as errors name it.
    fn proxy(&self) -> Option<&str> {
        None
    }

    /// Removes secrets from a text of the server before it is shown.
    fn scrub<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        Cow::Borrowed(text)
    }
}

/// A POST request.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) url: &'a str,
    /// The value of `Authorization`, a secret.
    pub(crate) authorization: Option<&'a str>,
    pub(crate) gzip: bool,
    pub(crate) body: &'a [u8],
}

/// A response, as far as it is needed.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    /// At most [`MAX_RESPONSE`] bytes.
    pub(crate) body: Vec<u8>,
}

/// HTTP/1.1 over a connection that is kept open between requests.
pub(crate) struct Http {
    settings: HttpConfig,
    /// With a pool of one connection.
    agent: Agent,
    /// Whether there was a response already, so that the connection may be an idle one.
    responded: AtomicBool,
}

/// The configuration of requests.
#[derive(Clone, Debug)]
pub(crate) struct HttpConfig {
    /// The endpoint, and the proxy if there is one, as errors name them.
    peer: String,
    proxy: Option<String>,
    secrets: Secrets,
    config: Config,
    resolver: Arc<dyn Resolver>,
}

/// The options of a connection that the builder sets.
pub(crate) struct HttpOptions {
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) proxy: Option<Proxy>,
    #[cfg(feature = "tls")]
    pub(crate) roots: RootCerts,
    pub(crate) secrets: Secrets,
}

impl HttpConfig {
    pub(crate) fn new(endpoint: &Endpoint, options: HttpOptions) -> Self {
        let proxy_name = options.proxy.as_ref().map(proxy::name);
        let peer = match &proxy_name {
            None => endpoint.to_string(),
            Some(proxy) => format!("{endpoint} through the proxy {proxy}"),
        };
        let is_socks = options.proxy.as_ref().is_some_and(proxy::is_socks);
        let output_buffer = if is_socks {
            SOCKS_OUTPUT_BUFFER
        } else {
            OUTPUT_BUFFER
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirected POST loses its body or goes to a host that nobody named.
            .max_redirects(0)
            .timeout_global(Some(options.timeout))
            .timeout_connect(Some(options.connect_timeout.min(options.timeout)))
            .input_buffer_size(INPUT_BUFFER)
            .max_response_header_size(MAX_HEAD)
            .output_buffer_size(output_buffer)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .user_agent(concat!("mixpanel-groups/", env!("CARGO_PKG_VERSION")))
            .accept("application/json")
            .accept_encoding("identity")
            .proxy(options.proxy);
        #[cfg(feature = "tls")]
        let config = config.tls_config(TlsConfig::builder().root_certs(options.roots).build());
        Self {
            peer,
            proxy: proxy_name,
            secrets: options.secrets,
            resolver: Arc::new(TimedResolver),
            config: config.build(),
        }
    }

    fn broken(&self, error: ureq::Error, was_open: bool) -> TransportError {
        TransportError::new(&self.peer, &self.secrets, error, was_open)
    }

    pub(crate) fn open(&self) -> Http {
        Http {
            settings: self.clone(),
            agent: Agent::with_parts(
                self.config.clone(),
                connector(Arc::clone(&self.resolver)),
                LaterResolver,
            ),
            responded: AtomicBool::new(false),
        }
    }
}

impl Transport for Http {
    fn post(&self, request: Request<'_>) -> Result<Response, TransportError> {
        let mut post = self
            .agent
            .post(request.url)
            .content_type("application/json");
        if let Some(authorization) = request.authorization {
            post = post.header("Authorization", authorization);
        }
        if request.gzip {
            post = post.header("Content-Encoding", "gzip");
        }
        let was_open = self.responded.swap(false, Ordering::Relaxed);
        let response = post
            .send(request.body)
            .map_err(|error| self.settings.broken(error, was_open))?;
        let (response, is_whole) =
            read(response).map_err(|error| self.settings.broken(error.into(), false))?;
        // ureq closes a connection on which something is left to read.
        self.responded.store(is_whole, Ordering::Relaxed);
        Ok(response)
    }

    fn abort(&self) {
        self.agent.clone().shutdown();
    }

    fn proxy(&self) -> Option<&str> {
        self.settings.proxy.as_deref()
    }

    fn scrub<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        self.settings.secrets.scrub(text)
    }
}

/// A transport that sends nothing and accepts everything.
pub(crate) struct NoopTransport;

impl Transport for NoopTransport {
    fn post(&self, _request: Request<'_>) -> Result<Response, TransportError> {
        Ok(Response {
            status: 200,
            retry_after: None,
            body: b"1".to_vec(),
        })
    }

    fn abort(&self) {}
}

/// Reads the response, and no more of its body than is needed. Returns whether that is all of it.
///
/// A refusal counts although its body ends too early or not in time: its status says what to do next. Of a success, the
/// body is needed.
pub(crate) fn read(mut response: http::Response<Body>) -> io::Result<(Response, bool)> {
    let header = |name| response.headers().get(name)?.to_str().ok();
    // By the server's clock: this machine's may be off by more than the wait.
    let date = header("Date").and_then(|date| httpdate::parse_http_date(date).ok());
    let now = date.unwrap_or_else(SystemTime::now);
    let retry_after = header("Retry-After").and_then(|value| parse_retry_after(value, now));
    let mut body = Vec::new();
    let mut reader = response.body_mut().as_reader().take(MAX_RESPONSE);
    let read = reader.read_to_end(&mut body);
    let is_whole = read.is_ok() && reader.limit() > 0; // Else it did not get to the end.
    if response.status().is_success() {
        read?;
    }
    let response = Response {
        status: response.status().as_u16(),
        retry_after,
        body,
    };
    Ok((response, is_whole))
}

/// Parses `Retry-After`, in seconds or as an HTTP date.
/// ([RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3))
fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds: longer than any deadline.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use ureq::unversioned::resolver::ResolvedSocketAddrs;
    use ureq::unversioned::transport::NextTimeout;

    use super::*;
    use crate::client::retry::Failure;

    /// Finds the same addresses for every name, and counts how often it is asked.
    #[derive(Debug)]
    struct Counting {
        addresses: Vec<SocketAddr>,
        lookups: AtomicUsize,
        fails: AtomicBool,
    }

    impl Resolver for Counting {
        fn resolve(
            &self,
            _uri: &http::Uri,
            _config: &Config,
            _timeout: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, ureq::Error> {
            self.lookups.fetch_add(1, Ordering::Relaxed);
            if self.fails.load(Ordering::Relaxed) {
                return Err(ureq::Error::HostNotFound);
            }
            let mut found = self.empty();
            self.addresses
                .iter()
                .for_each(|address| found.push(*address));
            Ok(found)
        }
    }

    impl Counting {
        fn new(addresses: Vec<SocketAddr>) -> Arc<Self> {
            Arc::new(Self {
                addresses,
                lookups: AtomicUsize::new(0),
                fails: AtomicBool::new(false),
            })
        }

        fn open(self: &Arc<Self>) -> Http {
            self.open_through(None)
        }

        fn open_through(self: &Arc<Self>, proxy: Option<Proxy>) -> Http {
            let endpoint = Endpoint::parse("http://mixpanel.test", true).expect("it is one");
            let options = HttpOptions {
                timeout: Duration::from_secs(60),
                connect_timeout: Duration::from_secs(10),
                proxy,
                #[cfg(feature = "tls")]
                roots: RootCerts::WebPki,
                secrets: Secrets::default(),
            };
            let mut config = HttpConfig::new(&endpoint, options);
            config.resolver = Arc::<Self>::clone(self);
            config.open()
        }
    }

    fn post(http: &Http) -> Result<Response, TransportError> {
        http.post(Request {
            url: "http://mixpanel.test/groups",
            authorization: None,
            gzip: false,
            body: b"",
        })
    }

    /// Responds to two requests a connection, as a server that closes a kept one.
    fn serve(listener: &TcpListener) {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            let mut lines = BufReader::new(&stream).lines();
            for _ in 0..2 {
                while lines
                    .next()
                    .is_some_and(|line| !line.expect("text").is_empty())
                {}
                let response = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1";
                (&stream).write_all(response).expect("it listens");
            }
        }
    }

    #[test]
    fn a_name_is_looked_up_for_each_connection_and_not_for_each_request() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let counting = Counting::new(vec![listener.local_addr().expect("it is bound")]);
        thread::spawn(move || serve(&listener));
        let http = counting.open();
        let post = || post(&http);
        let lookups = || counting.lookups.load(Ordering::Relaxed);

        post().expect("a response");
        assert_eq!(lookups(), 1);
        // What has its connection needs no name.
        counting.fails.store(true, Ordering::Relaxed);
        post().expect("a response over the kept connection");
        assert_eq!(lookups(), 1);
        // The server closed that one. Where it is not seen before the request, that fails first.
        let error = (0..2).map(|_| post()).find_map(|posted| {
            let error = posted.expect_err("there is no connection");
            (error.failure == Some(Failure::Breakage)).then_some(error)
        });
        let error = error.expect("the name is not found").error;
        assert_eq!(error.to_string(), "http://mixpanel.test: host not found");
        assert_eq!(lookups(), 2);
        counting.fails.store(false, Ordering::Relaxed);
        post().expect("a response over a new connection");
        assert_eq!(lookups(), 3);
    }

    /// As of a host with an IPv6 address where this machine's network has IPv4 alone.
    #[test]
    fn an_address_without_a_route_is_passed_over() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || serve(&listener));
        // For documentation; and one where nobody listens.
        let nowhere: Ipv6Addr = "2001:db8::1".parse().expect("an address");
        let addresses = [nowhere, Ipv6Addr::LOCALHOST].map(|ip| (ip, address.port()).into());
        let counting = Counting::new([addresses.as_slice(), &[address]].concat());
        post(&counting.open()).expect("a response");
        assert_eq!(counting.lookups.load(Ordering::Relaxed), 1);
    }

    /// As of a host with an IPv6 address, behind a firewall that drops its packets.
    #[test]
    fn an_address_that_says_nothing_is_passed_over() {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let [silent, listener] = [listen(), listen()];
        let addresses = [&silent, &listener].map(|it| it.local_addr().expect("it is bound"));
        // Its queue is full: the system drops what comes then.
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addresses[0], Duration::from_millis(300))
        {
            waiting.push(stream);
            assert!(waiting.len() < 10_000, "the queue has no end");
        }
        thread::spawn(move || serve(&listener));
        post(&Counting::new(addresses.to_vec()).open()).expect("a response");
    }

    /// As of a host with an IPv6 address, and a proxy whose network has IPv4 alone.
    #[test]
    fn an_address_that_a_socks_proxy_cannot_reach_is_passed_over() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let first = listener.local_addr().expect("it is bound");
        // The name of the proxy has these addresses too.
        let second = (Ipv4Addr::LOCALHOST, 1).into();
        let counting = Counting::new(vec![first, second]);
        thread::spawn(move || {
            for is_reached in [false, true] {
                let (mut stream, _) = listener.accept().expect("a connection");
                // Version, command, port, address and an empty user name; and the reply.
                stream.read_exact(&mut [0; 9]).expect("a request");
                let status = if is_reached { 90 } else { 91 };
                let reply = [0, status, 0, 0, 0, 0, 0, 0];
                stream.write_all(&reply).expect("it listens");
                if is_reached {
                    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                    while lines.next().is_some_and(|line| !line.is_empty()) {}
                    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1";
                    (&stream).write_all(response).expect("it listens");
                }
            }
        });
        let proxy = Proxy::new("socks4://proxy.test:1080").expect("it is one");
        post(&counting.open_through(Some(proxy))).expect("a response");
    }
}
