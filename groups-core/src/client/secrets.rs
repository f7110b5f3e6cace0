//! Removes secrets from errors, reports and log lines, even if a server or proxy quotes the request.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The texts that are removed from everything that comes from a server or proxy.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<[Vec<u8>]>);

/// The replacement of a secret.
const HIDDEN: &[u8] = b"[hidden]";

/// A shorter secret is removed only as a word of its own, because it is part of too many others.
const SHORT: usize = 4;

/// So many bytes of a secret's beginning are taken out too, as a quotation that is cut off has them.
const BEGINNING: usize = 8;

/// The most backslashes before a character that are read as its escape. JSON within a string of JSON doubles them, so these
/// are enough for six levels.
const MAX_SLASHES: usize = 64;

impl Secrets {
    pub(crate) fn new(texts: impl IntoIterator<Item = String>) -> Self {
        let texts = texts.into_iter().map(String::into_bytes);
        Self(texts.filter(|text| !text.is_empty()).collect())
    }

    /// Returns the text without the secrets, as they are or encoded for JSON, HTML or a URL.
    pub(crate) fn scrub<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let mut scrubbed: Option<Vec<u8>> = None;
        let (mut at, mut copied) = (0, 0);
        while at < text.len() {
            let quoted = self.quoted(text, at);
            if quoted == 0 {
                at += 1;
                continue;
            }
            let out = scrubbed.get_or_insert_default();
            out.extend_from_slice(&text[copied..at]);
            out.extend_from_slice(HIDDEN);
            at += quoted;
            copied = at;
        }
        match scrubbed {
            None => Cow::Borrowed(text),
            Some(mut out) => {
                out.extend_from_slice(&text[copied..]);
                Cow::Owned(out)
            }
        }
    }

    /// Returns how many bytes at that place are of a secret: of the longest, if there are two.
    fn quoted(&self, text: &[u8], at: usize) -> usize {
        let is_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let quoted = |secret: &Vec<u8>, len_of: fn(u8, &[u8]) -> usize| {
            let (mut bytes, mut shared) = (0, 0);
            for byte in secret {
                let len = len_of(*byte, &text[at + bytes..]);
                if len == 0 {
                    break;
                }
                bytes += len;
                shared += 1;
            }
            let is_whole = shared == secret.len();
            let is_quoted = if secret.len() < SHORT {
                let before = at.checked_sub(1).and_then(|before| text.get(before));
                is_whole && !is_word(before) && !is_word(text.get(at + bytes))
            } else {
                is_whole || shared >= BEGINNING
            };
            if is_quoted { bytes } else { 0 }
        };
        let quoted = |secret| quoted(secret, plain).max(quoted(secret, encoded));
        self.0.iter().map(quoted).max().unwrap_or_default()
    }
}

fn plain(byte: u8, text: &[u8]) -> usize {
    usize::from(text.first() == Some(&byte))
}

