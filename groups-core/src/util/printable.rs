//! Texts of users and servers as they are shown in one line of an error or a log.

use std::fmt::{self, Write as _};

/// How many characters of a name are shown: as many as a property's name may have.
const MAX_NAME: usize = 255;

/// A name in quotes, without line breaks, and cut off if it is too long to be one.
pub(crate) struct Name<'a>(pub(crate) &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MAX_NAME) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
        }
    }
}

/// A message with spaces in the place of line breaks, and other control characters as escapes.
pub(crate) struct Message<'a>(pub(crate) &'a str);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\n' | '\r' | '\t' => f.write_char(' '),
            _ if c.is_control() => write!(f, "{}", c.escape_debug()),
            _ => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_one_line() {
        assert_eq!(Name("plan").to_string(), r#""plan""#);
        assert_eq!(Name("a\n\u{1b}[1m\"é").to_string(), r#""a\n\u{1b}[1m\"é""#);
        let long = "é".repeat(255);
        assert_eq!(Name(&long).to_string(), format!("\"{long}\""));
        assert_eq!(
            Name(&format!("{long}x")).to_string(),
            format!("\"{long}\"…")
        );
        assert_eq!(Message("no \"é\"").to_string(), "no \"é\"");
        assert_eq!(Message("a\nb\u{1b}").to_string(), r"a b\u{1b}");
    }
}
