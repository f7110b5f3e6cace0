//! Compares the items of JSON lists by value.

use serde_json::value::RawValue;

/// An item of a list, compared by value: `$union` adds no item twice, and `$remove` removes equal items.
///
/// Integers of any size are equal if their digits are, floats if they are the same number, and texts if their
/// characters are, whatever escapes they were written with. `1`, `1.0` and `"1"` differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    Integer(String),
    /// The bits of a float. Negative zero has those of positive zero.
    Float(u64),
    Text(String),
    /// The JSON of `true`, `false`, `null`, a list or an object.
    Other(String),
}

impl Item {
    /// Parses one JSON value.
    pub(crate) fn parse(json: &str) -> Self {
        let other = || Self::Other(json.to_owned());
        match json.as_bytes() {
            // Text that is not Unicode, such as half of a surrogate pair, is equal only if written alike.
            [b'"', ..] => serde_json::from_str(json).map_or_else(|_| other(), Self::Text),
            [b'-' | b'0'..=b'9', ..] if json.contains(['.', 'e', 'E']) => {
                let float: f64 = json.parse().expect("std parses any JSON number");
                Self::Float((float + 0.0).to_bits())
            }
            b"-0" => Self::Integer("0".to_owned()),
            [b'-' | b'0'..=b'9', ..] => Self::Integer(json.to_owned()),
            _ => other(),
        }
    }
}

/// Returns the items of a JSON list, each with its JSON. A value that is not a list has no items.
pub(crate) fn parse_items(json: &str) -> impl Iterator<Item = (&str, Item)> {
    let items: Vec<&RawValue> = if json.starts_with('[') {
        serde_json::from_str(json).expect("the list is valid JSON")
    } else {
        Vec::new()
    };
    items
        .into_iter()
        .map(|item| (item.get(), Item::parse(item.get())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_items() {
        let rows = [
            ("1", "1", true),
            ("0", "-0", true),
            ("1", "1.0", false),
            ("1", "\"1\"", false),
            ("1.0", "1e0", true),
            ("0.0", "-0.0", true),
            ("0.1", "0.09999999999999999", false),
            ("0.1", "0.10000000000000000001", true),
            (
                "340282366920938463463374607431768211455",
                "340282366920938463463374607431768211454",
                false,
            ),
            ("\"é\"", "\"\\u00e9\"", true),
            ("\"a\"", "\"b\"", false),
            ("true", "true", true),
            ("null", "false", false),
        ];
        for (one, two, are_equal) in rows {
            assert_eq!(
                Item::parse(one) == Item::parse(two),
                are_equal,
                "{one} {two}"
            );
        }
    }
}
