use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::differences::{Differences, key_of, text};
use crate::fold::union;
use crate::json::{EncodeError, Json, Written};
use crate::list::ListJson;
use crate::object::write_members;
use crate::operation::OF_FIELDS;
use crate::snapshot_file as file;
use crate::visit::Visitor;
use crate::{
    Error, Group, MixpanelGroup, Operation, Property, Report, Sending, Undelivered, Update,
};

/// What Mixpanel was last told of each group, kept in a file, so that a nightly job sends only what
/// has changed since.
///
/// ```no_run
/// # use mixpanel_groups::{Client, MixpanelGroup, Snapshot};
/// # #[derive(MixpanelGroup)]
/// # #[mixpanel(group_key = "company")]
/// # struct Company { #[mixpanel(group_id)] id: u64 }
/// # fn main() -> Result<(), mixpanel_groups::Error> {
/// # let (client, companies) = (Client::new("token")?, Vec::<Company>::new());
/// let mut snapshot = Snapshot::load_or_new("companies.snapshot")?;
/// let report = snapshot.sync(&client, &companies)?; // the first time everything
/// # Ok(())
/// # }
/// ```
///
/// A hash stands for each value; names and the items of `$union` lists are kept as they are, since
/// they are needed to take them away again; all of it is in memory while the snapshot lives. The
/// file is text, one line a group, written whole or
/// not at all, and only what Mixpanel accepted goes into it as known. Of a group with an update that
/// was not accepted, and of all groups when a run was killed before its end, the next run says
/// everything again.
pub struct Snapshot {
    path: PathBuf,
    groups: HashMap<GroupName, Known>,
    delete_gone: bool,
}

/// Group key and id.
pub(crate) type GroupName = (String, String);

/// What is known of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its company, which has to be named even to delete it.
    pub(crate) company_id: Option<String>,
    /// Its properties, by name.
    pub(crate) traces: BTreeMap<String, Trace>,
}

/// What is left of a property that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    /// The hash of a value of `$set`.
    Value(u64),
    /// `$set_once`, whatever the value was.
    Once,
    /// The list of `$union`.
    List(String),
    /// It was sent, and whether it was applied is not known. The items are those that may be there,
    /// if it is a list.
    Uncertain(String),
}

impl Snapshot {
    /// Reads the file, or begins anew if there is none.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or was written by a newer version of this library.
    /// It is left as it is then: to begin anew, move it away.
    pub fn load_or_new(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let groups = file::load(&path)?;
        Ok(Self {
            path,
            groups,
            delete_gone: false,
        })
    }

    /// Whether [`sync`](Self::sync) deletes the groups that the snapshot has and the data no longer
    /// has; by default it leaves them alone. Only groups of the struct's own group key are deleted.
    #[must_use]
    pub fn delete_gone(mut self, delete: bool) -> Self {
        self.delete_gone = delete;
        self
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Sends what has changed, and keeps in the file what Mixpanel accepted.
    ///
    /// `via` is a client, or `client.sending()` with options.
    ///
    /// # Errors
    /// As [`Client::send`](crate::Client::send), after what was accepted has been saved; and if the
    /// file cannot be written, with the report.
    pub fn sync<'a, 'c, T: MixpanelGroup + 'a>(
        &mut self,
        via: impl Into<Sending<'c>>,
        groups: impl IntoIterator<Item = &'a T>,
    ) -> Result<Report, Error> {
        file::begin(&self.path)?;
        let mut run = Run::new(&self.groups);
        let delete = if self.delete_gone { T::GROUP_KEY } else { "" };
        let mut groups = groups.into_iter();
        let mut gone = None;
        // Each step yields the updates of one group, the gone ones last.
        let steps = std::iter::from_fn(|| {
            if let Some(group) = groups.next() {
                return Some(run.updates(group));
            }
            let gone = gone.get_or_insert_with(|| run.gone(delete).into_iter());
            gone.next().map(|name| run.delete(name))
        });
        let result = via.into().send(steps.flatten());
        let changed = run.changed(&result);
        let saved = self.keep(changed);
        match (result, saved) {
            (result, Ok(())) => result,
            (Ok(report), Err(error)) => Err(error.with_delivery(report, Undelivered::default())),
            (Err(error), Err(saving)) => {
                log::error!("{saving}");
                Err(error)
            }
        }
    }

