//! Where a message's body ends, as far as the fields say (RFC 9112 §6).

use super::{
    error::HeadError,
    field::{Field, Known},
};

/// What Content-Length and Transfer-Encoding say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

/// Reads the framing fields.
///
/// # Errors
/// Anything that two parsers could understand differently: repetitions even when equal, lists, signs, both fields
/// together, codings other than `chunked`.
pub(super) fn declared(buffer: &[u8], fields: &[Field]) -> Result<Declared, HeadError> {
    let (mut length, mut chunked) = (None, false);
    for field in fields {
        match field.known {
            Known::ContentLength => {
                if length.is_some() {
                    return Err(HeadError::RepeatedContentLength);
                }
                length = Some(digits(field.value.of(buffer)).ok_or(HeadError::ContentLength)?);
            }
            Known::TransferEncoding => {
                if chunked {
                    return Err(HeadError::RepeatedTransferEncoding);
                }
                if !field.value.of(buffer).eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::TransferCoding);
                }
                chunked = true;
            }
            _ => {}
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(HeadError::LengthAndTransferEncoding),
        (Some(length), false) => Ok(Declared::Length(length)),
        (None, true) => Ok(Declared::Chunked),
        (None, false) => Ok(Declared::Nothing),
    }
}

/// One to nineteen digits, at most `i64::MAX`: what every implementation can hold.
fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = value.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    (i64::try_from(number).is_ok()).then_some(number)
}
