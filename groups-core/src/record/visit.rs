//! What generated code calls: the one walk over a struct's fields, and the small pieces it needs.

use serde::{Serialize, Serializer};

use crate::group::{Id, Property};
use crate::json::EncodeError;
use crate::json::List;

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

    /// A property of `$union`; by default as any other.
    ///
    /// # Errors
    /// Whatever is wrong with the value, which may not be a list.
    fn list<T: List + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        self.property(property, new, old)
    }

    /// A field whose own fields are properties; `all` are those that may not come up again. By
    /// default as if it were one property.
    ///
    /// # Errors
    /// Whatever is wrong with the value, which may have no fields, or one of a name in use.
    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        all: &'static [Property],
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        let _ = all;
        self.property(property, new, old)
    }
}

/// The walk of a visitor over a struct's properties, each named by its index.
///
/// A step says whether to take the next one, which costs the compiler of generated code much less
/// than a `Result` at each step.
pub struct Walk<'a, V> {
    visitor: &'a mut V,
    properties: &'static [Property],
    error: Option<EncodeError>,
}

impl<'a, V: Visitor> Walk<'a, V> {
    /// At the first property.
    #[inline]
    pub fn new(visitor: &'a mut V, properties: &'static [Property]) -> Self {
        Self {
            visitor,
            properties,
            error: None,
        }
    }

    /// [`Visitor::property`]
    #[inline]
    pub fn property<T: Serialize + ?Sized>(&mut self, index: usize, new: &T, old: &T) -> bool {
        let visited = self.visitor.property(&self.properties[index], new, old);
        self.goes_on(visited)
    }

    /// [`Visitor::list`]
    #[inline]
    pub fn list<T: List + ?Sized>(&mut self, index: usize, new: &T, old: &T) -> bool {
        let visited = self.visitor.list(&self.properties[index], new, old);
        self.goes_on(visited)
    }

    /// [`Visitor::flatten`]
    #[inline]
    pub fn flatten<T: Serialize + ?Sized>(&mut self, index: usize, new: &T, old: &T) -> bool {
        let all = self.properties;
        let visited = self.visitor.flatten(&all[index], all, new, old);
        self.goes_on(visited)
    }

    #[inline]
    fn goes_on(&mut self, visited: Result<(), EncodeError>) -> bool {
        visited.map_err(|error| self.error = Some(error)).is_ok()
    }

    /// What became of it; `is_complete` if every step was taken.
    ///
    /// # Errors
    /// That of the step that was the last.
    #[inline]
    pub fn end(&mut self, is_complete: bool) -> Result<(), EncodeError> {
        match self.error.take() {
            Some(error) if !is_complete => Err(error),
            _ => Ok(()),
        }
    }
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
