use std::collections::{BTreeSet, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use serde_core::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json::null::is_null_text;
use crate::json::serializer::{write_end, wrote_null};
use crate::json::sink::{Parts, Shape, Sink};
use crate::json::{EncodeError, Json, Written};
use crate::util::Buffer;

/// A list or set, which a field with `#[mixpanel(union)]` must be.
///
/// Implemented for `Vec`, `VecDeque`, slices, arrays of at most 32 items (a limit of serde), `HashSet`, `BTreeSet`,
/// and for `Option`s, references, boxes and shared pointers of these. The items are text or numbers
/// ([Groups API](https://developer.mixpanel.com/reference/group-profiles)): an update with others, such as structs, is
/// rejected. Items that serialize to `null` are left out.
///
/// Implement it for a newtype that serializes as a list:
///
/// ```
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Tags(Vec<String>);
///
/// impl mixpanel_groups::List for Tags {}
/// ```
///
/// For a type of another crate that serializes as a list, such as `SmallVec` or `IndexSet`, name the function that
/// serializes it: `#[mixpanel(union, with = "serde::Serialize::serialize")]`. Whether it is a list is checked when it is
/// encoded then.
#[diagnostic::on_unimplemented(
    message = "`$union` takes a list or a set, which `{Self}` is not",
    label = "not a list or a set",
    note = "use `Vec`, `VecDeque`, a slice, an array of at most 32 items, `HashSet`, `BTreeSet` or \
            an `Option` of one; without `union` the property is sent with `$set`",
    note = "for a type of your own that serializes as a list, implement `mixpanel_groups::List`; for one of another \
            crate, such as `SmallVec` or `IndexSet`, write \
            `#[mixpanel(union, with = \"serde::Serialize::serialize\")]`"
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

/// Serializes a set whose order is random, such as a `HashSet`, as a sorted list: for `#[mixpanel(with = "…")]` and
/// serde's `serialize_with`.
///
/// A list's order counts when two versions are compared, so an equal `HashSet` under `$set` may differ each time.
/// `BTreeSet`, or `#[mixpanel(union)]`, needs no such help. Use `BTreeSet` where this function does not fit: for an
/// `Option` of a set, and for sets in a map or in another struct.
///
/// ```
/// use std::collections::HashSet;
///
/// use mixpanel_groups::MixpanelGroup;
///
/// #[derive(MixpanelGroup)]
/// #[mixpanel(group_key = "company")]
/// struct Company {
///     #[mixpanel(group_id)]
///     id: u64,
///     #[mixpanel(with = "mixpanel_groups::sorted")]
///     regions: HashSet<String>,
/// }
/// ```
///
/// # Errors
/// If an item cannot be serialized.
pub fn sorted<'a, C: ?Sized, T, S>(items: &'a C, serializer: S) -> Result<S::Ok, S::Error>
where
    &'a C: IntoIterator<Item = &'a T>,
    T: Ord + Serialize + 'a,
    S: Serializer,
{
    let mut items: Vec<&T> = items.into_iter().collect();
    items.sort();
    serializer.collect_seq(items)
}

/// A sink that writes the value of a `$union` property there: a list with at least one item, or nothing. Returns where it
/// ends.
pub(crate) struct ListJson<'a> {
    pub(crate) out: &'a mut Buffer,
    pub(crate) at: usize,
}

/// Appends the value of a `$union` property. What adds nothing is not written, as `null`.
pub(crate) fn push_list<T: Serialize + ?Sized>(
    out: &mut Buffer,
    value: &T,
) -> Result<Written, EncodeError> {
    let start = out.append(|out, at| ListJson { out, at }.write(value))?;
    Ok(if out.len() == start {
        Written::Null
    } else {
        Written::Value
    })
}

/// The items of a list that is being written.
pub(crate) struct Items<'a> {
    out: &'a mut Buffer,
    at: usize,
    start: usize,
}

impl<'a> Sink for ListJson<'a> {
    type Ok = usize;
    type Error = EncodeError;
    type Parts = Items<'a>;

    const REFUSAL: &'static str = "`$union` takes a list";

    fn null(self) -> Result<usize, EncodeError> {
        Ok(self.at)
    }

    fn open(self, shape: Shape) -> Result<Items<'a>, EncodeError> {
        match shape {
            Shape::List | Shape::RawJson => Ok(Items {
                out: self.out,
                at: self.at,
                start: self.at,
            }),
            _ => Err(EncodeError::new(Self::REFUSAL)),
        }
    }
}

impl Parts for Items<'_> {
    type Ok = usize;
    type Error = EncodeError;

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let out = &mut *self.out;
        let at = out.put(self.at, *b",");
        let end = Json { out, at }.write(value)?;
        if wrote_null(self.out, at..end) {
            return Ok(());
        }
        if !matches!(
            self.out.written(at..end).first(),
            Some(b'"' | b'-' | b'0'..=b'9')
        ) {
            return Err(EncodeError::new("`$union` adds text or numbers only"));
        }
        self.at = end;
        Ok(())
    }

    /// Takes JSON text that is `null`, and no other.
    fn field<T: Serialize + ?Sized>(&mut self, _key: &str, value: &T) -> Result<(), EncodeError> {
        if is_null_text(value) {
            return Ok(());
        }
        Err(EncodeError::new(ListJson::REFUSAL))
    }

    fn end(self) -> Result<usize, EncodeError> {
        Ok(write_end(self.out, self.start, self.at, *b"[]"))
    }
}

/// Returns whether a JSON value is what `$union` takes: a list of at least one text or number.
pub(crate) fn is_list_of_items(json: &str) -> bool {
    let is_item = |item: &&RawValue| {
        let first = item.get().as_bytes().first();
        first.is_some_and(|first| matches!(first, b'"' | b'-' | b'0'..=b'9'))
    };
    let items: Result<Vec<&RawValue>, _> = serde_json::from_str(json);
    items.is_ok_and(|items| !items.is_empty() && items.iter().all(is_item))
}
