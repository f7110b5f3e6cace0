//! What generated code calls: the walk over a struct's properties, and small pieces that it needs.

use std::ops::Deref;

use serde_core::{Serialize, Serializer};

use crate::group::property::operations_of;
use crate::group::{Id, Operation, Property};
use crate::json::EncodeError;
use crate::json::List;
use crate::record::MixpanelGroup;
use crate::record::same::Same;

/// Visits the properties of a struct one by one, each with the property of an older version.
///
/// Encoding, comparing and finding what is `null` are visitors, so the derive generates one walk for all of them.
/// If there is no older version, the struct itself is passed.
pub trait Visitor {
    /// Whether the visitor passes over values that certainly are the same.
    const PASSES_OVER_SAME: bool = false;

    /// Visits a property of `$set` or `$set_once`.
    ///
    /// # Errors
    /// If the value cannot be serialized.
    fn property<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError>;

    /// Visits a property of `$union`. The default treats it as any other.
    ///
    /// # Errors
    /// If the value cannot be serialized or is not a list.
    fn list<T: List + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        self.property(property, new, old)
    }

    /// Visits a field whose own fields are properties. None of them may have a name in `all`. The default treats the
    /// field as one property.
    ///
    /// # Errors
    /// If the value cannot be serialized, is not a map or struct, or repeats a name.
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

/// Returns the operations that the struct's fields have. They are known when the program is compiled: one that no field has
/// takes no time.
#[inline]
pub(crate) fn field_operations<T: MixpanelGroup>() -> impl Iterator<Item = Operation> {
    let (operations, len) = const { operations_of(T::PROPERTIES) };
    operations.into_iter().take(len)
}

/// The walk of a visitor over a struct's properties, which are given by their index.
///
/// Each step returns whether to continue. Generated code compiles much faster with that than with a `Result` for
/// each step.
pub struct Walk<'a, V> {
    visitor: &'a mut V,
    properties: &'static [Property],
    error: Option<EncodeError>,
}

impl<'a, V: Visitor> Walk<'a, V> {
    /// Starts a walk.
    #[inline]
    pub fn new(visitor: &'a mut V, properties: &'static [Property]) -> Self {
        Self {
            visitor,
            properties,
            error: None,
        }
    }

    /// Calls [`Visitor::property`], and returns whether to continue.
    #[inline]
    pub fn property<T: Serialize + ?Sized>(&mut self, index: usize, new: &T, old: &T) -> bool {
        let visited = self.visitor.property(&self.properties[index], new, old);
        self.keep_error(visited)
    }

    /// Calls [`Visitor::list`], and returns whether to continue.
    #[inline]
    pub fn list<T: List + ?Sized>(&mut self, index: usize, new: &T, old: &T) -> bool {
        let visited = self.visitor.list(&self.properties[index], new, old);
        self.keep_error(visited)
    }

    /// Calls [`Visitor::flatten`], and returns whether to continue.
    #[inline]
    pub fn flatten<T: Serialize + ?Sized>(&mut self, index: usize, new: &T, old: &T) -> bool {
        let all = self.properties;
        let visited = self.visitor.flatten(&all[index], all, new, old);
        self.keep_error(visited)
    }

    /// Keeps the error of a step, and returns whether there was none.
    #[inline]
    fn keep_error(&mut self, visited: Result<(), EncodeError>) -> bool {
        visited.map_err(|error| self.error = Some(error)).is_ok()
    }

    /// Ends the walk. `is_complete` is whether every step succeeded.
    ///
    /// # Errors
    /// The error of the last step.
    #[inline]
    pub fn end(&mut self, is_complete: bool) -> Result<(), EncodeError> {
        match self.error.take() {
            Some(error) if !is_complete => Err(error),
            _ => Ok(()),
        }
    }
}

/// A property's values in two versions of a struct.
///
/// Generated code calls the methods by their names alone, and knows the type: if it is one that is compared as it is
/// (`Same`), they are its own, and otherwise those of `Unknown`.
pub struct Values<'a, T: ?Sized>(Unknown<'a, T>);

