//! Writes text as JSON strings.

/// Writes `text` as a JSON string, with its quotes.
#[inline]
pub(crate) fn write_str(out: &mut Vec<u8>, text: &str) {
    if !write_short::<true>(out, text.as_bytes(), *b"\"\"") {
        write_any_str(out, text);
    }
}

/// Writes a member's name with a comma before it and a colon after it, which is one step where the compiler knows it.
#[inline(always)]
pub(crate) fn write_name(out: &mut Vec<u8>, name: &'static str) {
    const MOST: usize = 32;
    let (bytes, length) = (name.as_bytes(), name.len());
    let mut text = [b' '; MOST];
    if length <= MOST {
        text[..length].copy_from_slice(bytes);
    }
    if length > MOST || any_special(&text) {
        out.push(b',');
        write_str(out, name);
        out.push(b':');
        return;
    }
    let mut member = [0; MOST + 4];
    member[..2].copy_from_slice(b",\"");
    member[2..length + 2].copy_from_slice(bytes);
    member[length + 2..length + 4].copy_from_slice(b"\":");
    out.extend_from_slice(&member[..length + 4]);
}

/// Writes any `text`. Apart, so that the usual path saves no registers.
#[inline(never)]
fn write_any_str(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// Writes text as it is between two bytes.
#[inline]
pub(crate) fn write_between(out: &mut Vec<u8>, text: &str, [open, close]: [u8; 2]) {
    if !write_short::<false>(out, text.as_bytes(), [open, close]) {
        out.push(open);
        out.extend_from_slice(text.as_bytes());
        out.push(close);
    }
}

/// Writes text of 4 to 32 bytes between two bytes, if there is room; if it `IS_JSON`, unless it has bytes to escape.
/// Returns whether it was written. An update of nine properties takes 1,396 instructions, and 1,891 without this.
#[inline]
fn write_short<const IS_JSON: bool>(out: &mut Vec<u8>, text: &[u8], ends: [u8; 2]) -> bool {
    match text.len() {
        4..8 => write_halves::<4, 5, 10, IS_JSON>(out, text, ends),
        8..16 => write_halves::<8, 9, 18, IS_JSON>(out, text, ends),
        16..=32 => write_halves::<16, 17, 34, IS_JSON>(out, text, ends),
        _ => false,
    }
}

/// Writes text of `HALF` to twice `HALF` bytes.
///
/// The text is written as two overlapping pieces of constant size, each with its end (`ENDED` is one more than
/// `HALF`), which takes neither a loop nor a call of `memcpy`.
#[inline]
fn write_halves<const HALF: usize, const ENDED: usize, const ROOM: usize, const IS_JSON: bool>(
    out: &mut Vec<u8>,
    text: &[u8],
    [open, close]: [u8; 2],
) -> bool {
    let (Some(first), Some(last)) = (text.first_chunk::<HALF>(), text.last_chunk::<HALF>()) else {
        return false;
    };
    if IS_JSON && any_special(first) | any_special(last) {
        return false;
    }
    if out.capacity() - out.len() < ROOM {
        return false;
    }
    let end = out.len() + text.len() + 2;
    let mut start = [0; ROOM];
    start[0] = open;
    start[1..ENDED].copy_from_slice(first);
    out.extend_from_slice(&start);
    out.truncate(end);
    let Some(tail) = out.last_chunk_mut::<ENDED>() else {
        return false;
    };
    tail[..HALF].copy_from_slice(last);
    tail[HALF] = close;
    true
}

/// Writes `text` as a JSON string, without its quotes.
#[inline]
pub(crate) fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    if has_special(bytes) {
        write_with_escapes(out, bytes);
    } else {
        out.extend_from_slice(bytes);
    }
}

#[cold]
fn write_with_escapes(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        if is_special(byte) {
            write_escape(out, byte);
        } else {
            out.push(byte);
        }
    }
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x09 => b't',
        0x0A => b'n',
        0x0C => b'f',
        0x0D => b'r',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 0xF)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
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