    fn keep(&mut self, changed: HashMap<GroupName, Option<Known>>) -> Result<(), Error> {
        let is_changed = !changed.is_empty();
        for (name, known) in changed {
            match known {
                Some(known) => self.groups.insert(name, known),
                None => self.groups.remove(&name),
            };
        }
        if is_changed {
            file::save(&self.path, &self.groups)?;
        }
        file::end(&self.path)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("path", &self.path)
            .field("groups", &self.groups.len())
            .finish_non_exhaustive()
    }
}

/// One [`Snapshot::sync`].
struct Run<'s> {
    before: &'s HashMap<GroupName, Known>,
    seen: HashSet<GroupName>,
    pending: HashMap<GroupName, Pending>,
    /// Which group's the updates are, by the position of its first one.
    positions: Vec<(usize, GroupName)>,
    next_position: usize,
}

/// A group that something is sent of.
struct Pending {
    /// What is known of it (nothing, if it is deleted), should its updates be accepted.
    after: Option<Known>,
    /// What it may be otherwise, when it has come up several times.
    between: Option<Known>,
}

impl<'s> Run<'s> {
    fn new(before: &'s HashMap<GroupName, Known>) -> Self {
        Self {
            before,
            seen: HashSet::new(),
            pending: HashMap::new(),
            positions: Vec::new(),
            next_position: 0,
        }
    }

    /// What has changed of a group.
    fn updates<T: MixpanelGroup>(&mut self, group: &T) -> Vec<Update<'static>> {
        let target = group.group();
        let name = (target.key().to_owned(), target.id().to_string());
        self.seen.insert(name.clone());
        let before = match self.pending.get(&name) {
            Some(pending) => pending.after.as_ref(),
            None => self.before.get(&name),
        };
        let company_id = target.company_id().map(ToString::to_string);
        // Nothing was said of it in another company: all is said again.
        let moved = before
            .filter(|before| before.company_id != company_id)
            .map(|before| uncertain(Some(before), None));
        let before = moved.as_ref().or(before);
        let mut comparison = Comparison {
            before,
            known: Known {
                company_id,
                ..Known::default()
            },
            ..Comparison::default()
        };
        let found = OF_FIELDS
            .into_iter()
            .try_for_each(|operation| group.visit_properties(group, operation, &mut comparison));
        let (known, differences) = comparison.finish();
        let is_new = before != Some(&known);
        let updates = match found {
            Ok(()) => differences.into_updates(&target),
            Err(error) => vec![Update::invalid(&target, Operation::Set, error)],
        };
        if is_new {
            let earlier = self.pending.remove(&name);
            let between = earlier.map(|earlier| {
                let between = earlier.between.as_ref().or(self.before.get(&name));
                uncertain(between, earlier.after.as_ref())
            });
            self.pending.insert(
                name.clone(),
                Pending {
                    after: Some(known),
                    between,
                },
            );
        }
        self.note(name, &updates);
        updates
    }

    /// The groups of the group key that have not come up.
    fn gone(&self, key: &str) -> Vec<GroupName> {
        let of_key = self.before.keys().filter(|(other, _)| other == key);
        let mut gone: Vec<_> = of_key
            .filter(|name| !self.seen.contains(*name))
            .cloned()
            .collect();
        gone.sort();
        gone
    }

    fn delete(&mut self, name: GroupName) -> Vec<Update<'static>> {
        let mut group = Group::new(&*name.0, &*name.1);
        let known = self.before.get(&name);
        if let Some(company_id) = known.and_then(|known| known.company_id.as_deref()) {
            group = group.in_company(company_id);
        }
        let updates = vec![group.delete()];
        self.pending.insert(
            name.clone(),
            Pending {
                after: None,
                between: None,
            },
        );
        self.note(name, &updates);
        updates
    }

    fn note(&mut self, name: GroupName, updates: &[Update<'_>]) {
        if !updates.is_empty() {
            self.positions.push((self.next_position, name));
            self.next_position += updates.len();
        }
    }

    /// What is known now of the groups that something was sent of.
    fn changed(mut self, result: &Result<Report, Error>) -> HashMap<GroupName, Option<Known>> {
        let (report, undelivered) = match result {
            Ok(report) => (Some(report), None),
            Err(error) => (error.report(), error.undelivered()),
        };
        let rejected = report.into_iter().flat_map(|report| &report.rejected);
        let rejected = rejected.map(|rejection| rejection.position);
        let undelivered = undelivered.into_iter().flat_map(Undelivered::positions);
        for position in rejected.chain(undelivered.map(|(position, _)| position)) {
            let after = self
                .positions
                .partition_point(|(first, _)| *first <= position);
            if let Some((_, name)) = self.positions[..after].last() {
                if let Some(pending) = self.pending.get_mut(name) {
                    let between = pending.between.as_ref().or(self.before.get(name));
                    pending.after = Some(uncertain(between, pending.after.as_ref()));
                }
            }
        }
        self.pending
            .into_iter()
            .map(|(name, pending)| (name, pending.after))
            .collect()
    }
}

