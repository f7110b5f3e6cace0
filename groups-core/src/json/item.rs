//! Compares JSON by value: the one definition for `changes_since`, snapshots and coalescing.

use serde_json::value::RawValue;

use crate::json::escape::push_str;
use crate::json::members::{check_depth, may_be_deep};
use crate::util::Buffer;

/// A JSON value in a form that is equal for equal values.
///
/// Integers of any size are equal if their digits are, floats if they are the same number, and texts if their
/// characters are, whatever escapes they were written with. `1`, `1.0` and `"1"` differ. Objects are equal whatever
/// the order of their members, at every depth; the order of a list counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Item(String);

impl Item {
    /// Parses one valid JSON value.
    pub(crate) fn parse(json: &str) -> Self {
        // Not written by this crate, whose values are not that deep: equal only if written alike.
        if may_be_deep(json.len()) && check_depth(json.as_bytes()).is_err() {
            return Self(json.to_owned());
        }
        let mut out = Buffer::default();
        Reader { json, at: 0 }.value(&mut out);
        Self(String::from_utf8(out.into_vec()).expect("pieces of text, cut at ASCII"))
    }

    pub(crate) fn into_json(self) -> String {
        self.0
    }

    /// Returns what Mixpanel keeps of it, if it is a text of more bytes than that.
    pub(crate) fn cut(&self) -> Option<Self> {
        if !self.0.starts_with('"') || self.0.len() <= MAX_TEXT + 2 {
            return None;
        }
        let mut text: String = serde_json::from_str(&self.0).ok()?;
        let end = (0..=MAX_TEXT)
            .rev()
            .find(|end| text.is_char_boundary(*end))?;
        if end == text.len() {
            return None;
        }
        text.truncate(end);
        let mut json = Buffer::default();
        push_str(&mut json, &text);
        String::from_utf8(json.into_vec()).ok().map(Self)
    }
}

/// The number of bytes that Mixpanel keeps of a text
/// ([supported data types](https://docs.mixpanel.com/docs/data-structure/property-reference/data-type)).
const MAX_TEXT: usize = 255;

/// Returns whether two JSON values are equal.
pub(crate) fn are_equal(one: &str, other: &str) -> bool {
    one == other || Item::parse(one) == Item::parse(other)
}

/// Reads valid JSON from a position on.
struct Reader<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Skips white space and returns the next byte, without reading it.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.json.as_bytes()[self.at..];
        let space = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
        self.at += space.count();
        self.json.as_bytes().get(self.at).copied()
    }

    fn value(&mut self, out: &mut Buffer) {
        match self.peek() {
            Some(b'{') => self.object(out),
            Some(b'[') => self.list(out),
            Some(b'"') => write_text(out, self.text()),
            _ => write_scalar(out, self.scalar()),
        }
    }

    /// Reads to behind the closing quote.
    fn text(&mut self) -> &'a str {
        let start = self.at;
        let bytes = self.json.as_bytes();
        self.at += 1;
        while let Some(byte) = bytes.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                break;
            }
        }
        self.json.get(start..self.at).unwrap_or_default()
    }

    /// Reads a number, `true`, `false` or `null`.
    fn scalar(&mut self) -> &'a str {
        let rest = &self.json[self.at..];
        let ends = |c: char| matches!(c, ',' | ']' | '}' | ':') || c.is_ascii_whitespace();
        let scalar = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += scalar.len();
        scalar
    }

    fn list(&mut self, out: &mut Buffer) {
        self.at += 1;
        let start = out.len();
        while self.peek().is_some_and(|byte| byte != b']') {
            out.push(b',');
            self.value(out);
            if self.peek() == Some(b',') {
                self.at += 1;
            }
        }
        self.at += 1;
        bracket(out, start, *b"[]");
    }

    fn object(&mut self, out: &mut Buffer) {
        self.at += 1;
        let start = out.len();
        let mut members: Vec<(Vec<u8>, Buffer)> = Vec::new();
        while self.peek() == Some(b'"') {
            let (mut name, mut value) = (Buffer::default(), Buffer::default());
            write_text(&mut name, self.text());
            if self.peek() == Some(b':') {
                self.at += 1;
            }
            self.value(&mut value);
            members.push((name.into_vec(), value));
            if self.peek() == Some(b',') {
                self.at += 1;
            }
        }
        self.at += 1;
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (name, value) in members {
            out.push(b',');
            out.extend_from_slice(&name);
            out.push(b':');
            out.extend_from_slice(&value);
        }
        bracket(out, start, *b"{}");
    }
}

/// Puts brackets around items, of which there may be none.
pub(crate) fn bracket(out: &mut Buffer, start: usize, brackets: [u8; 2]) {
    if out.len() == start {
        out.extend_from_slice(&brackets);
    } else {
        crate::json::close(out, start, brackets);
    }
}

/// Writes text with the escapes that this crate writes. Text that is not Unicode, such as half of a surrogate pair,
/// is equal only if written alike.
fn write_text(out: &mut Buffer, json: &str) {
    let text: Option<String> = json
        .contains('\\')
        .then(|| serde_json::from_str(json).ok())
        .flatten();
    match text {
        Some(text) => push_str(out, &text),
        None => out.extend_from_slice(json.as_bytes()),
    }
}

fn write_scalar(out: &mut Buffer, json: &str) {
    let is_number = json.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let is_float = is_number && json.contains(['.', 'e', 'E']);
    match json.parse::<f64>() {
        // Negative zero becomes positive zero.
        Ok(float) if is_float && float.is_finite() => {
            out.extend_from_slice(zmij::Buffer::new().format_finite(float + 0.0).as_bytes());
        }
        _ if json == "-0" => out.push(b'0'),
        _ => out.extend_from_slice(json.as_bytes()),
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
            ("{\"a\":1,\"b\":2}", "{ \"b\" : 2, \"a\" : 1 }", true),
            ("[{\"a\":{},\"b\":[]}]", "[{\"b\":[],\"a\":{}}]", true),
            (
                "{\"a\":{\"c\":1e0,\"d\":\"\\\"}\"}}",
                "{\"a\":{\"d\":\"\\\"}\",\"c\":1.0}}",
                true,
            ),
            ("{\"a\":1,\"b\":2}", "{\"a\":2,\"b\":1}", false),
            ("{\"a\":1}", "{\"a\":1,\"b\":2}", false),
            ("[1,2]", "[2,1]", false),
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
