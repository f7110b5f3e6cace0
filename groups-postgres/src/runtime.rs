use std::convert::Infallible;
use std::future::Future;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::timeout;

use mixpanel_groups::{Error, ErrorKind};

/// How much longer than its deadline a call waits for the thread to notice it.
const SPARE: Duration = Duration::from_millis(200);

/// A thread that runs the connections. It ends when this is dropped, and no one waits for that.
pub(crate) struct Runtime {
    handle: Handle,
    /// Its drop ends the thread.
    #[expect(dead_code)]
    end: oneshot::Sender<Infallible>,
}

impl Runtime {
    pub(crate) fn start() -> Result<Self, Error> {
        let failed = |error| {
            let message = "cannot start the thread of the outbox's connections";
            Error::new(ErrorKind::Io, message).with_source(error)
        };
        let (give, given) = mpsc::channel::<tokio::runtime::Runtime>();
        let (end, ended) = oneshot::channel();
        let run = move || {
            if let Ok(runtime) = given.recv() {
                drop(runtime.block_on(ended));
                runtime.shutdown_background();
            }
        };
        // The thread first: a runtime that is dropped here, within another one, panics.
        let thread = thread::Builder::new().name("mixpanel-outbox".to_owned());
        thread.spawn(run).map_err(failed)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let handle = runtime.handle().clone();
        drop(give.send(runtime));
        Ok(Self { handle, end })
    }

    /// Returns the way to start jobs on the thread.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a job on the thread, for which no one waits.
    pub(crate) fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(job));
    }

    /// Runs a job on the thread and waits for it, for that time at most; then the job is dropped. The caller may be
    /// within another runtime: it blocks, and does not panic.
    pub(crate) fn wait<R: Send + 'static>(
        &self,
        time: Duration,
        job: impl Future<Output = Result<R, Error>> + Send + 'static,
    ) -> Result<R, Error> {
        let (reply, outcome) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            let outcome = timeout(time, job).await;
            // The caller may be gone.
            drop(reply.send(outcome));
        });
        match outcome.recv_timeout(time.saturating_add(SPARE)) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(mpsc::RecvTimeoutError::Timeout) => Err(too_slow(time)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(panicked()),
        }
    }

    /// Runs a job on the thread and awaits it, in any runtime, for that time at most.
    pub(crate) async fn join<R: Send + 'static>(
        &self,
        time: Duration,
        job: impl Future<Output = Result<R, Error>> + Send + 'static,
    ) -> Result<R, Error> {
        // The timeout is made on the thread: the caller's runtime may have no timers.
        match self
            .handle
            .spawn(async move { timeout(time, job).await })
            .await
        {
            Ok(outcome) => outcome.unwrap_or_else(|_| Err(too_slow(time))),
            Err(_) => Err(panicked()),
        }
    }
}

fn too_slow(time: Duration) -> Error {
    let message = format!("the outbox's database did not respond within {time:?}");
    Error::new(ErrorKind::Timeout, message)
}

fn panicked() -> Error {
    let message = "the thread of the outbox's connections has panicked";
    Error::new(ErrorKind::Io, message)
}
