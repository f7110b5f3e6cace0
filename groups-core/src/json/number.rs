//! Writes numbers.

#[inline]
pub(super) fn write_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes an integer. One of at most eight digits takes neither a loop nor a call of `memcpy`: an update with four of
/// them takes 1,396 instructions, and 1,463 with [`write_integer`].
#[inline]
pub(super) fn write_u64(out: &mut Vec<u8>, value: u64) {
    match u32::try_from(value) {
        Ok(value) if value < END_OF_DIGITS => {
            let (digits, len) = digits(value);
            let end = out.len() + len;
            out.extend_from_slice(&digits);
            out.truncate(end);
        }
        _ => write_integer(out, value),
    }
}

const END_OF_DIGITS: u32 = 100_000_000;

/// Returns the digits of an integer of at most eight, and how many they are.
///
/// It is divided into parts of four digits, of two and of one, side by side in one number: the multiplications and shifts
/// divide all parts by 100, and then by 10.
#[inline]
fn digits(value: u32) -> ([u8; 8], usize) {
    let parts = u64::from(value / 10_000) | u64::from(value % 10_000) << 32;
    let hundreds = ((parts * 10_486) >> 20) & 0x0000_007F_0000_007F;
    let parts = hundreds | (parts - hundreds * 100) << 16;
    let tens = ((parts * 103) >> 10) & 0x000F_000F_000F_000F;
    let parts = tens | (parts - tens * 10) << 8;
    // The first digit is the lowest byte. The last one counts, also if it is zero.
    let zeros = (parts | 1 << 56).trailing_zeros() / 8;
    let text = (parts >> (zeros * 8)) | 0x3030_3030_3030_3030;
    (text.to_le_bytes(), 8 - zeros as usize)
}

/// Writes a finite float.
#[inline]
pub(super) fn write_float(out: &mut Vec<u8>, value: impl zmij::Float) {
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
}

/// Writes a positive number of at most two decimals and fifteen digits, such as an amount of money, in a fraction of
/// the time that other floats take. Returns `false` and writes nothing if it is another number.
///
/// Decimals of at most fifteen digits are the shortest that parse as their nearest float, so these are the bytes
/// that [`write_float`] writes. With one such amount, an update of nine properties takes 1,396 instructions, and 1,494
/// without this.
#[inline]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]
#[allow(clippy::float_cmp)] // Exact: a float next to it has other digits.
pub(super) fn write_cents(out: &mut Vec<u8>, value: f64) -> bool {
    const END: u64 = 1_000_000_000_000_000;
    let cents = (value * 100.0 + 0.5) as u64;
    if !(1..END).contains(&cents) || cents as f64 / 100.0 != value {
        return false;
    }
    let (whole, part) = (cents / 100, cents % 100);
    let [tenth, hundredth] = [part / 10, part % 10].map(|digit| b'0' + digit as u8);
    let ending = [b'.', tenth, hundredth];
    match u32::try_from(whole) {
        Ok(whole) if whole < END_OF_DIGITS => {
            let (digits, len) = digits(whole);
            let end = out.len() + len + ending.len();
            let mut text = [0; 11];
            text[..8].copy_from_slice(&digits);
            out.extend_from_slice(&text);
            out.truncate(end);
            if let Some(last) = out.last_chunk_mut() {
                *last = ending;
            }
        }
        _ => {
            write_integer(out, whole);
            out.extend_from_slice(&ending);
        }
    }
    out.truncate(out.len() - usize::from(hundredth == b'0'));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_written_as_others_write_them() {
        let below = (0..10_000).chain((0..100_000_000).step_by(9_973));
        let around = (0..20).flat_map(|power| {
            let ten = 10_u64.pow(power);
            [ten - 1, ten, ten + 1]
        });
        for value in below.chain(around).chain([u64::MAX]) {
            let mut out = b"x".to_vec();
            write_u64(&mut out, value);
            assert_eq!(out, format!("x{value}").as_bytes());
        }
    }
}
