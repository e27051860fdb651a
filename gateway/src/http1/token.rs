//! Byte classes, as tables: one look-up per byte.

/// `tchar` of RFC 9110 §5.6.2.
const TOKEN: u8 = 1;
/// Allowed in a field value: HTAB, SP, visible ASCII, obs-text.
const VALUE: u8 = 2;
/// Allowed in a target: visible ASCII without `#`, `"`, `<`, `>`, `\`, `^`, `` ` ``, `{`, `|`, `}` kept (browsers send
/// some of them), so only `#` is out.
const TARGET: u8 = 4;
/// Allowed in a Host: unreserved, sub-delims without `,` and `;`, `%`, and `[`, `]`, `:` for addresses.
const HOST: u8 = 8;

const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "byte < 256")]
        let b = byte as u8;
        let token = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        let value = b == b'\t' || b == b' ' || b.is_ascii_graphic() || b >= 0x80;
        let target = b.is_ascii_graphic() && b != b'#';
        let host = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b'='
            );
        let mut class = 0;
        if token {
            class |= TOKEN;
        }
        if value {
            class |= VALUE;
        }
        if target {
            class |= TARGET;
        }
        if host {
            class |= HOST;
        }
        table[byte] = class;
        byte += 1;
    }
    table
};

pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

pub(super) fn is_value(bytes: &[u8]) -> bool {
    all(bytes, VALUE)
}

pub(super) fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TARGET)
}

pub(super) fn is_reg_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, HOST)
}

fn all(bytes: &[u8], class: u8) -> bool {
    // Without an early exit the loop is branch-free.
    bytes.iter().fold(class, |seen, byte| seen & CLASSES[usize::from(*byte)]) == class
}