/// Values of a type about which nothing is known.
pub struct Unknown<'a, T: ?Sized> {
    new: &'a T,
    old: &'a T,
}

impl<'a, T: ?Sized> Values<'a, T> {
    /// Takes the property of the struct that is visited, and that of the older version.
    #[inline]
    pub fn new(new: &'a T, old: &'a T) -> Self {
        Self(Unknown { new, old })
    }
}

impl<'a, T: ?Sized> Deref for Values<'a, T> {
    type Target = Unknown<'a, T>;

    #[inline]
    fn deref(&self) -> &Unknown<'a, T> {
        &self.0
    }
}

// No trait of a user's has methods of such names.
impl<T: Same + ?Sized> Values<'_, T> {
    #[inline]
    fn is_passed_over<V: Visitor>(&self) -> bool {
        V::PASSES_OVER_SAME && self.new.is_same(self.old)
    }

    /// Calls [`Walk::property`], unless the visitor passes over the values.
    #[inline]
    pub fn __property<V: Visitor>(&self, walk: &mut Walk<'_, V>, index: usize) -> bool
    where
        T: Serialize,
    {
        self.is_passed_over::<V>() || self.0.__property(walk, index)
    }

    /// Calls [`Walk::list`], unless the visitor passes over the values.
    #[inline]
    pub fn __list<V: Visitor>(&self, walk: &mut Walk<'_, V>, index: usize) -> bool
    where
        T: List,
    {
        self.is_passed_over::<V>() || self.0.__list(walk, index)
    }

    /// Calls [`Walk::flatten`], unless the visitor passes over the values.
    #[inline]
    pub fn __flatten<V: Visitor>(&self, walk: &mut Walk<'_, V>, index: usize) -> bool
    where
        T: Serialize,
    {
        self.is_passed_over::<V>() || self.0.__flatten(walk, index)
    }
}

impl<T: ?Sized> Unknown<'_, T> {
    /// Calls [`Walk::property`].
    #[inline]
    pub fn __property<V: Visitor>(&self, walk: &mut Walk<'_, V>, index: usize) -> bool
    where
        T: Serialize,
    {
        walk.property(index, self.new, self.old)
    }

    /// Calls [`Walk::list`].
    #[inline]
    pub fn __list<V: Visitor>(&self, walk: &mut Walk<'_, V>, index: usize) -> bool
    where
        T: List,
    {
        walk.list(index, self.new, self.old)
    }

    /// Calls [`Walk::flatten`].
    #[inline]
    pub fn __flatten<V: Visitor>(&self, walk: &mut Walk<'_, V>, index: usize) -> bool
    where
        T: Serialize,
    {
        walk.flatten(index, self.new, self.old)
    }
}

/// Converts what the function of `#[mixpanel(group_id(with = "path"))]` returns to an id.
pub fn id<'a>(id: impl Into<Id<'a>>) -> Id<'a> {
    id.into()
}

/// Returns `None`, which serializes to `null`, for a value that `#[mixpanel(skip_if = "path")]` skips.
#[inline]
pub fn unless<T: ?Sized>(skip: bool, value: &T) -> Option<&T> {
    (!skip).then_some(value)
}

/// Serializes the field with that index by the function of `#[mixpanel(with = "path")]`.
pub trait SerializeField<const FIELD: usize> {
    /// Calls the function that the attribute names.
    ///
    /// # Errors
    /// If the function returns an error.
    fn serialize_field<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

/// A field of `T` that serializes by [`SerializeField`].
pub struct Field<'a, T: ?Sized, const FIELD: usize>(pub &'a T);

impl<T: SerializeField<FIELD> + ?Sized, const FIELD: usize> Serialize for Field<'_, T, FIELD> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_field(serializer)
    }
}

/// Passes for a list: whether the function serializes one is known at run time only.
impl<T: SerializeField<FIELD> + ?Sized, const FIELD: usize> List for Field<'_, T, FIELD> {}
