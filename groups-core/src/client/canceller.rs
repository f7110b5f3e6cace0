use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use crate::client::transport::Transport;
use crate::util::panic::catch;
use crate::util::sync::{Mutex, MutexGuard, thread};

/// Cancels a delivery from another thread, once and for all: the requests in progress are aborted, and no others start.
///
/// A flag alone would have to be looked at while a request is in progress, by a thread that does nothing else.
#[derive(Default)]
pub(crate) struct Canceller {
    flag: AtomicBool,
    /// Those of the delivery in progress.
    connections: Mutex<Vec<Arc<dyn Transport>>>,
}

impl Canceller {
    /// Returns the flag that is set when it cancels.
    pub(super) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    pub(crate) fn cancel(&self) {
        let connections = {
            let mut connections = self.connections();
            self.flag.store(true, Ordering::Relaxed);
            Arc::new(std::mem::take(&mut *connections))
        };
        if connections.is_empty() {
            return;
        }
        // ureq logs while its connections are locked: a logger that hangs there does not hold up the caller, and one that is
        // the caller does not wait for itself.
        let aborted = Arc::clone(&connections);
        let aborts = thread::Builder::new().name("mixpanel-groups abort".to_owned());
        if aborts.spawn(move || abort_all(&aborted)).is_err() {
            abort_all(&connections);
        }
    }

    /// Begins a delivery over these connections.
    pub(super) fn begin(&self, connections: &[Arc<dyn Transport>]) {
        let is_cancelled = {
            let mut of_delivery = self.connections();
            *of_delivery = connections.to_vec();
            self.is_cancelled()
        };
        if is_cancelled {
            abort_all(connections);
        }
    }

    /// Ends the delivery. Returns whether its connections can be used again.
    pub(super) fn end(&self) -> bool {
        self.connections().clear();
        !self.is_cancelled()
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Arc<dyn Transport>>> {
        let connections = self.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Aborts the requests in progress.
pub(super) fn abort_all(connections: &[Arc<dyn Transport>]) {
    for connection in connections {
        // It panics where a logger has panicked within ureq: that request runs to its end.
        let _ = catch(|| connection.abort());
    }
}

#[cfg(all(test, not(simulation)))]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    use super::*;
    use crate::client::endpoint::Endpoint;
    use crate::client::retry::Failure;
    use crate::client::transport::{Request, Response, TransportError};
    use crate::client::{Client, ClientBuilder};
    use crate::group::Group;
    use crate::record::{Error, ErrorKind};

    /// A connection whose request ends when somebody says so, or when it is aborted.
    struct Slow {
        begun: Sender<()>,
        ends: Sender<End>,
        end: Mutex<Receiver<End>>,
        /// How an aborted request ends.
        aborted: End,
    }

    #[derive(Clone, Copy)]
    enum End {
        Response,
        Failure,
    }

    impl Transport for Slow {
        fn post(&self, _: Request<'_>) -> Result<Response, TransportError> {
            self.begun.send(()).unwrap();
            match self.end.lock().unwrap().recv().unwrap() {
                End::Response => Ok(Response {
                    status: 200,
                    retry_after: None,
                    body: b"1".to_vec(),
                }),
                End::Failure => Err(TransportError {
                    error: Error::new(ErrorKind::Network, "the connection was aborted"),
                    failure: Some(Failure::Breakage),
                }),
            }
        }

        fn abort(&self) {
            self.ends.send(self.aborted).unwrap();
        }
    }

    /// Returns such a connection, a client of it, and what is said when a request begins.
    fn client(aborted: End) -> (Arc<Slow>, Client, Mutex<Receiver<()>>) {
        let (begun, begins) = channel();
        let (ends, end) = channel();
        let connection = Arc::new(Slow {
            begun,
            ends,
            end: Mutex::new(end),
            aborted,
        });
        let opened = Arc::clone(&connection);
        let open = move || Arc::clone(&opened) as Arc<dyn Transport>;
        let builder = ClientBuilder::new("TOKEN".to_owned());
        let client = builder.connect(Endpoint::nowhere(), Box::new(open));
        (connection, client, Mutex::new(begins))
    }

    fn send(client: &Client, canceller: &Canceller) -> Result<(), Error> {
        let sending = client.with_options().cancelled_by(canceller);
        let sent = sending.send(Group::new("company", "acme").delete());
        sent.map(|report| assert_eq!(report.accepted, 1))
    }

    fn assert_cancelled(error: &Error) {
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(error.undelivered().len(), 1);
    }

    #[test]
    fn the_request_in_progress_is_aborted() {
        let (_, client, begins) = client(End::Failure);
        let canceller = Canceller::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                begins.lock().unwrap().recv().unwrap();
                canceller.cancel();
            });
            assert_cancelled(&send(&client, &canceller).unwrap_err());
        });
        assert!(
            begins.lock().unwrap().try_recv().is_err(),
            "no other one began"
        );
    }

    #[test]
    fn nothing_starts_once_it_is_cancelled() {
        let (_, client, begins) = client(End::Failure);
        let canceller = Canceller::default();
        canceller.cancel();
        assert_cancelled(&send(&client, &canceller).unwrap_err());
        assert!(begins.lock().unwrap().try_recv().is_err());
    }

    /// A connection that was aborted too late refuses what is sent next, by whomever.
    #[test]
    fn a_connection_is_used_again_unless_it_may_be_aborted() {
        let (connection, client, begins) = client(End::Response);
        let is_kept = || !client.0.idle.lock().unwrap().connections.is_empty();
        let canceller = Canceller::default();
        connection.ends.send(End::Response).unwrap();
        send(&client, &canceller).unwrap();
        assert!(begins.lock().unwrap().recv().is_ok() && is_kept());
        thread::scope(|scope| {
            scope.spawn(|| {
                begins.lock().unwrap().recv().unwrap();
                canceller.cancel();
            });
            send(&client, &canceller).unwrap();
        });
        assert!(!is_kept());
    }
}
