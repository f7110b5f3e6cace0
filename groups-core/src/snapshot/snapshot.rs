use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use super::file_store::FileStore;
use super::index::Index;
use super::journal::Journal;
use super::row::Project;
use super::run::Run;
use super::store::SnapshotStore;
use crate::client::SendOptions;
use crate::group::Property;
use crate::record::{Error, ErrorKind, MixpanelGroup, Report};

/// A record of what Mixpanel has accepted of each group, so that a nightly job sends only what has changed since.
///
/// ```no_run
/// use mixpanel_groups::Snapshot;
///
/// # use mixpanel_groups::{Client, MixpanelGroup};
/// # #[derive(MixpanelGroup)]
/// # #[mixpanel(group_key = "company")]
/// # struct Company { #[mixpanel(group_id)] id: u64 }
/// # fn main() -> Result<(), mixpanel_groups::Error> {
/// # let (client, companies) = (Client::new("token")?, Vec::<Company>::new());
/// let mut snapshot = Snapshot::open("companies.snapshot")?;
/// let report = snapshot.sync(&client, &companies)?; // the first time everything
/// # Ok(())
/// # }
/// ```
///
/// # What it keeps
/// Names, the items of `$union` lists, and a hash of 128 bits for each other value; its key is random. Some 50 bytes of
/// each group are in memory, and the rest is read when the group has changed.
///
/// # One project, one struct
/// A snapshot belongs to one project: the first one that accepts an update. A client with another token is refused; the
/// endpoint may change. The token is kept as a hash. A snapshot knows only what it has sent itself, not what other code
/// sends or deletes, nor what somebody deletes in Mixpanel. To send everything again, move it away while no `Snapshot` of it
/// is open; then it does not know which groups are gone. An older copy, as from a backup, does not know what was sent since:
/// do not put it in its place.
///
/// Use one struct for each group key: a property that the struct does not have, or no longer has, is removed, unless it
/// was set once. So two structs that map different properties of the same groups need a snapshot each. With one, each
/// would remove what the other has sent, which is logged as a warning.
///
/// # Runs that end early
/// Before a request starts, the snapshot has written which groups it is about to change. If the process is killed or
/// the machine loses power, the next run sends all properties of those groups again, deletes those that are gone if it
/// is to, and removes list items that only the killed run had. The same holds for groups with an update that was not
/// accepted. If this happens in the middle of a write to the file, the next run sends all groups again: it cannot know
/// whether rows were lost that had been written before.
///
/// # The file
/// [`open`](Self::open) keeps the snapshot in a file. A run appends to it, and not at all if nothing changed. When more
/// than half of it is outdated, it is written anew: another file beside it, named with `.tmp`, takes its place, with the
/// same mode and owner. A symbolic link stays. A file that cannot be replaced is written in place, such as one that is
/// mounted into a container, or another user's, unless root replaces it. If the process is killed meanwhile, the next run
/// needs the other file. So mount the folder instead.
/// [`open_in`](Self::open_in) keeps the snapshot in a database.
pub struct Snapshot {
    store: Box<dyn SnapshotStore>,
    /// What error messages call it.
    name: String,
    index: Index,
    /// Whether the index is as the store is.
    is_loaded: bool,
    delete_gone: bool,
    /// The properties of the struct of each group key that was synced.
    structs: HashMap<&'static str, &'static [Property]>,
    /// The process that opened it: two would write over each other's rows.
    process: u32,
}

