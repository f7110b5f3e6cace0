use std::fmt;

use crate::encode::Encoded;
use crate::records::Records;
use crate::{Event, StoredUpdate, Update};

/// The updates or events that were not delivered, in the caller's order, ready to be sent again.
///
/// Holds their JSON without the project's token, so it can be sent by another client, kept or
/// moved to another thread.
///
/// ```no_run
/// # fn main() -> Result<(), mixpanel_groups::Error> {
/// # let client = mixpanel_groups::Client::new("token")?;
/// # let updates = Vec::<mixpanel_groups::Update>::new();
/// if let Err(error) = client.send(updates) {
///     eprintln!("{error}");
///     client.send(error.undelivered().into_iter().flatten())?; // later, for instance
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Undelivered {
    json: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    start: usize,
    end: usize,
    position: usize,
    encoded: Encoded,
}

impl Entry {
    fn is_update(&self) -> bool {
        self.encoded.operation.is_some()
    }
}

impl Undelivered {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The updates.
    #[must_use]
    pub fn iter(&self) -> UndeliveredIter<'_> {
        self.into_iter()
    }

    /// The events: what an `import` did not deliver. They keep their insert ids, so Mixpanel keeps
    /// each once, even if it had come before.
    ///
    /// ```no_run
    /// # let client = mixpanel_groups::Client::new("token")?;
    /// # let events = Vec::<mixpanel_groups::Event>::new();
    /// if let Err(error) = client.import(events) {
    ///     client.import(error.into_undelivered().events())?; // later, for instance
    /// }
    /// # Ok::<(), mixpanel_groups::Error>(())
    /// ```
    pub fn events(&self) -> impl Iterator<Item = Event> {
        let events = self.entries.iter().filter(|entry| !entry.is_update());
        // What was not an event could not have been written as one.
        events.filter_map(|entry| Event::from_json(&self.json[entry.start..entry.end]).ok())
    }

    /// Each update, with its position among the updates that were passed to `send`.
    pub fn positions(&self) -> impl Iterator<Item = (usize, Update<'_>)> {
        self.entries
            .iter()
            .filter(|entry| entry.is_update())
            .map(|entry| (entry.position, self.update(entry)))
    }

    fn update(&self, entry: &Entry) -> Update<'_> {
        let json = &self.json[entry.start..entry.end];
        Update::encoded(json, Ok(Some(entry.encoded)))
    }

    /// Adds a record of a batch, without the `opening` that the client wrote before it.
    pub(crate) fn add(&mut self, batch: &Records, index: usize, opening: &[u8]) {
        let json = &batch.json(index)[opening.len()..];
        self.push(batch.position(index), json, batch.encoded(index));
    }

    fn push(&mut self, position: usize, json: &[u8], encoded: Encoded) {
        let start = self.json.len();
        self.json.extend_from_slice(json);
        let end = self.json.len();
        self.entries.push(Entry {
            start,
            end,
            position,
            encoded,
        });
    }

    /// Restores the caller's order.
    pub(crate) fn sort(&mut self) {
        self.entries.sort_by_key(|entry| entry.position);
    }
}

impl FromIterator<StoredUpdate> for Undelivered {
    fn from_iter<I: IntoIterator<Item = StoredUpdate>>(updates: I) -> Self {
        let mut undelivered = Self::default();
        for (position, update) in updates.into_iter().enumerate() {
            undelivered.push(position, update.members(), update.encoded());
        }
        undelivered
    }
}

/// Iterates over updates that borrow from [`Undelivered`].
#[derive(Clone)]
pub struct UndeliveredIter<'a> {
    undelivered: &'a Undelivered,
    rest: std::slice::Iter<'a, Entry>,
}

impl<'a> Iterator for UndeliveredIter<'a> {
    type Item = Update<'a>;

    fn next(&mut self) -> Option<Update<'a>> {
        let next = self.rest.find(|entry| entry.is_update());
        next.map(|entry| self.undelivered.update(entry))
    }
}

impl<'a> IntoIterator for &'a Undelivered {
    type Item = Update<'a>;
    type IntoIter = UndeliveredIter<'a>;

    fn into_iter(self) -> UndeliveredIter<'a> {
        UndeliveredIter {
            undelivered: self,
            rest: self.entries.iter(),
        }
    }
}

impl fmt::Debug for UndeliveredIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl fmt::Debug for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        list.entries(self).entries(self.events()).finish()
    }
}
