//! Reads JSON from elsewhere: splits objects into their members, and checks that Mixpanel can read a value.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::EncodeError;

/// The members of an object in their order, each value with its bytes unchanged.
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Parses a JSON object. The error does not quote a text in the place of the object, which may hold a token.
    pub(crate) fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json).map_err(|error| {
            if error.is_data() && json.trim_start().starts_with('"') {
                return de::Error::custom("invalid type: string, expected an object");
            }
            error
        })
    }

    /// Returns a name that more than one member has.
    pub(crate) fn repeated(&self) -> Option<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        let repeated = names.windows(2).find(|pair| pair[0] == pair[1]);
        repeated.map(|pair| pair[0])
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members<'de>, M::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Text, borrowed if it has no escapes.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// The maximum depth of nested values. `serde_json`, among others, reads hardly more.
const MAX_DEPTH: usize = 120;

/// Checks that any JSON parser can read a value: its texts are Unicode (without halves of surrogate pairs), its
/// numbers are in the range of a float, and it is not nested too deep.
pub(crate) fn check_readable(json: &str) -> Result<(), String> {
    if depth(json.as_bytes()) > MAX_DEPTH {
        return Err(too_deep());
    }
    match serde_json::from_str(json) {
        Ok(Readable) => Ok(()),
        Err(error) => Err(format!("not readable JSON: {error}")),
    }
}

/// Returns whether a value of that many bytes can be nested too deep. Each level takes two bytes.
#[inline]
pub(crate) fn may_be_deep(bytes: usize) -> bool {
    bytes > 2 * MAX_DEPTH
}

/// Checks that a list or object is not nested too deep, by its items and closing bracket.
#[cold]
#[inline(never)]
pub(crate) fn check_depth(items: &[u8]) -> Result<(), EncodeError> {
    if depth(items) >= MAX_DEPTH {
        return Err(EncodeError::new(too_deep()));
    }
    Ok(())
}

fn too_deep() -> String {
    format!("nested in more than {MAX_DEPTH} levels")
}

/// Returns the depth of the lists and objects in a value.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

/// The name of the only member of a map that is a number.
pub(crate) const NUMBER: &str = "$serde_json::private::Number";

/// A value that is read completely and dropped. `IgnoredAny` is not enough: `serde_json` skips texts and numbers
/// with it, without checking them.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while let Some(Self) = items.next_element()? {}
        Ok(self)
    }

    /// Reads an object, or a number if another crate enables `arbitrary_precision` of `serde_json`, which presents
    /// numbers as maps, whatever their range.
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while let Some(Text(name)) = members.next_key()? {
            if name != NUMBER {
                let Self = members.next_value()?;
                continue;
            }
            let Text(number) = members.next_value()?;
            if !number.parse().is_ok_and(f64::is_finite) {
                return Err(de::Error::custom("number out of range"));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_serde_json_presents_as_a_map_is_in_range() {
        for (number, is_readable) in [
            ("1e300", true),
            ("-1.5", true),
            ("340282366920938463463374607431768211455", true),
            ("1e400", false),
            ("-1e400", false),
            ("x", false),
        ] {
            let number = format!(r#"{{"$serde_json::private::Number":"{number}"}}"#);
            for json in [format!("[{number}]"), format!(r#"{{"a":{number}}}"#)] {
                assert_eq!(check_readable(&json).is_ok(), is_readable, "{json}");
            }
        }
        let error = check_readable("[1e400]").unwrap_err();
        assert!(error.contains("number out of range"), "{error}");
    }
}