impl Snapshot {
    /// Reads the file, or begins anew if there is none or it is empty.
    ///
    /// # Errors
    /// - [`ErrorKind::Damaged`] if the file is not a snapshot, is damaged, or was written by a newer version of this
    ///   library. It is left as it is: to begin anew, move it away.
    /// - [`ErrorKind::Io`] if it cannot be read or locked, or another snapshot of the same file is open, in this process or in
    ///   another one on this machine: wait for its end. For that, the file is locked, and another one beside it, `….lock`,
    ///   which stays.
    ///
    /// A program that forks, to become a daemon for instance, opens it afterwards: in a fork, each run of its parent's snapshot
    /// is [`ErrorKind::Closed`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let name = format!("the snapshot {}", path.display());
        Self::load(Box::new(FileStore::open(path)?), name)
    }

    /// Reads the snapshot of a store, such as one in a database.
    ///
    /// # Errors
    /// Those of the store, and [`ErrorKind::Damaged`] if its rows are not a snapshot, or one of a newer version of this
    /// library.
    pub fn open_in(store: impl SnapshotStore + 'static) -> Result<Self, Error> {
        Self::load(Box::new(store), "the snapshot".to_owned())
    }

    fn load(mut store: Box<dyn SnapshotStore>, name: String) -> Result<Self, Error> {
        Ok(Self {
            index: Index::load(&mut *store, &name)?,
            store,
            name,
            is_loaded: true,
            delete_gone: false,
            structs: HashMap::new(),
            process: process::id(),
        })
    }

    /// Sets whether [`sync`](Self::sync) deletes the groups that the snapshot has and the data no longer has; by default
    /// they stay. Only groups of the struct's own group key are deleted, so each sync needs all groups of its key.
    ///
    /// Where the data comes from a source that can fail midway, use [`try_sync`](Self::try_sync): groups that an
    /// iterator leaves out look as if they were gone.
    #[must_use]
    pub fn delete_gone(mut self, delete: bool) -> Self {
        self.delete_gone = delete;
        self
    }

    /// Returns the number of groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether there are no groups.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// Sends what has changed, and keeps what Mixpanel accepted.
    ///
    /// `via` is a client, or `client.with_options()` with options. With [`Client::disabled`](crate::Client::disabled)
    /// nothing is kept. The structs come from any iterator, owned or borrowed; they are read one by one and not kept.
    ///
    /// # Errors
    /// - As [`Client::send`](crate::Client::send), after what was accepted has been kept. When nothing more can be sent, no
    ///   more structs are read. The undelivered updates are those of the structs that were read, without the last one. The
    ///   other groups are neither sent nor deleted, and the next run compares them with what was known before.
    /// - [`ErrorKind::Config`] if the client has the token of another project than the snapshot. Nothing is sent.
    /// - If the snapshot cannot be written. Then no request starts that depends on what could not be written: a file or
    ///   volume that is read-only or full is an error before the first request. The error has the report of what was
    ///   sent before.
    pub fn sync<'c, T: MixpanelGroup>(
        &mut self,
        via: impl Into<SendOptions<'c>>,
        groups: impl IntoIterator<Item = T>,
    ) -> Result<Report, Error> {
        self.try_sync(via, groups.into_iter().map(Ok::<T, Infallible>))
    }

    /// Sends what has changed, as [`sync`](Self::sync) does, of structs that come from a source that can fail, such as
    /// the cursor of a database.
    ///
    /// The first error ends the run. What came before it is sent and kept; nothing is deleted, since the rest of the
    /// data is not known.
    ///
    /// ```
    /// use mixpanel_groups::ErrorKind;
    ///
    /// # use mixpanel_groups::{Client, Error, MixpanelGroup, Snapshot};
    /// # #[derive(MixpanelGroup)]
    /// # #[mixpanel(group_key = "company")]
    /// # struct Company { #[mixpanel(group_id)] id: u64, plan: String }
    /// # fn main() -> Result<(), Error> {
    /// # let client = Client::disabled();
    /// # let folder = std::env::temp_dir().join(format!("try_sync.{}", std::process::id()));
    /// # std::fs::create_dir(&folder).unwrap();
    /// # let mut snapshot = Snapshot::open(folder.join("companies.snapshot"))?;
    /// let rows = [
    ///     Ok(Company { id: 1, plan: "free".to_owned() }),
    ///     Err(std::io::Error::other("the connection is closed")),
    /// ];
    /// let error = snapshot.try_sync(&client, rows).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Source);
    /// assert_eq!(error.report().unwrap().accepted, 1);
    /// # drop(snapshot);
    /// # std::fs::remove_dir_all(folder).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Source`] if the iterator returns an error, which is the [`source`](StdError::source); otherwise as
    /// [`sync`](Self::sync). The error has the report of what was sent.
    pub fn try_sync<'c, T, E>(
        &mut self,
        via: impl Into<SendOptions<'c>>,
        groups: impl IntoIterator<Item = Result<T, E>>,
    ) -> Result<Report, Error>
    where
        T: MixpanelGroup,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        if self.process != process::id() {
            let message = format!(
                "{} belongs to the parent process: open it after the fork",
                self.name
            );
            return Err(Error::new(ErrorKind::Closed, message));
        }
        if !self.is_loaded {
            self.index = Index::load(&mut *self.store, &self.name)?;
        }
        let via = via.into();
        if !via.is_disabled() {
            self.set_project(via.token())?;
        }
        self.note_struct::<T>();
        // Until the run has ended well. A panic of the iterator leaves it so.
        self.is_loaded = false;
        let mut begin = self.index.state.clone();
        begin.open.push(begin.next_run);
        begin.next_run += 1;
        let journal = Journal::new(&mut *self.store, begin);
        let mut run = Run::new::<T>(&mut self.index, &journal, &self.name, via.is_disabled());
        let mut groups = groups.into_iter().fuse();
        let mut failed = None;
        let mut gone = None;
        let is_stopped = AtomicBool::new(false);
        let mut is_cut_short = false;
        // Where nothing is to be sent, the delivery does not see that it is cancelled.
        let flags = [Some(&is_stopped), via.cancel_flag()];
        let mut may_continue = || {
            let mut flags = flags.iter().flatten();
            is_cut_short = flags.any(|flag| flag.load(Ordering::Relaxed));
            !is_cut_short
        };
        // Each step yields the updates of one group, those that are gone last. When nothing more is sent, the groups that
        // are left stay as they are known.
        let steps = std::iter::from_fn(|| {
            match groups.next() {
                Some(Ok(group)) => {
                    return may_continue().then(|| run.updates(&group).ok()).flatten();
                }
                Some(Err(error)) => {
                    failed = Some(error.into());
                    return None;
                }
                None if !self.delete_gone => return None,
                None => {}
            }
            let gone = gone.get_or_insert_with(|| run.gone().into_iter());
            let slot = gone.next()?;
            may_continue()
                .then(|| run.delete(slot, T::GROUP_KEY).ok())
                .flatten()
        });
        let permit = |_| journal.write();
        let sending = via.permit(&permit).note_stop(&is_stopped);
        let result = sending.send(steps.flatten()).and_then(|report| {
            // All that was read may have been accepted before.
            if is_cut_short {
                let message = "the run was stopped before its end";
                return Err(Error::new(ErrorKind::Cancelled, message).with_report(report));
            }
            Ok(report)
        });
        run.end(&result);
        let failed = failed.map(|error: Box<dyn StdError + Send + Sync>| {
            let message = "the data ended early: what came before the error was sent";
            Error::new(ErrorKind::Source, message).with_source(error)
        });
        let has_written = journal.needs_end();
        let store_failed = journal.into_failed();
        if store_failed.is_none() {
            self.is_loaded = true;
            // Else what is known of the runs before may not be in the file, whose state would be kept.
            if has_written {
                self.tidy();
            }
        }
        match store_failed.or(failed) {
            Some(error) => Err(with_outcome(error, result)),
            None => result,
        }
    }

    /// Sets the project that a run sends to. A project that has accepted nothing, such as one with a wrong token, is forgotten
    /// together with what may have been sent to it: no other project gets the removals of that.
    ///
    /// # Errors
    /// If another project has accepted something.
    fn set_project(&mut self, token: &str) -> Result<(), Error> {
        let project = Project::new(self.index.state.key, token);
        match self.index.state.project {
            Some(known) if known.is(project) => return Ok(()),
            Some(known) if known.has_accepted => {
                return Err(Error::config(format!(
                    "{} was kept with another project's token: use another snapshot for this project, or move it away to send everything again",
                    self.name
                )));
            }
            Some(_) => self.index = Index::new(self.index.rows),
            None => {}
        }
        let project = Project::new(self.index.state.key, token);
        self.index.state.project = Some(project);
        Ok(())
    }

    /// Warns of another struct of a group key that was synced before: each removes the other's properties.
    fn note_struct<T: MixpanelGroup>(&mut self) {
        let before = self.structs.insert(T::GROUP_KEY, T::PROPERTIES);
        if before.is_some_and(|before| before != T::PROPERTIES) {
            log::warn!(
                "{} was synced with another struct of the group key {:?}, whose properties this one removes",
                self.name,
                T::GROUP_KEY,
            );
        }
    }

    /// Removes outdated rows when they are more than half of all.
    fn tidy(&mut self) {
        if is_mostly_outdated(self.index.rows, self.index.len()) {
            self.is_loaded = false;
            if let Err(error) = self.store.retain(&self.index.places()) {
                log::warn!("{} keeps outdated rows: {error:#}", self.name);
            }
        }
    }
}

/// Returns whether more than half of the rows are outdated, and not only a few.
fn is_mostly_outdated(rows: usize, groups: usize) -> bool {
    const FEW: usize = 1_000;
    rows > 2 * groups + FEW
}

/// Adds what a delivery came to.
fn with_outcome(error: Error, result: Result<Report, Error>) -> Error {
    match result {
        Ok(report) => error.with_report(report),
        Err(sending) => {
            if !sending.is_cancelled() {
                log::error!("{sending:#}");
            }
            let report = sending.report().cloned().unwrap_or_default();
            error
                .with_report(report)
                .with_undelivered(sending.into_undelivered())
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("name", &self.name)
            .field("groups", &self.index.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[test]
fn rows_are_outdated_if_more_than_half_are_and_not_only_a_few() {
    for groups in [0, 500, 5_000] {
        assert!(!is_mostly_outdated(2 * groups + 1_000, groups));
        assert!(is_mostly_outdated(2 * groups + 1_001, groups));
    }
}
