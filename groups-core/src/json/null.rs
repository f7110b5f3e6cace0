//! Finds out whether a value serializes to `null`, without writing it.

use serde_core::Serialize;

use crate::json::sink::{Mismatch, Parts, Scalar, Shape, Sink};

/// Returns whether the value serializes to `null`, so that its property is left out.
pub(crate) fn is_null<T: Serialize + ?Sized>(value: &T) -> bool {
    Probe::Null.write(value).is_ok()
}

/// Returns whether `$union` has nothing to add: the value serializes to `null` or to a list without items.
pub(crate) fn is_empty_list<T: Serialize + ?Sized>(value: &T) -> bool {
    Probe::NullOrList.write(value).is_ok()
}

/// Returns whether the value is JSON text, as serde passes it, that is `null`.
pub(crate) fn is_null_text<T: Serialize + ?Sized>(value: &T) -> bool {
    Probe::RawNull.write(value).is_ok()
}

/// A sink that takes `null`, or also an empty list, and fails at any other value.
///
/// A value whose serialization fails counts as one that is not `null`: the encoder reports the error.
#[derive(Clone, Copy)]
enum Probe {
    Null,
    /// Also a list, if its items are all `null`.
    NullOrList,
    /// JSON text that is `null`.
    RawNull,
}

impl Sink for Probe {
    type Ok = ();
    type Error = Mismatch;
    type Parts = Self;

    fn null(self) -> Result<(), Mismatch> {
        Ok(())
    }

    fn scalar(self, scalar: Scalar) -> Result<(), Mismatch> {
        match scalar {
            Scalar::F32(value) if !value.is_finite() => Ok(()),
            Scalar::F64(value) if !value.is_finite() => Ok(()),
            _ => Err(Mismatch),
        }
    }

    fn text(self, text: &str) -> Result<(), Mismatch> {
        match self {
            Self::RawNull if text.trim_ascii() == "null" => Ok(()),
            _ => Err(Mismatch),
        }
    }

    fn open(self, shape: Shape) -> Result<Self, Mismatch> {
        match (self, shape) {
            (_, Shape::RawJson) => Ok(Self::RawNull),
            (Self::NullOrList, Shape::List) => Ok(Self::Null),
            _ => Err(Mismatch),
        }
    }
}

/// A list all of whose items so far are `null`, or the one field of JSON text.
impl Parts for Probe {
    type Ok = ();
    type Error = Mismatch;

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        self.write(value)
    }

    fn field<T: Serialize + ?Sized>(&mut self, _key: &str, value: &T) -> Result<(), Mismatch> {
        self.write(value)
    }

    fn end(self) -> Result<(), Mismatch> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::json::list::push_list;
    use crate::json::{Written, push_json};
    use crate::util::Buffer;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    /// Checks that a value is found to be `null`, alone and as the items of a list, if it is written as that.
    #[track_caller]
    fn check<T: Serialize>(value: &T, expected: bool) {
        let written = push_json(&mut Buffer::default(), value).unwrap();
        assert_eq!(
            (is_null(value), written == Written::Null),
            (expected, expected)
        );
        let is_empty = push_list(&mut Buffer::default(), &[value, value])
            .is_ok_and(|written| written == Written::Null);
        assert_eq!(
            (is_empty_list(&[value, value]), is_empty),
            (expected, expected)
        );
    }

    #[test]
    fn what_is_written_as_null_is_null() {
        check(&(), true);
        check(&Some(None::<u8>), true);
        check(&f64::NAN, true);
        check(&raw("null"), true);
        check(&Some(raw(" null\n")), true);
        check(&RawValue::from_string("null ".to_owned()).unwrap(), true);
        check(&raw("\"null\""), false);
        check(&raw("0"), false);
        check(&raw("[null]"), false);
        check(&"null", false);
        check(&1, false);
        check(&serde_json::json!({"a": null}), false);
    }

    #[test]
    fn a_list_that_is_null_is_empty() {
        for json in ["null", "[1]", "[]"] {
            let written = push_list(&mut Buffer::default(), raw(json));
            let is_empty = written.is_ok_and(|written| written == Written::Null);
            let expected = json == "null";
            assert_eq!((is_empty_list(raw(json)), is_empty), (expected, expected));
        }
        assert!(is_empty_list(&None::<Vec<u8>>) && is_empty_list::<[u8]>(&[]));
        assert!(!is_empty_list(&[1]) && !is_empty_list(&1));
    }
}
