use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file;
use super::known::{GroupName, Known};
use super::run::Run;
use crate::client::SendOptions;
use crate::record::{Error, MixpanelGroup, Report};

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
/// everything again.
pub struct Snapshot {
    path: PathBuf,
    groups: HashMap<GroupName, Known>,
    delete_gone: bool,
}

impl Snapshot {
    /// Reads the file, or begins anew if there is none.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or was written by a newer version of this library.
    /// It is left as it is then: to begin anew, move it away.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
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
    /// `via` is a client, or `client.with_options()` with options.
    ///
    /// # Errors
    /// As [`Client::send`](crate::Client::send), after what was accepted has been saved; and if the
    /// file cannot be written, with the report.
    pub fn sync<'a, 'c, T: MixpanelGroup + 'a>(
        &mut self,
        via: impl Into<SendOptions<'c>>,
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

impl AsRef<Path> for Snapshot {
    /// Where the file is.
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
