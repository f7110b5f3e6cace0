//! What generated code calls: the one walk over a struct's fields, and the small pieces it needs.

use serde::{Serialize, Serializer};

use crate::json::EncodeError;
use crate::{Id, List, Property};

/// Sees the properties of a struct one by one, beside those of an older version of the same.
///
/// Encoding, comparing and asking what is absent are each a visitor, so the derive writes one walk
/// for all of them. Where there is no older version, the struct stands in for itself.
pub trait Visitor {
    /// A property of `$set` or `$set_once`.
    ///
    /// # Errors
    /// Whatever is wrong with the value.
    fn property<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError>;

    /// A property of `$union`.
    ///
    /// # Errors
    /// Whatever is wrong with the value, which may not be a list.
    fn list<T: List + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError>;

    /// A field whose own fields are properties; `all` are those that may not come up again.
    ///
    /// # Errors
    /// Whatever is wrong with the value, which may have no fields, or one of a name in use.
    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        all: &'static [Property],
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError>;
}

/// `#[mixpanel(group_id(with = "path"))]`: what the function returns, as an id.
pub fn id<'a>(id: impl Into<Id<'a>>) -> Id<'a> {
    id.into()
}

/// `#[mixpanel(skip_if = "path")]`: a skipped value is absent, as `None` is.
#[inline]
pub fn unless<T: ?Sized>(skip: bool, value: &T) -> Option<&T> {
    (!skip).then_some(value)
}

/// `#[mixpanel(with = "path")]`: how a struct serialises the field of that index.
pub trait SerializeField<const FIELD: usize> {
    /// Calls the function that the attribute names.
    ///
    /// # Errors
    /// Those of the function.
    fn serialize_field<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

/// A field of `T` that serialises through [`SerializeField`].
pub struct Field<'a, T: ?Sized, const FIELD: usize>(pub &'a T);

impl<T: SerializeField<FIELD> + ?Sized, const FIELD: usize> Serialize for Field<'_, T, FIELD> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_field(serializer)
    }
}

/// What the function makes of a field is found at run time.
impl<T: SerializeField<FIELD> + ?Sized, const FIELD: usize> List for Field<'_, T, FIELD> {}
