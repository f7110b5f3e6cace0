use std::fmt;

use crate::record::Encoded;
use crate::record::{
    EncodedRecord, Error, Event, IntoEvents, IntoRecord, IntoRecords, IntoUpdates, Update,
};

/// The updates or events that were not delivered, in the caller's order, ready to be sent again.
///
/// Holds their JSON without the project's token, so it can be sent by another client, kept or
/// moved to another thread. `client.send(&undelivered)` sends the updates, `client.import(&undelivered)` the events, and
/// `buffered.publish_all(&undelivered)` takes both.
///
/// ```no_run
/// # fn main() -> Result<(), mixpanel_groups::Error> {
/// # let client = mixpanel_groups::Client::new("token")?;
/// # let updates = Vec::<mixpanel_groups::Update>::new();
/// if let Err(error) = client.send(updates) {
///     eprintln!("{error}");
///     client.send(error.undelivered())?.into_result()?; // later, for instance
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Undelivered {
    json: Vec<u8>,
    entries: Vec<UndeliveredRecord>,
}

#[derive(Clone, Copy)]
struct UndeliveredRecord {
    start: usize,
    end: usize,
    position: usize,
    encoded: Encoded,
}

impl UndeliveredRecord {
    fn is_update(&self) -> bool {
        self.encoded.operation.is_some()
    }
}

impl Undelivered {
    pub(crate) const fn empty() -> Self {
        Self {
            json: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Returns how many updates and events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is neither an update nor an event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Iterates over the updates, in the caller's order.
    pub fn updates(&self) -> impl Iterator<Item = Update<'_>> {
        self.positions().map(|(_, update)| update)
    }

    /// Iterates over the events that an `import` did not deliver. They keep their times and insert ids, so Mixpanel
    /// keeps each once, even if it received one before.
    ///
    /// ```no_run
    /// # let client = mixpanel_groups::Client::new("token")?;
    /// # let events = Vec::<mixpanel_groups::Event>::new();
    /// if let Err(error) = client.import(events) {
    ///     client.import(error.undelivered())?.into_result()?; // later
    /// }
    /// # Ok::<(), mixpanel_groups::Error>(())
    /// ```
    pub fn events(&self) -> impl Iterator<Item = Event> {
        let events = self.entries.iter().filter(|entry| !entry.is_update());
        events.map(|entry| self.event(entry))
    }

    /// Iterates over the updates, each with its position among those that were passed to `send`.
    pub fn positions(&self) -> impl Iterator<Item = (usize, Update<'_>)> {
        self.entries
            .iter()
            .filter(|entry| entry.is_update())
            .map(|entry| (entry.position, self.update(entry)))
    }

    /// Iterates over the positions of updates or events among those that were passed.
    pub(crate) fn all_positions(&self) -> impl Iterator<Item = usize> {
        self.entries.iter().map(|entry| entry.position)
    }

    fn update(&self, entry: &UndeliveredRecord) -> Update<'_> {
        let json = &self.json[entry.start..entry.end];
        Update::encoded(json, Ok(Some(entry.encoded)))
    }

    fn event(&self, entry: &UndeliveredRecord) -> Event {
        Event::read(&self.json[entry.start..entry.end])
    }

    /// Adds the record with these members.
    pub(crate) fn push(&mut self, position: usize, json: &[u8], encoded: Encoded) {
        let start = self.json.len();
        self.json.extend_from_slice(json);
        let end = self.json.len();
        self.entries.push(UndeliveredRecord {
            start,
            end,
            position,
            encoded,
        });
    }

    /// Restores the caller's order, unless records were coalesced.
    pub(crate) fn sort(&mut self) {
        self.entries.sort_by_key(|entry| entry.position);
    }