/// What is known of a group that may be in one state or in another, or may have been deleted.
pub(crate) fn uncertain(one: Option<&Known>, other: Option<&Known>) -> Known {
    let both = one.into_iter().chain(other);
    let names = both.flat_map(|known| known.traces.keys());
    let traces = names.map(|name| {
        let of = |known: Option<&Known>| known.and_then(|known| known.traces.get(name)).cloned();
        (name.clone(), [of(one), of(other)])
    });
    let uncertain = traces.filter_map(|(name, traces)| match traces {
        [Some(Trace::Once), Some(Trace::Once)] => Some((name, Trace::Once)),
        // Said once more, it does no harm.
        [None | Some(Trace::Once), None | Some(Trace::Once)] => None,
        traces => {
            let items = traces
                .iter()
                .flatten()
                .fold("[]".to_owned(), |all, trace| match trace {
                    Trace::List(items) | Trace::Uncertain(items) => union(&all, items).into_owned(),
                    Trace::Value(_) | Trace::Once => all,
                });
            Some((name, Trace::Uncertain(items)))
        }
    });
    Known {
        company_id: other.or(one).and_then(|known| known.company_id.clone()),
        traces: uncertain.collect(),
    }
}

/// Compares a struct with what is known of its group.
#[derive(Default)]
struct Comparison<'s> {
    before: Option<&'s Known>,
    known: Known,
    differences: Differences,
    scratch: Vec<u8>,
}

impl Comparison<'_> {
    /// One property that is there.
    fn compare(&mut self, name: &str, key: &str, operation: Operation, value: &str) {
        let before = self.before.and_then(|before| before.traces.get(name));
        let trace = match operation {
            Operation::Union => Trace::List(value.to_owned()),
            Operation::SetOnce => Trace::Once,
            _ => Trace::Value(hash(value)),
        };
        match (&trace, before) {
            (now, Some(before)) if now == before => {}
            (Trace::List(_), Some(Trace::List(old))) => {
                self.differences.change_list(key, value, old, old);
            }
            (Trace::List(_), Some(Trace::Uncertain(may_be))) => {
                self.differences.change_list(key, value, "", may_be);
            }
            (Trace::List(_), _) => self.differences.change_list(key, value, "", ""),
            (Trace::Once, _) => self.differences.set_once(key, value),
            (Trace::Value(_) | Trace::Uncertain(_), _) => self.differences.set(key, value),
        }
        self.known.traces.insert(name.to_owned(), trace);
    }

    /// What is known now, and what is to be said, properties that are gone included.
    fn finish(mut self) -> (Known, Differences) {
        for (name, trace) in self.before.into_iter().flat_map(|before| &before.traces) {
            if self.known.traces.contains_key(name) {
                continue;
            }
            if *trace == Trace::Once {
                self.known.traces.insert(name.clone(), Trace::Once);
            } else {
                self.differences.unset(&key_of(name));
            }
        }
        (self.known, self.differences)
    }
}

impl Visitor for Comparison<'_> {
    fn property<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.write(property, |out| new.serialize(Json { out }))
    }

    fn list<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.write(property, |out| new.serialize(ListJson { out }))
    }

    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        all: &'static [Property],
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        for (name, value) in write_members(property, all, new)? {
            self.compare(&name, &key_of(&name), property.operation, value.get());
        }
        Ok(())
    }
}

impl Comparison<'_> {
    fn write(
        &mut self,
        property: &'static Property,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Written, EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut json = std::mem::take(&mut self.scratch);
        json.clear();
        let written = write(&mut json).map_err(|error| error.of(property.name))?;
        if written == Written::Value {
            self.compare(property.name, property.key, property.operation, text(&json));
        }
        self.scratch = json;
        Ok(())
    }
}

/// FNV-1a, which stays the same from version to version.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl AsRef<Path> for Snapshot {
    /// Where the file is.
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
