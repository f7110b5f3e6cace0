use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file;
use super::known::{GroupName, Known};
use super::run::Run;
use crate::client::SendOptions;
use crate::record::{Error, MixpanelGroup, Report};
use crate::util::siphash::HashKey;

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
/// let mut snapshot = Snapshot::open("companies.snapshot")?;
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
/// everything again. A run notes what it is about to send in a file `….unfinished` beside it, so that the next one
/// knows of groups and items that only the killed run had.
///
/// A symbolic link is followed, the file keeps its mode, and where it cannot be replaced, as a file that is mounted
/// into a container, it is written in place. Use one file for each project.
pub struct Snapshot {
    path: PathBuf,
    key: HashKey,
    groups: HashMap<GroupName, Known>,
    delete_gone: bool,
    /// Locked.
    _lock: file::Lock,
}

impl Snapshot {
    /// Reads the file, or begins anew if there is none.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or was written by a newer version of this library.
    /// It is left as it is then: to begin anew, move it away. If another snapshot of the same file is open, in this
    /// process or in another one on this machine: wait for its end. The file `….lock` beside it is for that, and
    /// stays.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = file::resolve(path.into());
        let lock = file::lock(&path)?;
        let (key, groups) = file::load(&path)?;
        Ok(Self {
            path,
            key,
            groups,
            delete_gone: false,
            _lock: lock,
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
    /// `via` is a client, or `client.with_options()` with options. The structs come from any iterator, owned or
    /// borrowed; they are read one by one and not kept, so they may come from a database's cursor.
    ///
    /// # Errors
    /// As [`Client::send`](crate::Client::send), after what was accepted has been saved; and if a
    /// file cannot be written: before anything is sent, if it can be known by then, else with the report.
    pub fn sync<'c, T: MixpanelGroup>(
        &mut self,
        via: impl Into<SendOptions<'c>>,
        groups: impl IntoIterator<Item = T>,
    ) -> Result<Report, Error> {
        if file::is_unfinished(&self.path)? {
            // What is noted there has to be saved before the note begins anew.
            (self.key, self.groups) = file::load(&self.path)?;
            file::save(&self.path, self.key, &self.groups)?;
        }
        let note = file::begin(&self.path)?;
        let mut run = Run::new(&self.groups, self.key, note);
        let delete = if self.delete_gone { T::GROUP_KEY } else { "" };
        let mut groups = groups.into_iter();
        let mut gone = None;
        // Each step yields the updates of one group, the gone ones last.
        let steps = std::iter::from_fn(|| {
            if run.is_failed() {
                return None;
            }
            if let Some(group) = groups.next() {
                return Some(run.updates(&group));
            }
            let gone = gone.get_or_insert_with(|| run.gone(delete).into_iter());
            gone.next().map(|name| run.delete(name))
        });
        let result = via.into().send(steps.flatten());
        let (changed, failed) = run.changed(&result);
        let saved = self.keep(changed).and_then(|()| failed.map_or(Ok(()), Err));
        match (result, saved) {
            (result, Ok(())) => result,
            (Ok(report), Err(error)) => Err(error.with_report(report)),
            (Err(error), Err(saving)) => {
                log::error!("{saving:#}");
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
            file::save(&self.path, self.key, &self.groups)?;
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

impl AsRef<Path> for Snapshot {
    /// Where the file is.
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
