use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use mixpanel_groups::{Error, ErrorKind};

/// The longest time that opening a connection takes, and another one until it has been accepted and served.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest time between two looks of a loop that waits for open connections to close. Each look takes a port of the
/// machine, for up to about 2 minutes: so the loop takes 12,000 of the 16,384 that some systems have.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The longest time that stopping takes.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A listener on a loopback port, with a thread for each connection. Dropping it closes them all.
pub(crate) struct HttpServer {
    pub(crate) address: SocketAddr,
    lifecycle: Arc<Lifecycle>,
}

/// The state that the threads of one server share: whether it has stopped, and its open connections.
#[derive(Default)]
pub(crate) struct Lifecycle {
    state: Mutex<LifecycleState>,
    changed: Condvar,
}

#[derive(Default)]
struct LifecycleState {
    is_stopped: bool,
    is_listener_closed: bool,
    /// Each stream is owned by its thread, and closes when that thread ends.
    connections: Vec<Weak<TcpStream>>,
}

impl HttpServer {
    /// Binds the port and calls `serve` with each connection, in a thread of its own.
    pub(crate) fn start(
        port: u16,
        serve: impl Fn(&TcpStream, &Lifecycle) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let cannot_listen = |error| {
            let message = format!(
                "cannot listen on 127.0.0.1:{port}: choose another port, or 0 for any free one"
            );
            Error::new(ErrorKind::Io, message).with_source(error)
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let lifecycle = Arc::new(Lifecycle::default());
        let shared = Arc::clone(&lifecycle);
        spawn(move || {
            listen(&listener, &shared, &Arc::new(serve));
            drop(listener);
            shared.lock().is_listener_closed = true;
            shared.changed.notify_all();
        })
        .map_err(|error| {
            Error::new(ErrorKind::Io, "cannot start the emulator's thread").with_source(error)
        })?;
        Ok(Self { address, lifecycle })
    }
}

impl HttpServer {
    /// Returns the number of connections that are open, also of those that are still to be accepted when it is
    /// called.
    ///
    /// They are accepted in order. So it opens one more, and waits until that one has been served, or counts it.
    pub(crate) fn open_connections(&self) -> usize {
        let is_served = self.open_and_close().is_ok();
        let open = self.lifecycle.open_connections();
        if open == 0 {
            return usize::from(!is_served);
        }
        self.lifecycle.pause(LOOK_EVERY); // Only what is open makes a caller look again.
        open
    }

    fn open_and_close(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.address, ACCEPT_TIMEOUT)?;
        stream.set_read_timeout(Some(ACCEPT_TIMEOUT))?;
        stream.shutdown(Shutdown::Write)?;
        stream.read(&mut [0]).map(drop)
    }

    /// Closes the listener and all connections. A request whose reply has not gone out by then gets none.
    pub(crate) fn stop(&self) {
        let mut state = self.lifecycle.lock();
        if state.is_stopped {
            return;
        }
        state.is_stopped = true;
        for stream in state
            .connections
            .drain(..)
            .filter_map(|weak| weak.upgrade())
        {
            // Fails only if the stream is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.lifecycle.changed.notify_all();
        drop(state);
        // The listener blocks until a connection arrives, so this makes one. If that fails, the
        // listener ends with the next client's connection.
        if TcpStream::connect_timeout(&self.address, STOP_TIMEOUT).is_ok() {
            self.lifecycle
                .wait(STOP_TIMEOUT, |state| state.is_listener_closed);
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Lifecycle {
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// Sleeps for `time`, or until the server stops. Returns whether it has stopped.
    fn pause(&self, time: Duration) -> bool {
        self.wait(time, |state| state.is_stopped)
    }

    fn wait(&self, time: Duration, is_over: impl Fn(&LifecycleState) -> bool) -> bool {
        let waiting = |state: &mut LifecycleState| !is_over(state);
        let waited = self.changed.wait_timeout_while(self.lock(), time, waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        is_over(&state)
    }

    /// Registers a connection, so that stopping the server closes it. Returns `false` if the server
    /// has stopped already.
    fn register(&self, stream: &Arc<TcpStream>) -> bool {
        let mut state = self.lock();
        state.connections.retain(|other| other.strong_count() > 0);
        state.connections.push(Arc::downgrade(stream));
        !state.is_stopped
    }

    fn open_connections(&self) -> usize {
        let state = self.lock();
        let connections = state.connections.iter();
        connections
            .filter(|stream| stream.strong_count() > 0)
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, LifecycleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen<F>(listener: &TcpListener, lifecycle: &Arc<Lifecycle>, serve: &Arc<F>)
where
    F: Fn(&TcpStream, &Lifecycle) + Send + Sync + 'static,
{
    for stream in listener.incoming() {
        let served = stream.and_then(|stream| {
            let stream = Arc::new(stream);
            let is_stopped = !lifecycle.register(&stream);
            let (lifecycle, serve) = (Arc::clone(lifecycle), Arc::clone(serve));
            if !is_stopped {
                spawn(move || serve(&stream, &lifecycle))?;
            }
            Ok(is_stopped)
        });
        // Accepting fails when too many files or threads are open, which passes.
        if served.unwrap_or_else(|_| lifecycle.pause(Duration::from_millis(10))) {
            return;
        }
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("mixpanel-emulator".into());
    thread.spawn(run).map(drop)
}
