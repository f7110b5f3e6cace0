//! What no error, report or log line shows, even where a server or proxy quotes the request.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The texts that are taken out of everything that is read.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<[Vec<u8>]>);

/// What stands in a secret's place.
const HIDDEN: &[u8] = b"[hidden]";

/// A shorter text is not a secret, and part of too many words.
const SHORTEST: usize = 4;

/// So many bytes of a secret's beginning are taken out too, as a quotation that is cut off has them.
const BEGINNING: usize = 8;

impl Secrets {
    pub(crate) fn new(texts: impl IntoIterator<Item = String>) -> Self {
        let texts = texts.into_iter().map(String::into_bytes);
        let mut texts: Vec<_> = texts.filter(|text| text.len() >= SHORTEST).collect();
        // The longest first, for one that is part of another.
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Self(texts.into())
    }

    /// Returns the bytes without the secrets.
    pub(crate) fn scrub<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut scrubbed: Option<Vec<u8>> = None;
        let (mut at, mut copied) = (0, 0);
        while at < bytes.len() {
            let quoted = self.quoted(&bytes[at..]);
            if quoted == 0 {
                at += 1;
                continue;
            }
            let out = scrubbed.get_or_insert_default();
            out.extend_from_slice(&bytes[copied..at]);
            out.extend_from_slice(HIDDEN);
            at += quoted;
            copied = at;
        }
        match scrubbed {
            None => Cow::Borrowed(bytes),
            Some(mut out) => {
                out.extend_from_slice(&bytes[copied..]);
                Cow::Owned(out)
            }
        }
    }

    /// How many bytes at the beginning are of a secret.
    fn quoted(&self, bytes: &[u8]) -> usize {
        let quoted = |secret: &Vec<u8>| {
            let pairs = secret.iter().zip(bytes);
            let shared = pairs.take_while(|(one, other)| one == other).count();
            if shared >= secret.len().min(BEGINNING) {
                shared
            } else {
                0
            }
        };
        self.0.iter().map(quoted).max().unwrap_or_default()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_their_beginnings_are_hidden() {
        let secrets = ["0123456789abcdef", "SHORT", "01234567", "abc", ""];
        let secrets = Secrets::new(secrets.map(str::to_owned));
        for (text, expected) in [
            ("", ""),
            ("nothing here", "nothing here"),
            ("\"0123456789abcdef\"", "\"[hidden]\""),
            ("0123456789abcdef0123456789abcdef", "[hidden][hidden]"),
            ("cut: 0123456789abc", "cut: [hidden]"),
            ("too short: 0123456", "too short: 0123456"),
            ("SHORTSHOR", "[hidden]SHOR"),
            ("abc", "abc"),
        ] {
            let scrubbed = secrets.scrub(text.as_bytes());
            assert_eq!(String::from_utf8_lossy(&scrubbed), expected, "{text}");
        }
        assert_eq!(format!("{secrets:?}"), "Secrets");
    }
}