    /// Returns what the lanes of a delivery have left, in the caller's order. Each lane keeps its own order: a coalesced
    /// record, which has the position of its first part, may stand after one with a greater position.
    pub(crate) fn merge(mut lanes: Vec<[Self; 2]>) -> Self {
        let parts = lanes.iter_mut().flatten();
        let mut parts = parts.filter(|part| !part.is_empty());
        if let (Some(only), None) = (parts.next(), parts.next()) {
            return std::mem::take(only);
        }
        let mut entries = Vec::new();
        for parts in &lanes {
            let mut reached = 0;
            for part in parts {
                for entry in &part.entries {
                    reached = entry.position.max(reached);
                    entries.push((reached, &part.json[entry.start..entry.end], entry));
                }
            }
        }
        entries.sort_by_key(|(reached, ..)| *reached);
        let mut merged = Self::default();
        for (_, json, entry) in entries {
            merged.push(entry.position, json, entry.encoded);
        }
        merged
    }
}

impl<R: Into<EncodedRecord>> FromIterator<R> for Undelivered {
    fn from_iter<I: IntoIterator<Item = R>>(records: I) -> Self {
        let mut undelivered = Self::default();
        for (position, record) in records.into_iter().enumerate() {
            match record.into() {
                EncodedRecord::Update(update) => {
                    undelivered.push(position, update.members(), update.encoded());
                }
                EncodedRecord::Event(event) => {
                    undelivered.push(position, event.members(), event.encoded());
                }
            }
        }
        undelivered
    }
}

// Not `IntoIterator`: an iterator of updates would leave the events out wherever both can be passed.

/// The updates: see [`Undelivered::updates`].
#[diagnostic::do_not_recommend]
impl<'a> IntoUpdates<'a> for &'a Undelivered {
    fn into_updates(self) -> impl Iterator<Item = Update<'a>> {
        self.updates()
    }
}

/// The events: see [`Undelivered::events`].
#[diagnostic::do_not_recommend]
impl IntoEvents for &Undelivered {
    fn into_events(self) -> impl Iterator<Item: std::borrow::Borrow<Event>> {
        self.events()
    }
}

/// The updates and the events.
#[diagnostic::do_not_recommend]
impl IntoRecords for &Undelivered {
    fn into_records(self) -> impl Iterator<Item: IntoRecord> {
        self.entries.iter().map(|entry| {
            if entry.is_update() {
                Either::Update(self.update(entry))
            } else {
                Either::Event(self.event(entry))
            }
        })
    }
}

enum Either<'a> {
    Update(Update<'a>),
    Event(Event),
}

impl IntoRecord for Either<'_> {
    fn into_record(self) -> Result<Option<EncodedRecord>, Error> {
        match self {
            Self::Update(update) => update.into_record(),
            Self::Event(event) => event.into_record(),
        }
    }
}

impl fmt::Debug for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        list.entries(self.updates()).entries(self.events()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Group;
    use crate::record::EncodedUpdate;

    #[test]
    fn updates_and_events_are_told_apart() {
        let [one, two] = [1, 2].map(|id| {
            let update = Group::new("company", id).delete();
            EncodedUpdate::new(&update).unwrap().unwrap()
        });
        let mut undelivered: Undelivered = [one.clone()].into_iter().collect();
        assert_eq!((undelivered.len(), undelivered.is_empty()), (1, false));
        assert!(format!("{undelivered:?}").contains("company"));
        let event = Encoded {
            operation: None,
            ..one.encoded()
        };
        undelivered.push(3, br#""event":"Signup"}"#, event);
        undelivered.push(7, two.members(), two.encoded());
        assert_eq!(undelivered.len(), 3);
        assert_eq!(undelivered.all_positions().collect::<Vec<_>>(), [0, 3, 7]);
        let positions = undelivered.positions().map(|(position, update)| {
            let update = EncodedUpdate::new(&update).unwrap().unwrap();
            (position, update)
        });
        assert_eq!(positions.collect::<Vec<_>>(), [(0, one), (7, two)]);
        assert_eq!(undelivered.updates().count(), 2);
        assert_eq!(Undelivered::default().len(), 0);
    }
}
