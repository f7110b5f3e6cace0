use std::fmt;

use serde_core::{Serialize, Serializer};

/// An operation on a group profile.
///
/// All six are idempotent: sending one twice leaves the profile as sending it once does.
/// ([Groups API](https://developer.mixpanel.com/reference/group-profiles))
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `$set`: creates or overwrites properties; creates the group.
    Set,
    /// `$set_once`: sets only properties that do not exist yet; creates the group.
    SetOnce,
    /// `$union`: adds items to list properties, each kept once; creates the group.
    Union,
    /// `$unset`: removes properties.
    Unset,
    /// `$remove`: removes one item from each named list property.
    Remove,
    /// `$delete`: deletes the whole group profile.
    Delete,
}

impl Operation {
    /// Every operation, in the order of Mixpanel's reference page.
    pub const ALL: &'static [Self] = &[
        Self::Set,
        Self::SetOnce,
        Self::Union,
        Self::Unset,
        Self::Remove,
        Self::Delete,
    ];

    /// Returns the operation's name on the wire: `"$set"`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Set => "$set",
            Self::SetOnce => "$set_once",
            Self::Union => "$union",
            Self::Unset => "$unset",
            Self::Remove => "$remove",
            Self::Delete => "$delete",
        }
    }

    /// Returns the operation as a member of an update's object: `,"$set":`.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Set => r#","$set":"#,
            Self::SetOnce => r#","$set_once":"#,
            Self::Union => r#","$union":"#,
            Self::Unset => r#","$unset":"#,
            Self::Remove => r#","$remove":"#,
            Self::Delete => r#","$delete":"#,
        }
    }

    /// Returns the [key](Self::key) with spaces behind it, and its length: a copy of constant size takes no call of
    /// `memcpy`.
    #[inline]
    pub(crate) fn padded_key(self) -> ([u8; 16], usize) {
        const PADDED: [([u8; 16], usize); Operation::ALL.len()] = {
            let mut padded = [([b' '; 16], 0); Operation::ALL.len()];
            let mut index = 0;
            while index < padded.len() {
                let operation = Operation::ALL[index];
                let key = operation.key().as_bytes();
                let (text, length) = &mut padded[operation as usize];
                *length = key.len();
                text.split_at_mut(key.len()).0.copy_from_slice(key);
                index += 1;
            }
            padded
        };
        PADDED[self as usize]
    }

    /// Returns the operation of that name on the wire, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|o| o.name() == name)
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
