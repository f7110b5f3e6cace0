//! A listener with a thread for each connection, and their end.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// How long stopping may take; the listener ends with the next connection, which stopping makes.
const PATIENCE: Duration = Duration::from_secs(1);

/// Listens on a loopback port until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    life: Arc<Life>,
}

/// What the threads of one server know of each other.
#[derive(Default)]
pub(crate) struct Life {
    open: Mutex<Open>,
    changed: Condvar,
}

#[derive(Default)]
struct Open {
    is_stopped: bool,
    is_closed: bool,
    /// Each is owned by its thread, and closed when that ends.
    connections: Vec<Weak<TcpStream>>,
}

impl Server {
    /// Calls `serve` with each connection, in a thread of its own.
    pub(crate) fn start(
        port: u16,
        serve: impl Fn(&TcpStream, &Life) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let life = Arc::new(Life::default());
        let its_life = Arc::clone(&life);
        spawn(move || {
            listen(&listener, &its_life, &Arc::new(serve));
            drop(listener);
            its_life.lock().is_closed = true;
            its_life.changed.notify_all();
        })?;
        Ok(Self { address, life })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut open = self.life.lock();
        open.is_stopped = true;
        for stream in open.connections.drain(..).filter_map(|weak| weak.upgrade()) {
            // Fails only where it is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.life.changed.notify_all();
        drop(open);
        // Wakes the listener; if that fails, it ends with the next client.
        if TcpStream::connect_timeout(&self.address, PATIENCE).is_ok() {
            self.life.wait(PATIENCE, |open| open.is_closed);
        }
    }
}

impl Life {
    /// Waits for this long, or until the server stops; says whether it does.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        self.wait(time, |open| open.is_stopped)
    }

    fn wait(&self, time: Duration, is_over: impl Fn(&Open) -> bool) -> bool {
        let waiting = |open: &mut Open| !is_over(open);
        let waited = self.changed.wait_timeout_while(self.lock(), time, waiting);
        let (open, _) = waited.unwrap_or_else(PoisonError::into_inner);
        is_over(&open)
    }

    /// Makes a connection known to who stops the server, or refuses it after that.
    fn admit(&self, stream: &Arc<TcpStream>) -> bool {
        let mut open = self.lock();
        open.connections.retain(|other| other.strong_count() > 0);
        open.connections.push(Arc::downgrade(stream));
        !open.is_stopped
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen<F>(listener: &TcpListener, life: &Arc<Life>, serve: &Arc<F>)
where
    F: Fn(&TcpStream, &Life) + Send + Sync + 'static,
{
    for stream in listener.incoming() {
        let served = stream.and_then(|stream| {
            let stream = Arc::new(stream);
            let is_stopped = !life.admit(&stream);
            let (life, serve) = (Arc::clone(life), Arc::clone(serve));
            if !is_stopped {
                spawn(move || serve(&stream, &life))?;
            }
            Ok(is_stopped)
        });
        // An error is that of too many open files or threads: there will be fewer again.
        if served.unwrap_or_else(|_| life.pause(Duration::from_millis(10))) {
            return;
        }
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("mixpanel-emulator".into());
    thread.spawn(run).map(drop)
}