/// Returns how many bytes at the beginning of the text stand for that byte, in any of the usual encodings.
fn encoded(byte: u8, text: &[u8]) -> usize {
    let number = |digits: &[u8], radix| {
        let digits = std::str::from_utf8(digits).ok()?;
        u8::from_str_radix(digits, radix).ok()
    };
    let is_hex = |digits: &[u8]| number(digits, 16) == Some(byte);
    match *text {
        // The other alphabet of base64, and a form's space.
        [b'-', ..] if byte == b'+' => 1,
        [b'_', ..] if byte == b'/' => 1,
        [b'+', ..] if byte == b' ' => 1,
        [b'%', high, low, ..] if is_hex(&[high, low]) => 3,
        // Several where a text of JSON is in another.
        [b'\\', ..] => {
            let most = text.iter().take(MAX_SLASHES);
            let slashes = most.take_while(|byte| **byte == b'\\').count();
            match text[slashes..] {
                [b'u', b'0', b'0', high, low, ..] if is_hex(&[high, low]) => slashes + 5,
                [b'x', high, low, ..] if is_hex(&[high, low]) => slashes + 3,
                [escaped, ..] if escaped == byte => slashes + 1,
                _ => plain(byte, text),
            }
        }
        [b'&', ref rest @ ..] => {
            let end = rest.iter().take(6).position(|byte| *byte == b';');
            let Some(end) = end else {
                return plain(byte, text);
            };
            let is_it = match &rest[..end] {
                b"amp" => byte == b'&',
                b"lt" => byte == b'<',
                b"gt" => byte == b'>',
                b"quot" => byte == b'"',
                b"apos" => byte == b'\'',
                [b'#', b'x' | b'X', digits @ ..] => is_hex(digits),
                [b'#', digits @ ..] => number(digits, 10) == Some(byte),
                _ => false,
            };
            if is_it { end + 2 } else { plain(byte, text) }
        }
        _ => plain(byte, text),
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(secrets: &Secrets, rows: &[(&str, &str)]) {
        for (text, expected) in rows {
            let scrubbed = secrets.scrub(text.as_bytes());
            assert_eq!(String::from_utf8_lossy(&scrubbed), *expected, "{text}");
        }
    }

    #[test]
    fn secrets_and_their_beginnings_are_hidden() {
        let secrets = ["0123456789abcdef", "SHORT", "01234567", ""];
        let secrets = Secrets::new(secrets.map(str::to_owned));
        let rows = [
            ("", ""),
            ("nothing here", "nothing here"),
            ("\"0123456789abcdef\"", "\"[hidden]\""),
            ("0123456789abcdef0123456789abcdef", "[hidden][hidden]"),
            ("cut: 0123456789abc", "cut: [hidden]"),
            ("too short: 0123456", "too short: 0123456"),
            ("SHORTSHOR", "[hidden]SHOR"),
        ];
        check(&secrets, &rows);
        assert_eq!(format!("{secrets:?}"), "Secrets");
    }

    #[test]
    fn a_short_secret_is_hidden_where_it_is_a_word() {
        let secrets = Secrets::new(["abc", "7"].map(str::to_owned));
        let rows = [
            ("abc", "[hidden]"),
            ("user:abc@proxy 17 7", "user:[hidden]@proxy 17 [hidden]"),
            ("abcd xabc ab", "abcd xabc ab"),
            ("%61bc", "[hidden]"),
        ];
        check(&secrets, &rows);
    }

    #[test]
    fn a_megabyte_of_backslashes_is_read_once() {
        const MIB: usize = 1 << 20;
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let secrets = Secrets::new(["0123456789abcdef".to_owned()]);
            let slashes = "\\".repeat(MIB);
            assert_eq!(secrets.scrub(slashes.as_bytes()).len(), MIB);
            let text = format!("{slashes}0123456789abcdef");
            let scrubbed = secrets.scrub(text.as_bytes());
            assert!(scrubbed.ends_with(b"\\[hidden]"));
            done.send(()).unwrap();
        });
        // Each backslash looking for the last one would take minutes.
        assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn texts_within_texts_of_json_show_no_secret() {
        let secrets = Secrets::new(["pass\"word".to_owned()]);
        let mut text = "pass\"word".to_owned();
        for _ in 0..6 {
            let quoted = serde_json::to_string(&text).unwrap();
            quoted[1..quoted.len() - 1].clone_into(&mut text);
            check(&secrets, &[(&text, "[hidden]")]);
        }
    }

    #[test]
    fn encoded_secrets_are_hidden() {
        let secrets = Secrets::new(["p&s/w+r<d \"é".to_owned()]);
        let rows = [
            ("p&s/w+r<d \"é.", "[hidden]."),
            ("p%26s%2fw%2Br%3Cd%20%22%C3%A9.", "[hidden]."),
            ("p%26s%2Fw%2Br%3Cd+%22%c3%a9.", "[hidden]."),
            ("p\\u0026s\\/w+r\\u003Cd \\\"é.", "[hidden]."),
            ("p\\\\u0026s\\\\/w+r\\\\u003Cd \\\\\\\"é.", "[hidden]."),
            ("p&amp;s/w+r&lt;d &quot;é.", "[hidden]."),
            ("p&#38;s&#x2F;w&#43;r&#60;d &#34;é.", "[hidden]."),
            ("p\\x26s_w-r<d+\"é.", "[hidden]."),
            ("p&am", "p&am"),
            ("p%2", "p%2"),
            ("p\\u00", "p\\u00"),
            ("p&;&#;&#x;s", "p&;&#;&#x;s"),
        ];
        check(&secrets, &rows);
    }
}
