//! Byte classes: one table look-up per byte, eight bytes at a time where values are long.

/// `tchar` of RFC 9110 §5.6.2.
pub(super) const TOKEN: u8 = 1;
/// Allowed in a target: visible ASCII without `#`. Browsers send more than RFC 3986 allows (`|`, `^`, `"` in queries), and
/// all parsers agree on those; on bytes from 0x80 they don't.
pub(super) const TARGET: u8 = 2;
/// Allowed in a host name: unreserved characters of RFC 3986 §2.3. Its sub-delims and `%` are out: nobody's names need
/// them, and parsers differ on `a%2eb` and `a;b`.
pub(super) const NAME: u8 = 4;
/// Visible ASCII.
pub(super) const VISIBLE: u8 = 8;

/// The lowest bit of each of eight bytes, and the highest.
pub(super) const ONES: u64 = 0x0101_0101_0101_0101;
pub(super) const TOPS: u64 = ONES << 7;

/// The highest bits of the bytes that are 0. The lowest of them is always true; above it a borrow can raise a false one.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & TOPS
}

const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "byte < 256")]
        let b = byte as u8;
        let mut class = 0;
        if b.is_ascii_alphanumeric()
            || matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_')
            || matches!(b, b'`' | b'|' | b'~')
        {
            class |= TOKEN;
        }
        if b.is_ascii_graphic() {
            class |= VISIBLE;
            if b != b'#' {
                class |= TARGET;
            }
        }
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            class |= NAME;
        }
        table[byte] = class;
        byte += 1;
    }
    table
};

/// Where the run of bytes of `class` that begins at `at` ends: the first other byte, or the end of `buffer`.
pub(super) fn end_of(class: u8, buffer: &[u8], at: usize) -> usize {
    let rest = buffer.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| CLASSES[usize::from(*byte)] & class == 0).unwrap_or(rest.len())
}

pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && end_of(TOKEN, bytes, 0) == bytes.len()
}

/// Where the first colon is, if it is among the first bytes from `at` on: 24 of them, where as many are there.
pub(super) fn near_colon(buffer: &[u8], at: usize) -> Option<usize> {
    let words = buffer.get(at..)?.as_chunks::<8>().0;
    for (n, word) in words.iter().take(3).enumerate() {
        let colons = zeros(u64::from_le_bytes(*word) ^ (ONES * u64::from(b':')));
        if colons != 0 {
            return Some(at + n * 8 + (colons.trailing_zeros() / 8) as usize);
        }
    }
    None
}

/// Where the field value (or reason phrase) that begins at `at` ends: the first control byte other than HTAB.
///
/// HTAB, SP, visible ASCII and obs-text go on (RFC 9110 §5.5). Eight bytes per step: a byte below 0x20 borrows from its
/// top bit when 0x20 is taken away, DEL becomes 0 when 0x7f is xored in. A borrow can raise a false alarm only above a
/// true one, so the lowest alarm is always true.
pub(super) fn end_of_value(buffer: &[u8], mut at: usize) -> usize {
    while let Some(eight) = buffer.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*eight);
        let below = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        let alarms = below | zeros(word ^ (ONES * 0x7f));
        if alarms == 0 {
            at += 8;
            continue;
        }
        at += (alarms.trailing_zeros() / 8) as usize;
        if buffer[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    while buffer.get(at).is_some_and(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f)) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::{end_of_value, near_colon};

    #[test]
    fn the_first_colon_is_found_wherever_it_stands_and_whatever_stands_around_it() {
        for fill in [0, b'9', b';', b'a', 0xba, 0xff] {
            for length in 0..40 {
                for first in 0..length {
                    for second in [first, length - 1] {
                        let mut text = vec![fill; length];
                        text[first] = b':';
                        text[second] = b':';
                        let seen = (length / 8 * 8).min(24);
                        let expected = Some(first).filter(|first| *first < seen);
                        assert_eq!(near_colon(&text, 0), expected, "{first} of {length} among {fill:#x}");
                        text.insert(0, b':');
                        assert_eq!(
                            near_colon(&text, 1),
                            expected.map(|at| at + 1),
                            "{first} of {length} from 1"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_ends_at_the_first_control_byte_wherever_it_stands() {
        for byte in 0..=255 {
            for offset in 0..24 {
                for fill in [b'a', 0x80, 0xff, b' ', b'\t', 0x7e, 0x21] {
                    let mut text = vec![fill; 32];
                    text[offset] = byte;
                    let ends = (byte < 0x20 && byte != b'\t') || byte == 0x7f;
                    let expected = if ends { offset } else { text.len() };
                    assert_eq!(
                        end_of_value(&text, 0),
                        expected,
                        "byte {byte:#x} at {offset} among {fill:#x}"
                    );
                }
            }
        }
    }
}
