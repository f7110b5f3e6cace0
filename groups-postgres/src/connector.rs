use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use postgres::Socket;
use postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};
use postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, Connection};

use crate::connection::random_bits;
use mixpanel_groups::{Error, ErrorKind};

/// A function to call when a notification arrives.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

type Job<R> = Pin<Box<dyn Future<Output = R> + Send>>;

/// What opening a connection is called in errors.
pub(crate) const CONNECT: &str = "connect to the outbox's database";

/// How long an attempt may take at each address, unless the configuration says it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time without a packet, unless the configuration says it: many firewalls and load balancers forget a connection
/// after a few minutes, and do not report it.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(60);

/// How long an address that took longer comes after the others.
const LAST: Duration = Duration::from_secs(60);

/// Opens connections to a database.
pub(crate) trait Connect: Send + Sync {
    /// Opens a connection; each notification that it receives calls the function.
    fn connect(&self, wake: Option<Wake>) -> Job<Result<Client, Error>>;

    /// Breaks off the statement that a connection runs.
    fn cancel(&self, token: CancelToken) -> Job<()>;
}

/// `tokio_postgres` tries several hosts and addresses one after the other too, but would wait without an end for one that
/// accepts a connection and says nothing. So each is tried by itself here, the handshakes included, for the connect
/// timeout, as `libpq` does.
pub(crate) struct Connector<T> {
    hosts: Arc<Hosts>,
    tls: T,
}

struct Hosts {
    /// One for each host.
    configs: Vec<Config>,
    connect_timeout: Duration,
    /// The addresses that took too long, and when they did.
    slow: Mutex<Vec<(Address, Instant)>>,
}

/// The position of a host, and one of its addresses.
type Address = (usize, Option<IpAddr>);

impl<T> Connector<T> {
    /// Timeouts that the configuration does not set are set here, so that a broken network is noticed. Everything that an
    /// outbox does writes, so it connects to hosts that accept writes unless the configuration says otherwise.
    pub(crate) fn new(config: &postgres::Config, tls: T) -> Self {
        let mut common = copy(config);
        if common.get_tcp_user_timeout().is_none() {
            common.tcp_user_timeout(Duration::from_secs(5));
        }
        if common.get_keepalives_idle() == Config::new().get_keepalives_idle() {
            common.keepalives_idle(KEEPALIVES_IDLE);
        }
        if common.get_application_name().is_none() {
            common.application_name("mixpanel-groups");
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            common.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let hosts = Arc::new(Hosts {
            configs: of_hosts(config, &common),
            connect_timeout: config
                .get_connect_timeout()
                .copied()
                .unwrap_or(CONNECT_TIMEOUT),
            slow: Mutex::default(),
        });
        Self { hosts, tls }
    }
}

/// Returns the settings with each host alone. Where their numbers do not fit, it is one configuration with all, whose error
/// says so.
fn of_hosts(config: &postgres::Config, common: &Config) -> Vec<Config> {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let ports = config.get_ports();
    let number = hosts.len().max(addresses.len());
    let fits = |length: usize| length == 0 || length == number;
    let set = |hosts: &[Host], addresses: &[IpAddr], ports: &[u16]| {
        let mut one = common.clone();
        for host in hosts {
            match host {
                Host::Tcp(host) => one.host(host),
                #[cfg(unix)]
                Host::Unix(path) => one.host_path(path),
            };
        }
        for address in addresses {
            one.hostaddr(*address);
        }
        for port in ports {
            one.port(*port);
        }
        one
    };
    if fits(hosts.len()) && fits(addresses.len()) && (fits(ports.len()) || ports.len() == 1) {
        let one = |at| {
            let hosts = hosts.get(at..=at).unwrap_or_default();
            let addresses = addresses.get(at..=at).unwrap_or_default();
            set(hosts, addresses, ports.get(at..=at).unwrap_or(ports))
        };
        let mut configs: Vec<_> = (0..number.max(1)).map(one).collect();
        if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            configs.sort_by_cached_key(|_| random_bits());
        }
        return configs;
    }
    vec![set(hosts, addresses, ports)]
}

