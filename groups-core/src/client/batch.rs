use std::fmt;

use crate::client::coalesce::coalesce;
use crate::client::records::{Limits, Records};
use crate::json::escape::push_str;
use crate::record::{Error, ErrorKind, Undelivered, Update};
use crate::util::Buffer;

/// The body of one request to `/groups`, for programs that send it with an HTTP client of their own.
///
/// [`Client::send`](crate::Client::send) does not need it.
///
/// ```
/// use mixpanel_groups::Group;
/// use mixpanel_groups::client::Batch;
///
/// let mut batch = Batch::new("PROJECT_TOKEN");
/// batch.push(Group::new("company", "old_company").delete())?;
/// assert_eq!(
///     batch.body(),
///     br#"[{"$token":"PROJECT_TOKEN","$group_key":"company","$group_id":"old_company","$delete":""}]"#,
/// );
/// # Ok::<(), mixpanel_groups::Error>(())
/// ```
#[derive(Clone)]
pub struct Batch {
    /// The beginning of each record; a secret.
    opening: Vec<u8>,
    records: Records,
}

/// Returns the beginning of every update: its bracket and the project's token.
pub(crate) fn opening(token: &str) -> Vec<u8> {
    let mut opening = Buffer::default();
    opening.extend_from_slice(b"{\"$token\":");
    push_str(&mut opening, token);
    opening.push(b',');
    opening.into_vec()
}

impl Batch {
    /// Returns an empty batch for the project with this token.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self {
            opening: opening(token),
            records: Records::default(),
        }
    }

    /// Appends an update. A request has at most 2,000 updates and 2,000,000 bytes. An empty update appends nothing.
    /// ([Groups API, limits](https://developer.mixpanel.com/reference/group-profiles))
    ///
    /// # Errors
    /// [`InvalidUpdate`](ErrorKind::InvalidUpdate) if the update cannot be sent, and [`Full`](ErrorKind::Full) if it does not
    /// fit. The latter gives the update [back](Error::undelivered), for the next batch. The batch is unchanged.
    #[inline]
    pub fn push<'u>(&mut self, update: impl Into<Update<'u>>) -> Result<(), Error> {
        self.push_update(&update.into())
    }

    fn push_update(&mut self, update: &Update<'_>) -> Result<(), Error> {
        let (position, opening, limits) = (self.records.len(), &self.opening, Limits::default());
        self.records
            .push_within(position, opening, update, limits, Update::name)
            .map_err(|rejection| Error::invalid(&rejection))?;
        if self.records.fits(limits) {
            return Ok(());
        }
        let (last, opening) = (self.records.len() - 1, self.opening.len());
        let mut undelivered = Undelivered::default();
        let members = &self.records.json(last)[opening..];
        undelivered.push(0, members, self.records.encoded(last));
        self.records.pop();
        Err(Error::new(ErrorKind::Full, "the batch is full").with_undelivered(undelivered))
    }

    /// Returns the number of updates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns whether there are no updates.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the request's body: a JSON array, which contains the token.
    #[must_use]
    pub fn body(&mut self) -> &[u8] {
        match self.records.len() {
            0 => b"[]",
            len => self.records.body(&(0..len)),
        }
    }

    /// Replaces the updates of each group by fewer with the same effect on its profile, if possible, and returns how many
    /// were saved.
    ///
    /// Two `$set` become one, as do two `$union`, and `$delete` replaces everything before it. The order of groups may
    /// change; a group's updates keep their order.
    ///
    /// ```
    /// use mixpanel_groups::Group;
    /// use mixpanel_groups::client::Batch;
    /// use serde_json::json;
    ///
    /// let acme = Group::new("company", "acme");
    /// let mut batch = Batch::new("TOKEN");
    /// batch.push(acme.set(json!({"plan": "free", "seats": 5})))?;
    /// batch.push(acme.set(json!({"plan": "enterprise"})))?;
    /// assert_eq!(batch.coalesce(), 1);
    /// # let body = String::from_utf8_lossy(batch.body()).into_owned();
    /// assert!(body.contains(r#""$set":{"plan":"enterprise","seats":5}"#));
    /// # Ok::<(), mixpanel_groups::Error>(())
    /// ```
    pub fn coalesce(&mut self) -> usize {
        let most = Limits::default().most_bytes_a_record();
        coalesce(&mut self.records, self.opening.len(), most)
    }

    /// Removes all updates and keeps the buffer.
    pub fn clear(&mut self) {
        self.records.clear();
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
