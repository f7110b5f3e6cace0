//! A network between the outbox and its database, which is slow or loses a reply.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use postgres::Config;

pub struct Proxy {
    port: u16,
    loses: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy that passes on what arrives, from so long after a connection was opened.
    pub fn start(server: &Config, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, server, delay, None)
    }

    /// A proxy that passes on so many bytes a second.
    pub fn slow(server: &Config, rate: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, server, Duration::ZERO, Some(rate))
    }

    /// A proxy at a port that was silent so far.
    pub fn on(
        listener: TcpListener,
        server: &Config,
        delay: Duration,
        rate: Option<usize>,
    ) -> Self {
        let port = listener.local_addr().unwrap().port();
        let server = format!("127.0.0.1:{}", server.get_ports()[0]);
        let loses = Arc::new(AtomicBool::new(false));
        let its_loses = Arc::clone(&loses);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (server, loses) = (server.clone(), Arc::clone(&its_loses));
                thread::spawn(move || pass_on(client.unwrap(), &server, delay, rate, &loses));
            }
        });
        Self { port, loses }
    }

    /// How to reach the server through it.
    pub fn config(&self, server: &Config) -> Config {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user(server.get_user().unwrap())
            .dbname(server.get_dbname().unwrap());
        config
    }

    /// Closes the connection on which the next reply arrives, in place of passing it on.
    pub fn lose_a_reply(&self) {
        self.loses.store(true, Ordering::SeqCst);
    }
}

fn pass_on(
    client: TcpStream,
    server: &str,
    delay: Duration,
    rate: Option<usize>,
    loses: &AtomicBool,
) {
    thread::sleep(delay);
    let server = TcpStream::connect(server).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| copy(&client, &server, rate, || false));
        copy(&server, &client, rate, || {
            loses.swap(false, Ordering::SeqCst)
        });
    });
}

/// Passes on what one sends, until one of both closes its connection or what arrives is lost.
fn copy(mut from: &TcpStream, mut to: &TcpStream, rate: Option<usize>, is_lost: impl Fn() -> bool) {
    let mut bytes = [0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if let Some(rate) = rate {
            thread::sleep(Duration::from_secs(1) * length as u32 / rate as u32);
        }
        if is_lost() || to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // The other side may be gone.
        drop(stream.shutdown(Shutdown::Both));
    }
}
