//! Writes text as JSON strings.

use crate::util::Buffer;

/// Writes `text` as a JSON string, with its quotes, and returns where it ends.
#[inline(never)]
pub(crate) fn write_str(out: &mut Buffer, at: usize, text: &str) -> usize {
    match write_short::<true>(out, at, text.as_bytes(), *b"\"\"") {
        Some(end) => end,
        None => write_any_str(out, at, text),
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn push_str(out: &mut Buffer, text: &str) {
    let end = write_str(out, out.len(), text);
    out.set_len(end);
}

/// Writes a member's name with a comma before it and a colon after it, which is one step where the compiler knows the name.
#[inline(always)]
#[allow(clippy::inline_always)] // Callers pass constants: once inlined, one step is left.
pub(crate) fn write_name(out: &mut Buffer, at: usize, name: &'static str) -> usize {
    let mut text = [b' '; SHORT];
    let Some(start) = text.get_mut(..name.len()) else {
        return write_any_name(out, at, name);
    };
    start.copy_from_slice(name.as_bytes());
    if any_special(&text) {
        return write_any_name(out, at, name);
    }
    write_around(out, at, *b",\"", name, *b"\":")
}

/// Does the same with any name.
fn write_any_name(out: &mut Buffer, at: usize, name: &str) -> usize {
    let at = out.put(at, *b",");
    let at = write_str(out, at, name);
    out.put(at, *b":")
}

/// Writes a name as it is between other bytes, which is one step where the compiler knows the name.
#[inline(always)]
#[allow(clippy::inline_always)] // Callers pass constants: once inlined, one step is left.
pub(crate) fn write_around<const OPEN: usize, const CLOSE: usize>(
    out: &mut Buffer,
    at: usize,
    open: [u8; OPEN],
    name: &'static str,
    close: [u8; CLOSE],
) -> usize {
    let (bytes, end) = (name.as_bytes(), OPEN + name.len());
    if name.len() > SHORT {
        let at = out.put(at, open);
        let at = out.put_slice(at, bytes);
        return out.put(at, close);
    }
    let mut all = [0; SHORT + 4];
    all[..OPEN].copy_from_slice(&open);
    all[OPEN..end].copy_from_slice(bytes);
    all[end..end + CLOSE].copy_from_slice(&close);
    out.put_slice(at, &all[..end + CLOSE])
}

/// The most bytes of a name that is written in one step.
const SHORT: usize = 32;

/// Writes any `text`. Apart, so that the usual path saves no registers.
#[inline(never)]
fn write_any_str(out: &mut Buffer, at: usize, text: &str) -> usize {
    let at = out.put(at, *b"\"");
    let at = write_escaped(out, at, text);
    out.put(at, *b"\"")
}

/// Writes text as it is between two bytes.
#[inline(never)]
pub(crate) fn write_between(out: &mut Buffer, at: usize, text: &str, ends: [u8; 2]) -> usize {
    match write_short::<false>(out, at, text.as_bytes(), ends) {
        Some(end) => end,
        None => write_any_between(out, at, text, ends),
    }
}

/// Does the same with any text. Apart, as [`write_any_str`] is.
#[inline(never)]
fn write_any_between(out: &mut Buffer, at: usize, text: &str, [open, close]: [u8; 2]) -> usize {
    let at = out.put(at, [open]);
    let at = out.put_slice(at, text.as_bytes());
    out.put(at, [close])
}

/// Writes text of 2 to 32 bytes between two bytes, if there is room; if it `IS_JSON`, unless it has bytes to escape.
/// Returns where it ends if it was written. An update of nine properties takes 1,327 instructions, and 1,647 without this.
#[inline]
fn write_short<const IS_JSON: bool>(
    out: &mut Buffer,
    at: usize,
    text: &[u8],
    ends: [u8; 2],
) -> Option<usize> {
    match text.len() {
        2..4 => write_halves::<2, 3, IS_JSON>(out, at, text, ends),
        4..8 => write_halves::<4, 5, IS_JSON>(out, at, text, ends),
        8..16 => write_halves::<8, 9, IS_JSON>(out, at, text, ends),
        16..=32 => write_halves::<16, 17, IS_JSON>(out, at, text, ends),
        _ => None,
    }
}

/// Writes text of `HALF` to twice `HALF` bytes.
///
/// The text is written as two overlapping pieces of constant size, each with its end (`ENDED` is one more than
/// `HALF`), which takes neither a loop nor a call of `memcpy`.
#[inline]
fn write_halves<const HALF: usize, const ENDED: usize, const IS_JSON: bool>(
    out: &mut Buffer,
    at: usize,
    text: &[u8],
    [open, close]: [u8; 2],
) -> Option<usize> {
    let (first, last) = (text.first_chunk::<HALF>()?, text.last_chunk::<HALF>()?);
    if IS_JSON && any_special(first) | any_special(last) {
        return None;
    }
    let len = text.len() + 2;
    let room = out.room(at, len)?;
    let head = room.first_chunk_mut::<ENDED>()?;
    head[0] = open;
    head[1..].copy_from_slice(first);
    let tail = room.last_chunk_mut::<ENDED>()?;
    tail[..HALF].copy_from_slice(last);
    tail[HALF] = close;
    Some(at + len)
}

/// Writes `text` as a JSON string, without its quotes, and returns where it ends.
#[inline]
pub(crate) fn write_escaped(out: &mut Buffer, at: usize, text: &str) -> usize {
    let bytes = text.as_bytes();
    if has_special(bytes) {
        write_with_escapes(out, at, bytes)
    } else {
        out.put_slice(at, bytes)
    }
}

#[cold]
fn write_with_escapes(out: &mut Buffer, mut at: usize, mut text: &[u8]) -> usize {
    while let Some(next) = text.iter().position(|byte| is_special(*byte)) {
        at = out.put_slice(at, &text[..next]);
        at = write_escape(out, at, text[next]);
        text = &text[next + 1..];
    }
    out.put_slice(at, text)
}

fn write_escape(out: &mut Buffer, at: usize, byte: u8) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x09 => b't',
        0x0A => b'n',
        0x0C => b'f',
        0x0D => b'r',
        _ => {
            let [high, low] = [byte >> 4, byte & 0xF].map(|digit| HEX[usize::from(digit)]);
            return out.put(at, [b'\\', b'u', b'0', b'0', high, low]);
        }
    };
    out.put(at, [b'\\', short])
}

/// Returns whether a JSON string must escape the byte: a quote, a backslash or a control character.
#[inline]
fn is_special(byte: u8) -> bool {
    // A quote is `0x22`: it is `0x20` with that bit flipped, and control characters stay below.
    byte ^ 2 < 0x21 || byte == b'\\'
}

/// Returns whether a JSON string must escape any of the bytes. It checks eight at a time, some of the last eight twice.
#[inline]
fn has_special(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().any(|byte| is_special(*byte));
    };
    let mut words = bytes
        .chunks_exact(8)
        .filter_map(|word| word.first_chunk::<8>());
    words.any(any_special) || any_special(last)
}

/// Returns whether a JSON string must escape any of `N` bytes, without branches, so that the compiler can check
/// them all at once.
#[inline]
fn any_special<const N: usize>(bytes: &[u8; N]) -> bool {
    bytes
        .iter()
        .fold(false, |any, byte| any | is_special(*byte))
}
