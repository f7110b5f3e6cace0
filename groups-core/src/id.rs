use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// A group's id as text, borrowed where it can be: Mixpanel's `$group_id` is always text.
///
/// Made from text, from integers and from anything that implements [`GroupId`]; no integer needs
/// the heap.
///
/// ```
/// use mixpanel_groups::Id;
///
/// assert_eq!(Id::from("acme").to_string(), "acme");
/// assert_eq!(Id::from(12345_u64).to_string(), "12345");
/// ```
#[derive(Clone)]
pub struct Id<'a> {
    prefix: &'static str,
    text: Text<'a>,
}

#[derive(Clone)]
enum Text<'a> {
    Str(Cow<'a, str>),
    Short(Short),
}

/// ASCII text of an integer (at most 40 characters) or a UUID (36).
#[derive(Clone, Copy)]
struct Short {
    len: u8,
    bytes: [u8; 40],
}

impl<'a> Id<'a> {
    /// The id with `prefix` before it: `company_12345`.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &'static str) -> Self {
        if !self.prefix.is_empty() {
            self.text = Text::Str(Cow::Owned(self.to_string()));
        }
        self.prefix = prefix;
        self
    }

    /// The same id, free of what it borrowed.
    #[must_use]
    pub fn into_owned(self) -> Id<'static> {
        let text = match self.text {
            Text::Str(text) => Text::Str(Cow::Owned(text.into_owned())),
            Text::Short(short) => Text::Short(short),
        };
        Id {
            prefix: self.prefix,
            text,
        }
    }

    /// Whether the id is the empty text, which no group can have.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts().iter().all(|part| part.is_empty())
    }

    /// The id's text, in two pieces that need no joining.
    pub(crate) fn parts(&self) -> [&str; 2] {
        let text = match &self.text {
            Text::Str(text) => text,
            // Only ASCII is ever written to it.
            Text::Short(short) => {
                std::str::from_utf8(&short.bytes[..short.len.into()]).unwrap_or("")
            }
        };
        [self.prefix, text]
    }

    fn short(text: &str) -> Id<'static> {
        let mut bytes = [0; 40];
        let text = match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(text.as_bytes());
                Text::Short(Short { len, bytes })
            }
            _ => Text::Str(Cow::Owned(text.to_owned())),
        };
        Id { prefix: "", text }
    }

    fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self {
            prefix: "",
            text: Text::Str(text.into()),
        }
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts()
            .into_iter()
            .try_for_each(|part| f.write_str(part))
    }
}

impl fmt::Debug for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl PartialEq for Id<'_> {
    fn eq(&self, other: &Self) -> bool {
        let [one, other] = [self.parts(), other.parts()];
        // `memcmp` of two empty texts can take longer than of any others.
        let are_equal = |(one, other): (&&str, &&str)| {
            one.len() == other.len() && (one.is_empty() || one == other)
        };
        // The prefix may end at another place.
        one.iter().zip(&other).all(are_equal) || one.concat() == other.concat()
    }
}

impl Eq for Id<'_> {}

/// A type whose values identify a group: the type of a field with `#[mixpanel(group_id)]` or
/// `#[mixpanel(company_id)]`.
///
/// Implemented for text and integers, for references, boxes and shared pointers of these, and for
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
    note = "for a newtype, write `impl mixpanel_groups::GroupId for {Self}` with \
            `fn group_id(&self) -> mixpanel_groups::Id<'_> {{ self.0.group_id() }}`; \
            for any other type, name a function: `#[mixpanel(group_id(with = \"path\"))]`",
    note = "an `Option` cannot be one: an update without an id would belong to no group"
)]
pub trait GroupId {
    /// This id as text.
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
