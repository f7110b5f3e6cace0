//! Removes secrets from errors, reports and log lines, even if a server or proxy quotes the request.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The texts that are removed from everything that comes from a server or proxy: the parts of the secrets, by their first
/// bytes.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<[Vec<Vec<u8>>]>);

/// The replacement of a secret.
const HIDDEN: &[u8] = b"[hidden]";

/// A shorter secret is removed only as a word of its own, because it is part of too many others.
const SHORT: usize = 4;

/// A longer secret is taken out in parts of so many bytes, in either case: a quotation may begin or end within it, and may
/// be in capitals. Shorter parts would be found in too many texts, and what they show of a token does not help to guess it.
const PART: usize = 8;

/// The most backslashes before a character that are read as its escape. JSON within a string of JSON doubles them, so these
/// are enough for six levels.
const MAX_SLASHES: usize = 64;

impl Secrets {
    pub(crate) fn new(texts: impl IntoIterator<Item = String>) -> Self {
        let mut parts = vec![Vec::new(); 256];
        for text in texts {
            let text = text.as_bytes();
            for part in text.windows(text.len().clamp(1, PART)) {
                let same: &mut Vec<Vec<u8>> = &mut parts[usize::from(part[0].to_ascii_lowercase())];
                if !same.iter().any(|other| other == part) {
                    same.push(part.to_vec());
                }
            }
        }
        Self(parts.into())
    }

    /// Returns the text without the secrets and their parts, as they are or encoded for JSON, HTML or a URL.
    pub(crate) fn scrub<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let mut scrubbed: Option<Vec<u8>> = None;
        // The end of the secret at this place, or of the last one.
        let mut end = 0;
        for at in 0..text.len() {
            let quoted = self.quoted(text, at);
            if quoted == 0 {
                continue;
            }
            if at >= end {
                let out = scrubbed.get_or_insert_default();
                out.extend_from_slice(&text[end..at]);
                out.extend_from_slice(HIDDEN);
            }
            end = end.max(at + quoted);
        }
        match scrubbed {
            None => Cow::Borrowed(text),
            Some(mut out) => {
                out.extend_from_slice(&text[end..]);
                Cow::Owned(out)
            }
        }
    }

    /// Returns how many bytes at that place are a part of a secret: the longest one, if there are two.
    fn quoted(&self, text: &[u8], at: usize) -> usize {
        let parts = |(byte, _): (u8, usize)| {
            let parts = self.0.get(usize::from(byte.to_ascii_lowercase()));
            parts.into_iter().flatten()
        };
        meanings(&text[at..])
            .flat_map(parts)
            .map(|part| length(part, text, at, false).max(length(part, text, at, true)))
            .max()
            .unwrap_or_default()
    }
}

/// Returns how many bytes at that place of the text are that part of a secret.
fn length(part: &[u8], text: &[u8], at: usize, is_encoded: bool) -> usize {
    let is_same = if part.len() < PART {
        u8::eq
    } else {
        u8::eq_ignore_ascii_case
    };
    let mut end = at;
    for byte in part {
        let found = if is_encoded {
            let same = meanings(&text[end..]).find(|(meant, _)| is_same(meant, byte));
            same.map(|(_, len)| len)
        } else {
            let same = text.get(end).filter(|plain| is_same(plain, byte));
            same.map(|_| 1)
        };
        let Some(len) = found else { return 0 };
        end += len;
    }
    let is_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let before = at.checked_sub(1).and_then(|before| text.get(before));
    if part.len() < SHORT && (is_word(before) || is_word(text.get(end))) {
        return 0;
    }
    end - at
}

