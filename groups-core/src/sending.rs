mod lanes;

use std::borrow::Borrow;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::thread;

use crate::delivery::{Delivery, Route};
use crate::records::Record;
use crate::{Client, Error, Event, Progress, Report, Update};
use lanes::Lanes;

type Callback<'a> = Box<dyn FnMut(&Progress) + 'a>;

/// One `send` or `import` with options of its own: see [`Client::sending`].
#[must_use = "nothing is sent before `send` is called"]
pub struct Sending<'a> {
    client: &'a Client,
    fold: bool,
    cancel: Option<&'a AtomicBool>,
    progress: Option<Callback<'a>>,
}

impl<'a> Sending<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self {
            client,
            fold: false,
            cancel: None,
            progress: None,
        }
    }

    /// Replaces the updates of each group, as many as wait together, by fewer that make the same of
    /// its profile: see [`Batch::fold`](crate::Batch::fold).
    pub fn fold(mut self) -> Self {
        self.fold = true;
        self
    }

    /// Stops soon after the flag is set, by a handler of Ctrl-C for instance: a request under way
    /// is broken off, and all that is not delivered comes back in an error of the kind
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled). Only finding a server and connecting
    /// to it cannot be broken off; the client's
    /// [`connect_timeout`](crate::ClientBuilder::connect_timeout) ends that.
    ///
    /// What is broken off may still be applied by the server.
    pub fn cancel_on(mut self, flag: &'a AtomicBool) -> Self {
        self.cancel = Some(flag);
        self
    }

    /// Calls the function with what is done so far, at most every 100 ms and once at the end, on
    /// the thread that sends.
    pub fn on_progress(mut self, callback: impl FnMut(&Progress) + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Sends updates: see [`Client::send`].
    ///
    /// # Errors
    /// As [`Client::send`], and when the flag of [`cancel_on`](Self::cancel_on) is set.
    pub fn send<'u, I>(self, updates: I) -> Result<Report, Error>
    where
        I: IntoIterator,
        I::Item: Into<Update<'u>>,
    {
        let route = self.client.groups_route();
        self.run(route, updates.into_iter().map(Into::into))
    }

    /// Imports events: see [`Client::import`].
    ///
    /// # Errors
    /// As [`Client::import`], and when the flag of [`cancel_on`](Self::cancel_on) is set.
    pub fn import<I>(self, events: I) -> Result<Report, Error>
    where
        I: IntoIterator,
        I::Item: Borrow<Event>,
    {
        let route = self.client.import_route();
        self.run(route, events.into_iter())
    }

    fn run<R: Record>(
        self,
        route: &Route,
        records: impl Iterator<Item = R>,
    ) -> Result<Report, Error> {
        let client = self.client;
        let delivery = Delivery::new(route, client.take_connections());
        thread::scope(|scope| {
            let mut lanes = Lanes::new(scope, &delivery, self);
            lanes.fill(records);
            lanes.finish();
        });
        let (connections, result) = delivery.finish();
        client.keep_connections(connections);
        if let Ok(report) = &result {
            log::debug!("{report}");
        }
        result
    }
}

impl<'a> From<&'a Client> for Sending<'a> {
    fn from(client: &'a Client) -> Self {
        client.sending()
    }
}

impl fmt::Debug for Sending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("client", self.client)
            .finish_non_exhaustive()
    }
}
