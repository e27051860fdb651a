//! Field lines.

use super::{
    error::{HeadError, Stop},
    known::Known,
    span::Span,
    token::{TOKEN, end_of, end_of_value, near_colon},
};

/// One field line.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// As sent.
    pub name: Span,
    /// Without the white space around it.
    pub value: Span,
    /// Which name it is, if one we care for.
    pub known: Known,
    /// It ends at this hop (RFC 9110 §7.6.1): by its nature, or because Connection names it.
    pub hop: bool,
}

/// What a line of the field section is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Line {
    /// A field; the next line begins there.
    Field(Field, usize),
    /// The empty line; what follows it begins there.
    End(usize),
}

/// Reads the line that begins at `at` (RFC 9112 §5). Faults come in the order of their bytes, so a fault found in the
/// first half of a line is the same when the second half is there.
pub(super) fn read_line(buffer: &[u8], at: usize) -> Result<Line, Stop> {
    let (colon, known) = name(buffer, at);
    match buffer.get(colon) {
        Some(b':') if colon > at => {}
        Some(b':') => return Err(HeadError::FieldName.into()),
        Some(b' ' | b'\t') if colon > at => return Err(HeadError::SpaceBeforeColon.into()),
        Some(b' ' | b'\t') => return Err(HeadError::ObsFold.into()),
        Some(b'\r') if colon == at => return line_end(buffer, at, HeadError::BareCr).map(Line::End),
        Some(b'\r') => return Err(unexpected(buffer, colon, HeadError::NoColon)),
        _ => return Err(unexpected(buffer, colon, HeadError::FieldName)),
    }
    let end = end_of_value(buffer, colon + 1);
    let next = line_end(buffer, end, HeadError::ControlByte)?;
    if known == Known::Other && is_lookalike(&buffer[at..colon]) {
        return Err(HeadError::LookalikeName.into());
    }
    Ok(Line::Field(
        Field { name: Span::new(at, colon), value: trim(buffer, colon + 1, end), known, hop: known.is_hop() },
        next,
    ))
}

/// Where the name that begins at `at` ends, and which it is. A name that is known needs no look at each of its bytes.
fn name(buffer: &[u8], at: usize) -> (usize, Known) {
    let near = near_colon(buffer, at).map(|colon| (colon, Known::of(&buffer[at..colon])));
    match near {
        Some((colon, known)) if known != Known::Other => (colon, known),
        Some(_) => (end_of(TOKEN, buffer, at), Known::Other),
        None => {
            let colon = end_of(TOKEN, buffer, at);
            (colon, Known::of(&buffer[at..colon]))
        }
    }
}

/// Checks that a line ends at `at`; returns where the next one begins. `other` = what another visible byte means there.
pub(super) fn line_end(buffer: &[u8], at: usize, other: HeadError) -> Result<usize, Stop> {
    match buffer.get(at..).and_then(<[u8]>::first_chunk) {
        Some(b"\r\n") => Ok(at + 2),
        _ => Err(unexpected(buffer, at, other)),
    }
}

/// Names the fault of the byte at `at`, which must not be there; `other` = a visible byte, or a line end.
#[cold]
pub(super) fn unexpected(buffer: &[u8], at: usize, other: HeadError) -> Stop {
    match (buffer.get(at), buffer.get(at + 1)) {
        (None, _) | (Some(b'\r'), None) => Stop::NeedMore,
        (Some(b'\r'), Some(b'\n')) => other.into(),
        (Some(b'\r'), Some(_)) => HeadError::BareCr.into(),
        (Some(b'\n'), _) => HeadError::BareLf.into(),
        (Some(byte), _) if byte.is_ascii_control() => HeadError::ControlByte.into(),
        (Some(_), _) => other.into(),
    }
}

/// Takes the white space off both ends.
fn trim(buffer: &[u8], mut start: usize, mut end: usize) -> Span {
    while start < end && matches!(buffer[start], b' ' | b'\t') {
        start += 1;
    }
    while start < end && matches!(buffer[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    Span::new(start, end)
}

/// Some servers map `_` to `-`, and would see framing that we didn't. (Other names with `_` are the caller's business.)
fn is_lookalike(name: &[u8]) -> bool {
    let real: &[u8] = match name.len() {
        14 => b"content-length",
        17 => b"transfer-encoding",
        _ => return false,
    };
    name.iter()
        .zip(real)
        .all(|(byte, real)| byte.eq_ignore_ascii_case(real) || (*byte == b'_' && *real == b'-'))
}
