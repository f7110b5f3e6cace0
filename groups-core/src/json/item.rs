//! The items of a JSON list, compared as what they are.

use serde_json::value::RawValue;

/// An item of a list: `$union` keeps each once, and `$remove` takes out its equals.
///
/// Integers of any size are equal if all digits are, floats if they are the same number, and texts if
/// they are the same characters, whatever escapes they were written with. `1`, `1.0` and `"1"` differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    Integer(String),
    /// The bits of the float; zero is positive.
    Float(u64),
    Text(String),
    /// `true`, `false`, `null`, or a list or object, by its text.
    Other(String),
}

impl Item {
    pub(crate) fn parse(json: &str) -> Self {
        let other = || Self::Other(json.to_owned());
        match json.as_bytes() {
            [b'"', ..] => serde_json::from_str(json).map_or_else(|_| other(), Self::Text),
            [b'-' | b'0'..=b'9', ..] if json.contains(['.', 'e', 'E']) => {
                // std reads the nearest float, as the standard wants it.
                let float = json.parse().map(|float: f64| (float + 0.0).to_bits());
                float.map_or_else(|_| other(), Self::Float)
            }
            b"-0" => Self::Integer("0".to_owned()),
            [b'-' | b'0'..=b'9', ..] => Self::Integer(json.to_owned()),
            _ => other(),
        }
    }
}

/// Returns the items of a JSON list, each as it is written and as what it is. There are none if it is not
/// a list.
pub(crate) fn parse_items(json: &str) -> impl Iterator<Item = (&str, Item)> {
    let items: Vec<&RawValue> = if json.starts_with('[') {
        serde_json::from_str(json).expect("a list that was written or read as JSON")
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
