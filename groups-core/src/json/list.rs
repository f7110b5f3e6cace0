use std::collections::{BTreeSet, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use serde::ser::{Impossible, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json::kinds::{items, refuse, same_nothing, see_through};
use crate::json::{EncodeError, Json, Written, close};

/// A list or set: the type of a field with `#[mixpanel(union)]`.
///
/// Implemented for `Vec`, `VecDeque`, slices, arrays (of at most 32 items, as serde has it),
/// `HashSet`, `BTreeSet`, and for `Option`s, references, boxes and shared pointers of these. Its
/// items are text or numbers
/// ([Groups API](https://developer.mixpanel.com/reference/group-profiles)); an item that serialises
/// to `null` is left out.
///
/// A newtype that serialises as a list says so:
///
/// ```
/// # use serde::Serialize;
/// #[derive(Serialize)]
/// struct Tags(Vec<String>);
///
/// impl mixpanel_groups::List for Tags {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`$union` takes a list or a set, which `{Self}` is not",
    label = "not a list or a set",
    note = "use `Vec`, `VecDeque`, a slice, an array of at most 32 items, `HashSet`, `BTreeSet` or \
            an `Option` of one; without `union` the property is sent with `$set`",
    note = "for your own type that serialises as a list, write \
            `impl mixpanel_groups::List for {Self} {{}}`"
)]
pub trait List: Serialize {}

impl<T: Serialize> List for Vec<T> {}
impl<T: Serialize> List for VecDeque<T> {}
impl<T: Serialize> List for [T] {}
impl<T, const N: usize> List for [T; N] where [T; N]: Serialize {}
impl<T: Serialize, S> List for HashSet<T, S> {}
impl<T: Serialize> List for BTreeSet<T> {}
impl<T: List> List for Option<T> {}
impl<T: List + ?Sized> List for &T {}
impl<T: List + ?Sized> List for Box<T> {}
impl<T: List + ToOwned + ?Sized> List for std::borrow::Cow<'_, T> {}
impl<T: ?Sized> List for Rc<T>
where
    Rc<T>: Serialize,
    T: List,
{
}
impl<T: ?Sized> List for Arc<T>
where
    Arc<T>: Serialize,
    T: List,
{
}

/// Writes the value of a `$union` property: a list with at least one item, or nothing.
pub(crate) struct ListJson<'a> {
    pub(crate) out: &'a mut Vec<u8>,
}

/// The items that are being written.
pub(crate) struct Items<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let mark = self.out.len();
        self.out.push(b',');
        match value.serialize(Json { out: self.out })? {
            Written::Null => self.out.truncate(mark),
            Written::Value => {
                if !matches!(self.out.get(mark + 1), Some(b'"' | b'-' | b'0'..=b'9')) {
                    return Err(EncodeError::new("`$union` adds text or numbers only"));
                }
            }
        }
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps)] // As `end` wants it.
    fn close(self) -> Result<Written, EncodeError> {
        let is_empty = self.out.len() == self.start;
        close(self.out, self.start, *b"[]");
        Ok(if is_empty {
            Written::Null
        } else {
            Written::Value
        })
    }
}

items!(
    Items<'_> => Written, EncodeError:
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field
);

impl<'a> Serializer for ListJson<'a> {
    type Ok = Written;
    type Error = EncodeError;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Impossible<Written, EncodeError>;
    type SerializeMap = Impossible<Written, EncodeError>;
    type SerializeStruct = Impossible<Written, EncodeError>;
    type SerializeStructVariant = Impossible<Written, EncodeError>;

    see_through!(Written);
    same_nothing!(Written);

    fn serialize_unit(self) -> Result<Written, EncodeError> {
        Ok(Written::Null)
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Items<'a>, EncodeError> {
        Ok(Items {
            start: self.out.len(),
            out: self.out,
        })
    }

    fn serialize_tuple(self, len: usize) -> Result<Items<'a>, EncodeError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        len: usize,
    ) -> Result<Items<'a>, EncodeError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Written, EncodeError> {
        self.collect_seq(value)
    }

    refuse!(EncodeError::new("`$union` takes a list") => Written: scalars, floats, objects, variants);
}

/// Returns whether JSON is what `$union` takes: a list of at least one text or number.
pub(crate) fn is_list_of_items(json: &str) -> bool {
    let is_item = |item: &&RawValue| {
        let first = item.get().as_bytes().first();
        first.is_some_and(|first| matches!(first, b'"' | b'-' | b'0'..=b'9'))
    };
    let items: Result<Vec<&RawValue>, _> = serde_json::from_str(json);
    items.is_ok_and(|items| !items.is_empty() && items.iter().all(is_item))
}
