use std::fmt;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::client::Client;
use crate::client::canceller::Canceller;
use crate::client::delivery::{Delivery, Route};
use crate::client::lanes::Lanes;
use crate::record::Record;
use crate::record::{Error, IntoEvents, IntoUpdates, Report};
use crate::util::sync::thread;

type Callback<'a> = Box<dyn FnMut(&Progress) + 'a>;

/// The options of one `send` or `import`: see [`Client::with_options`].
#[must_use = "nothing is sent before `send` is called"]
pub struct SendOptions<'a> {
    pub(super) client: &'a Client,
    pub(super) coalesce: bool,
    pub(super) cancel: Option<&'a AtomicBool>,
    pub(super) canceller: Option<&'a Canceller>,
    pub(super) progress: Option<Callback<'a>>,
    permit: Option<&'a Permit<'a>>,
    is_stopped: Option<&'a AtomicBool>,
}

/// Returns whether a request may start that can take this long.
pub(crate) type Permit<'a> = dyn Fn(Duration) -> bool + Sync + 'a;

impl<'a> SendOptions<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self {
            client,
            coalesce: false,
            cancel: None,
            canceller: None,
            progress: None,
            permit: None,
            is_stopped: None,
        }
    }

    /// Replaces the updates of each group in a batch by fewer with the same effect on its profile: see
    /// [`Batch::coalesce`](crate::client::Batch::coalesce).
    pub fn coalesce(mut self) -> Self {
        self.coalesce = true;
        self
    }

    /// Returns whether the client is [`Client::disabled`].
    pub(crate) fn is_disabled(&self) -> bool {
        self.client.0.is_disabled
    }

    /// Returns the token of the project, a secret.
    pub(crate) fn token(&self) -> &'a str {
        &self.client.0.token
    }

    /// Returns the flag of [`cancel_on`](Self::cancel_on).
    pub(crate) fn cancel_flag(&self) -> Option<&'a AtomicBool> {
        self.cancel
    }

    /// Calls `permit` before each request, and stops if it returns `false`.
    pub(crate) fn permit(mut self, permit: &'a Permit<'a>) -> Self {
        self.permit = Some(permit);
        self
    }

    /// Cancels as [`cancel_on`](Self::cancel_on) does, without a flag that must be looked at.
    pub(crate) fn cancelled_by(mut self, canceller: &'a Canceller) -> Self {
        self.canceller = Some(canceller);
        self.cancel_on(canceller.flag())
    }

    /// Sets the flag once nothing more is sent.
    pub(crate) fn note_stop(mut self, flag: &'a AtomicBool) -> Self {
        self.is_stopped = Some(flag);
        self
    }

    /// Stops soon after the flag is set, for instance by a handler of Ctrl-C. The request in progress is aborted, and
    /// everything undelivered comes back in an error of the kind [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    ///
    /// While the iterator that was passed waits for its next item, as on a channel or a database cursor, the request in progress
    /// is not aborted, but no other starts.
    /// After a cancellation the iterator is read to its end, to collect what is undelivered.
    ///
    /// Name resolution and connecting cannot be aborted; they end after the client's
    /// [`connect_timeout`](crate::ClientBuilder::connect_timeout). The server may still apply an aborted request. Where the
    /// system refuses to start a thread, as at a container's limit, the request in progress is not aborted either, and ends
    /// after the client's [`timeout`](crate::ClientBuilder::timeout).
    pub fn cancel_on(mut self, flag: &'a AtomicBool) -> Self {
        self.cancel = Some(flag);
        self
    }

    /// Calls the function with the progress so far, at most every 100 ms and once at the end, on the caller's thread.
    pub fn on_progress(mut self, callback: impl FnMut(&Progress) + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Sends updates: see [`Client::send`].
    ///
    /// # Errors
    /// As [`Client::send`], and when the flag of [`cancel_on`](Self::cancel_on) is set.
    pub fn send<'u>(self, updates: impl IntoUpdates<'u>) -> Result<Report, Error> {
        let route = self.client.groups_route();
        self.run(route, updates.into_updates())
    }

    /// Imports events: see [`Client::import`].
    ///
    /// # Errors
    /// As [`Client::import`], and when the flag of [`cancel_on`](Self::cancel_on) is set.
    pub fn import(self, events: impl IntoEvents) -> Result<Report, Error> {
        let route = self.client.import_route();
        self.run(route, events.into_events())
    }

    /// Sends records over the route for their kind.
    pub(crate) fn run<R: Record>(
        self,
        route: &Route,
        records: impl Iterator<Item = R>,
    ) -> Result<Report, Error> {
        let client = self.client;
        let canceller = self.canceller;
        let resources = client.take_idle();
        if let Some(canceller) = canceller {
            canceller.begin(&resources.connections);
        }
        let mut delivery = Delivery::new(route, resources);
        delivery.cancel = self.cancel;
        delivery.permit = self.permit.map(|permit| (permit, client.0.timeout));
        delivery.is_stopped = self.is_stopped;
        thread::scope(|scope| {
            let mut lanes = Lanes::new(scope, &delivery, self);
            lanes.fill(records);
            lanes.finish();
        });
        let (mut resources, result) = delivery.finish();
        if canceller.is_some_and(|canceller| !canceller.end()) {
            resources.connections.clear();
        }
        client.keep_idle(resources);
        if let Ok(report) = &result {
            log::debug!("{report}");
        }
        result
    }
}

/// The progress of a `send`, for [`SendOptions::on_progress`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Records that were in at least one request.
    pub sent: usize,
    /// Records that Mixpanel accepted.
    pub accepted: usize,
    /// Records that were rejected, by Mixpanel or before they were sent.
    pub rejected: usize,
    /// Requests that were retries.
    pub retries: usize,
    /// Bytes of all request bodies, as sent.
    pub bytes: u64,
    /// The time until the next retry, if a request waits for one.
    pub backing_off: Option<Duration>,
}

impl<'a> From<&'a Client> for SendOptions<'a> {
    fn from(client: &'a Client) -> Self {
        client.with_options()
    }
}

impl fmt::Debug for SendOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendOptions")
            .field("client", self.client)
            .finish_non_exhaustive()
    }
}
