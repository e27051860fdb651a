//! What the fields say together: where the body ends (RFC 9112 §6), whether the connection goes on (§9.3).

use super::{error::HeadError, field::Field, known::Known, request::Version, token::is_token};

/// Options of Connection in a head. Each may be compared with every field, so their number is bounded.
const MAX_OPTIONS: usize = 32;

/// What has been gathered from the fields so far.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade_option: bool,
    upgrade_field: bool,
    options: usize,
    nominates: bool,
}

impl Gathered {
    /// Takes a field into account.
    ///
    /// # Errors
    /// Anything that two parsers could understand differently: repetitions even when equal, lists, signs, both framing
    /// fields together, codings other than `chunked`, Transfer-Encoding in 1.0.
    pub(super) fn add(&mut self, version: Version, known: Known, value: &[u8]) -> Result<(), HeadError> {
        match known {
            Known::ContentLength => {
                if self.length.is_some() {
                    return Err(HeadError::RepeatedContentLength);
                }
                if self.chunked {
                    return Err(HeadError::LengthAndTransferEncoding);
                }
                self.length = Some(digits(value).ok_or(HeadError::ContentLength)?);
            }
            Known::TransferEncoding => {
                if self.chunked {
                    return Err(HeadError::RepeatedTransferEncoding);
                }
                if version == Version::Http10 {
                    return Err(HeadError::TransferEncodingForbidden);
                }
                if self.length.is_some() {
                    return Err(HeadError::LengthAndTransferEncoding);
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::TransferCoding);
                }
                self.chunked = true;
            }
            Known::Connection => self.connection(value)?,
            Known::Upgrade => self.upgrade_field = true,
            _ => {}
        }
        Ok(())
    }

    /// The options of one Connection field (RFC 9110 §7.6.1).
    fn connection(&mut self, value: &[u8]) -> Result<(), HeadError> {
        for option in options(value) {
            self.options += 1;
            if self.options > MAX_OPTIONS || !is_token(option) {
                return Err(HeadError::ConnectionOption);
            }
            match Known::of(option) {
                Known::KeepAlive => self.keep_alive = true,
                Known::Upgrade => self.upgrade_option = true,
                Known::Other if option.eq_ignore_ascii_case(b"close") => self.close = true,
                known if known.must_not_be_nominated() => return Err(HeadError::ConnectionNominates),
                known if known.is_hop() => {}
                _ => self.nominates = true,
            }
        }
        Ok(())
    }

    /// Marks the fields that Connection names.
    pub(super) fn mark_nominated(&self, buffer: &[u8], fields: &mut [Field]) {
        if !self.nominates {
            return;
        }
        for index in 0..fields.len() {
            if fields[index].known == Known::Connection {
                for option in options(fields[index].value.of(buffer)) {
                    for field in fields.iter_mut().filter(|field| field.name.len() == option.len()) {
                        field.hop |= field.name.of(buffer).eq_ignore_ascii_case(option);
                    }
                }
            }
        }
    }

    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// `Upgrade` and `Connection: upgrade`, in 1.1 (RFC 9110 §7.8).
    pub(super) fn upgrade(&self, version: Version) -> bool {
        version == Version::Http11 && self.upgrade_option && self.upgrade_field
    }
}

/// The elements of a list; empty ones are skipped (RFC 9110 §5.6.1.2).
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}

/// One to nineteen digits, at most `i64::MAX`: what every implementation can hold.
fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = value.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    i64::try_from(number).is_ok().then_some(number)
}