/// Returns the bytes that the beginning of the text may stand for, each with the length of that beginning.
fn meanings(text: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let number = |digits: &[u8], radix| {
        let digits = str::from_utf8(digits).ok()?;
        u8::from_str_radix(digits, radix).ok()
    };
    let hex = |digits: &[u8]| number(digits, 16);
    let mut meanings = [None, None, text.first().map(|byte| (*byte, 1))];
    match *text {
        // The other alphabet of base64, and a form's space.
        [b'-', ..] => meanings[0] = Some((b'+', 1)),
        [b'_', ..] => meanings[0] = Some((b'/', 1)),
        [b'+', ..] => meanings[0] = Some((b' ', 1)),
        [b'%', ref rest @ ..] => {
            let byte = |digits: &[u8]| digits.first_chunk::<2>().and_then(|digits| hex(digits));
            // Encoded twice, the `%` is `%25`.
            let twice = rest.strip_prefix(b"25").and_then(byte);
            meanings[0] = twice.map(|byte| (byte, 5));
            meanings[1] = byte(rest).map(|byte| (byte, 3));
        }
        // Several where a text of JSON is in another.
        [b'\\', ..] => {
            let most = text.iter().take(MAX_SLASHES);
            let slashes = most.take_while(|byte| **byte == b'\\').count();
            meanings[0] = match text[slashes..] {
                [b'u', b'0', b'0', high, low, ..] => {
                    hex(&[high, low]).map(|byte| (byte, slashes + 5))
                }
                [b'u', b'{', ref rest @ ..] => {
                    let end = rest.iter().take(7).position(|byte| *byte == b'}');
                    end.and_then(|end| Some((hex(&rest[..end])?, slashes + end + 3)))
                }
                [b'x', high, low, ..] => hex(&[high, low]).map(|byte| (byte, slashes + 3)),
                _ => None,
            };
            meanings[1] = text.get(slashes).map(|byte| (*byte, slashes + 1));
        }
        [b'&', ref rest @ ..] => {
            let end = rest.iter().take(6).position(|byte| *byte == b';');
            meanings[0] = end.and_then(|end| {
                let byte = match &rest[..end] {
                    b"amp" => b'&',
                    b"lt" => b'<',
                    b"gt" => b'>',
                    b"quot" => b'"',
                    b"apos" => b'\'',
                    [b'#', b'x' | b'X', digits @ ..] => hex(digits)?,
                    [b'#', digits @ ..] => number(digits, 10)?,
                    _ => return None,
                };
                Some((byte, end + 2))
            });
        }
        _ => {}
    }
    meanings.into_iter().flatten()
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
    fn secrets_and_their_parts_are_hidden() {
        let secrets = ["0123456789abcdef", "SHORT", "01234567", ""];
        let secrets = Secrets::new(secrets.map(str::to_owned));
        let rows = [
            ("", ""),
            ("nothing here", "nothing here"),
            ("\"0123456789abcdef\"", "\"[hidden]\""),
            ("0123456789abcdef0123456789abcdef", "[hidden][hidden]"),
            ("cut: 0123456789abc", "cut: [hidden]"),
            ("no beginning: 3456789abcdef", "no beginning: [hidden]"),
            ("...6789abcd,...", "...[hidden],..."),
            ("0123456789ABCDEF, 789ABCDE", "[hidden], [hidden]"),
            (
                "too short: 0123456 or 9abcdef",
                "too short: 0123456 or 9abcdef",
            ),
            ("a word: short", "a word: short"),
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
    fn many_backslashes_are_read_once() {
        const MANY: usize = 1 << 17;
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let secrets = Secrets::new(["0123456789abcdef".to_owned()]);
            let slashes = "\\".repeat(MANY);
            assert_eq!(secrets.scrub(slashes.as_bytes()).len(), MANY);
            let text = format!("{slashes}0123456789abcdef");
            let scrubbed = secrets.scrub(text.as_bytes());
            assert!(scrubbed.ends_with(b"\\[hidden]"));
            done.send(()).unwrap();
        });
        // Each backslash looking for the last one would take minutes.
        assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn a_megabyte_of_what_is_almost_secret_is_read_in_time() {
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let secrets = Secrets::new(["0123456789abcdef".repeat(4), "a".repeat(1_000)]);
            for text in ["0123456 ", "%25", "9abcdef\\", "aaaaaaa "] {
                let text = text.repeat((1 << 18) / text.len());
                secrets.scrub(text.as_bytes());
            }
            done.send(()).unwrap();
        });
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
            ("p\\u{26}s\\u{2f}w+r<d \"é.", "[hidden]."),
            // Twice.
            (
                "p%2526s%252Fw%252Br%253Cd%2520%2522%25C3%25A9.",
                "[hidden].",
            ),
            ("&s/w+r<d", "[hidden]"),
            ("P%26S%2fW%2BR%3CD", "[hidden]"),
            ("p&am", "p&am"),
            ("p%2", "p%2"),
            ("p\\u00", "p\\u00"),
            ("p&;&#;&#x;s", "p&;&#;&#x;s"),
        ];
        check(&secrets, &rows);
    }
}
