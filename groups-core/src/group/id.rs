use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZero;
use std::rc::Rc;
use std::sync::Arc;

use serde_core::{Serialize, Serializer};

/// A group's id as text: Mixpanel's `$group_id` is always text.
///
/// Made from text, which it borrows, from integers, and from anything that implements [`GroupId`]. An
/// integer or UUID is not allocated, with or without a prefix.
///
/// ```
/// use mixpanel_groups::Id;
///
/// assert_eq!(Id::from("acme").as_str(), "acme");
/// assert_eq!(Id::from(12345_u64).with_prefix("company_").as_str(), "company_12345");
/// ```
#[derive(Clone)]
pub struct Id<'a>(Repr<'a>);

#[derive(Clone)]
enum Repr<'a> {
    Text(Cow<'a, str>),
    Short(Short),
}

/// The number of bytes of text that an id holds inline: an integer (at most 40) or a UUID (36) with a prefix.
const SHORT: usize = 62;

/// Text that is held inline.
#[derive(Clone, Copy)]
struct Short {
    len: u8,
    bytes: [u8; SHORT],
}

impl Short {
    /// Returns the pieces as one text, if there is room for it.
    fn join(pieces: [&str; 2]) -> Option<Self> {
        let mut short = Self {
            len: 0,
            bytes: [0; SHORT],
        };
        let mut len = 0;
        for piece in pieces {
            let end = len + piece.len();
            short
                .bytes
                .get_mut(len..end)?
                .copy_from_slice(piece.as_bytes());
            len = end;
        }
        short.len = u8::try_from(len).ok()?;
        Some(short)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len.into()]).expect("whole texts were copied")
    }
}

impl<'a> Id<'a> {
    /// Returns the id with `prefix` before it: `company_12345`. An empty id stays empty, so that it is rejected.
    #[must_use]
    pub fn with_prefix(self, prefix: &str) -> Self {
        if self.is_empty() {
            return self;
        }
        Self::joined([prefix, self.as_str()])
    }

    /// Returns the id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Text(text) => text,
            Repr::Short(short) => short.as_str(),
        }
    }

    /// Returns the same id without borrowed data.
    #[must_use]
    pub fn into_owned(self) -> Id<'static> {
        Id(match self.0 {
            Repr::Text(text) => Repr::Text(Cow::Owned(text.into_owned())),
            Repr::Short(short) => Repr::Short(short),
        })
    }

    /// Returns whether the id is the empty text, which cannot be a group's.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }

    fn joined(pieces: [&str; 2]) -> Self {
        Self(match Short::join(pieces) {
            Some(short) => Repr::Short(short),
            None => Repr::Text(Cow::Owned(pieces.concat())),
        })
    }

    fn short(text: &str) -> Self {
        Self::joined([text, ""])
    }

    fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self(Repr::Text(text.into()))
    }
}

impl AsRef<str> for Id<'_> {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Id<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Ids are equal if their texts are, whatever they were made from.
impl PartialEq for Id<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Id<'_> {}

impl PartialOrd for Id<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Id<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Id<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// A type whose values identify a group: the type of a field with `#[mixpanel(group_id)]` or
/// `#[mixpanel(company_id)]`.
///
/// Implemented for text and integers (also `NonZeroU64` and its like), for references, boxes and shared pointers of these, and for
/// `uuid::Uuid` with the feature `uuid`. A newtype forwards to its field:
///
/// ```
/// use mixpanel_groups::{GroupId, Id};
///
/// struct AccountId(u64);
///
/// impl GroupId for AccountId {
///     fn group_id(&self) -> Id<'_> {
///         self.0.group_id()
///     }
/// }
/// ```
///
/// Use one format everywhere: `company_12345` in one place and `12345` in another are two groups.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a group id",
    label = "not a group id: text, an integer or a type that implements `GroupId` is needed",
    note = "for a newtype of your own, implement `mixpanel_groups::GroupId` with \
            `fn group_id(&self) -> mixpanel_groups::Id<'_> {{ self.0.group_id() }}`; \
            for `uuid::Uuid`, turn on the feature `uuid`; for another type of another crate, name a function at the group's id, `#[mixpanel(group_id(with = \"ToString::to_string\"))]`, \
            or wrap it in a newtype",
    note = "an `Option` cannot be one: an update without an id would belong to no group"
)]
pub trait GroupId {
    /// Returns this id as text.
    fn group_id(&self) -> Id<'_>;
}

impl GroupId for str {
    fn group_id(&self) -> Id<'_> {
        Id::text(self)
    }
}

impl GroupId for String {
    fn group_id(&self) -> Id<'_> {
        Id::text(self.as_str())
    }
}

impl GroupId for Id<'_> {
    fn group_id(&self) -> Id<'_> {
        self.clone()
    }
}

macro_rules! through_a_pointer {
    ($($pointer:ty),*) => {$(
        impl<T: GroupId + ?Sized> GroupId for $pointer {
            fn group_id(&self) -> Id<'_> {
                T::group_id(self)
            }
        }
    )*};
}

through_a_pointer!(&T, Box<T>, Rc<T>, Arc<T>);

impl<T: GroupId + ToOwned + ?Sized> GroupId for Cow<'_, T> {
    fn group_id(&self) -> Id<'_> {
        T::group_id(self)
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl GroupId for $type {
            fn group_id(&self) -> Id<'_> {
                Id::from(*self)
            }
        }

        impl From<$type> for Id<'_> {
            fn from(id: $type) -> Self {
                Id::short(itoa::Buffer::new().format(id))
            }
        }
    )*};
}

integers!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize
);

macro_rules! non_zero {
    ($($type:ty),*) => {$(
        impl GroupId for NonZero<$type> {
            fn group_id(&self) -> Id<'_> {
                Id::from(self.get())
            }
        }

        impl From<NonZero<$type>> for Id<'_> {
            fn from(id: NonZero<$type>) -> Self {
                Id::from(id.get())
            }
        }
    )*};
}

non_zero!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize
);

#[cfg(feature = "uuid")]
impl GroupId for uuid::Uuid {
    fn group_id(&self) -> Id<'_> {
        Id::from(*self)
    }
}

/// With hyphens, in lower case.
#[cfg(feature = "uuid")]
impl From<uuid::Uuid> for Id<'_> {
    fn from(id: uuid::Uuid) -> Self {
        Id::short(id.hyphenated().encode_lower(&mut [0; 36]))
    }
}

impl<'a, T: GroupId + ?Sized> From<&'a T> for Id<'a> {
    fn from(id: &'a T) -> Self {
        id.group_id()
    }
}

impl From<String> for Id<'_> {
    fn from(id: String) -> Self {
        Self::text(id)
    }
}

impl<'a> From<Cow<'a, str>> for Id<'a> {
    fn from(id: Cow<'a, str>) -> Self {
        Self::text(id)
    }
}