/// Copies all settings but the hosts. A function that the configuration calls with the server's notices cannot be copied.
fn copy(config: &postgres::Config) -> Config {
    let mut copy = Config::new();
    macro_rules! copy {
        ($value:ident as $copied:expr, $($get:ident $set:ident)+) => {$(
            if let Some($value) = config.$get() {
                copy.$set($copied);
            }
        )+};
    }
    copy!(value as value, get_application_name application_name get_dbname dbname
        get_keepalives_interval keepalives_interval get_keepalives_retries keepalives_retries
        get_options options get_password password get_user user);
    copy!(time as *time, get_tcp_user_timeout tcp_user_timeout);
    copy.keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    copy
}

impl<T> Connect for Connector<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::TlsConnect: Send,
    T::Stream: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(&self, wake: Option<Wake>) -> Job<Result<Client, Error>> {
        let (hosts, tls) = (Arc::clone(&self.hosts), self.tls.clone());
        Box::pin(async move {
            let (client, mut connection) = hosts.connect(&tls).await?;
            tokio::spawn(async move {
                while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                    if let (AsyncMessage::Notification(_), Some(wake)) = (message, &wake) {
                        wake();
                    }
                }
            });
            Ok(client)
        })
    }

    fn cancel(&self, token: CancelToken) -> Job<()> {
        let tls = self.tls.clone();
        Box::pin(async move { drop(token.cancel_query(tls).await) })
    }
}

impl Hosts {
    /// Tries one address after the other, and at last those that took too long a while ago.
    async fn connect<T>(&self, tls: &T) -> Result<(Client, Connection<Socket, T::Stream>), Error>
    where
        T: MakeTlsConnect<Socket> + Clone,
    {
        let mut failure = Error::new(ErrorKind::Io, format!("cannot {CONNECT}"));
        let slow = self.slow();
        for of_slow in [false, true] {
            if of_slow && slow.is_empty() {
                break;
            }
            for (host, config) in self.configs.iter().enumerate() {
                let addresses = match self.in_time(addresses(config)).await {
                    Ok(addresses) => addresses,
                    Err(error) => {
                        failure = error;
                        continue;
                    }
                };
                for address in addresses {
                    if slow.contains(&(host, address)) != of_slow {
                        continue;
                    }
                    let mut config = config.clone();
                    if let Some(address) = address {
                        config.hostaddr(address);
                    }
                    let start = Instant::now();
                    match self.in_time(config.connect(tls.clone())).await {
                        Ok(connected) => return Ok(connected),
                        Err(error) => failure = error,
                    }
                    if start.elapsed() >= self.connect_timeout {
                        self.set_slow((host, address));
                    }
                }
            }
        }
        Err(failure)
    }

    async fn in_time<R, E>(&self, work: impl Future<Output = Result<R, E>>) -> Result<R, Error>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let time = self.connect_timeout;
        let Ok(result) = timeout(time, work).await else {
            let message = format!("cannot {CONNECT} within {time:?}");
            return Err(Error::new(ErrorKind::Timeout, message));
        };
        result.map_err(|error| {
            Error::new(ErrorKind::Io, format!("cannot {CONNECT}")).with_source(error)
        })
    }

    fn slow(&self) -> Vec<Address> {
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.retain(|(_, since)| since.elapsed() < LAST);
        slow.iter().map(|(address, _)| *address).collect()
    }

    fn set_slow(&self, address: Address) {
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.retain(|(other, _)| *other != address);
        slow.push((address, Instant::now()));
    }
}

/// Looks up the addresses of the name of a host. What has none, such as a socket in the file system, is one address too.
async fn addresses(config: &Config) -> Result<Vec<Option<IpAddr>>, io::Error> {
    let ([Host::Tcp(name)], []) = (config.get_hosts(), config.get_hostaddrs()) else {
        return Ok(vec![None]);
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let found = lookup_host((&**name, port)).await?;
    let mut addresses: Vec<_> = found.map(|address| Some(address.ip())).collect();
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        addresses.sort_by_cached_key(|_| random_bits());
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use postgres::NoTls;

    use super::*;

    #[test]
    fn a_connection_is_not_silent_for_so_long_that_a_firewall_forgets_it() {
        for (config, seconds) in [
            ("host=db1,db2", 60),
            ("host=db1,db2 keepalives_idle=10", 10),
            ("host=db1,db2 keepalives_idle=3600", 3_600),
        ] {
            let connector = Connector::new(&config.parse().unwrap(), NoTls);
            assert_eq!(connector.hosts.configs.len(), 2);
            for config in &connector.hosts.configs {
                assert!(config.get_keepalives());
                assert_eq!(config.get_keepalives_idle(), Duration::from_secs(seconds));
            }
        }
    }
}
