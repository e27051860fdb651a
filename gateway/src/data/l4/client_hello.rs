//! The server name in a TLS ClientHello, read from the first bytes of a connection. Pure; nothing is decrypted, nothing is
//! changed.
//!
//! Source: RFC 8446 §4.1.2, §5.1; RFC 6066 §3. Unknown extensions, GREASE (RFC 8701) and Encrypted ClientHello pass unseen: of
//! the latter the outer, public name counts, which is the one that routing is meant to go by.

/// Longest ClientHello that is read, record headers included, bytes. With post-quantum keys they have some 2 KiB; Go's server
/// (frps) refuses more than 64 KiB.
pub const LONGEST: usize = 64 * 1024;

/// Longest payload of a record.
const RECORD: usize = 1 << 14;
const HANDSHAKE: u8 = 22;
const CHANGE_CIPHER_SPEC: u8 = 20;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// They may become a ClientHello: read on. Never for more than [`LONGEST`] bytes.
    Incomplete,
    /// A whole ClientHello. The name is lower case, without a dot at its end; `None` = the client names no server.
    Hello {
        /// The server that the client asks for.
        name: Option<String>,
    },
    /// Not TLS at all: no alert would be understood.
    Foreign,
    /// TLS, but not as it should be.
    Broken(Alert),
}

/// A fatal alert (RFC 8446 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// Another message was due.
    UnexpectedMessage,
    /// A record is longer than allowed.
    RecordOverflow,
    /// A field holds what it must not.
    IllegalParameter,
    /// A length is wrong.
    DecodeError,
    /// SSL 2.
    ProtocolVersion,
    /// Nobody here can serve it.
    InternalError,
    /// Nobody here has this name.
    UnrecognizedName,
}

impl Alert {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::UnexpectedMessage => 10,
            Self::RecordOverflow => 22,
            Self::IllegalParameter => 47,
            Self::DecodeError => 50,
            Self::ProtocolVersion => 70,
            Self::InternalError => 80,
            Self::UnrecognizedName => 112,
        }
    }

    /// The record that carries it, of a version that every client understands.
    #[must_use]
    pub const fn record(self) -> [u8; 7] {
        [21, 3, 1, 0, 2, 2, self.number()]
    }

    /// Whether `bytes` are one fatal alert of this kind and nothing else.
    #[must_use]
    pub fn is_all_of(self, bytes: &[u8]) -> bool {
        matches!(bytes, [21, 3, _, 0, 2, 2, number] if *number == self.number())
    }
}

/// Reads the ClientHello that `bytes` begin with; it may be spread over several records. O(length).
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    match hello(bytes) {
        Ok(Some(hello)) => match server_name(&hello) {
            Ok(name) => Parsed::Hello { name },
            Err(alert) => Parsed::Broken(alert),
        },
        Ok(None) if bytes.len() >= LONGEST => Parsed::Broken(Alert::DecodeError),
        Ok(None) => Parsed::Incomplete,
        Err(No::Foreign) => Parsed::Foreign,
        Err(No::Broken(alert)) => Parsed::Broken(alert),
    }
}

/// Whether `bytes`, which begin with a ClientHello, hold nothing of the application's: early data (RFC 8446 §2.3) may be acted
/// on, so it must not be sent twice.
#[must_use]
pub fn is_handshake_only(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [kind, _, _, high, low, after @ ..] = rest {
        if ![HANDSHAKE, CHANGE_CIPHER_SPEC].contains(kind) {
            return false;
        }
        rest = after.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
    }
    rest.first().is_none_or(|kind| [HANDSHAKE, CHANGE_CIPHER_SPEC].contains(kind))
}

enum No {
    Foreign,
    Broken(Alert),
}

/// The ClientHello's body, put together from its records; `None` = some of it is missing.
fn hello(bytes: &[u8]) -> Result<Option<Vec<u8>>, No> {
    // SSL 2: two bytes of length, then CLIENT-HELLO and the version wanted. Some scanners still ask.
    match bytes {
        [0x80..=0xff, _, 1, 0 | 3, ..] => return Err(No::Broken(Alert::ProtocolVersion)),
        // Not yet told from what isn't TLS at all: what it is must not depend on how it was cut on its way.
        [0x80..=0xff] | [0x80..=0xff, _] | [0x80..=0xff, _, 1] => return Ok(None),
        _ => {}
    }
    let mut rest = bytes;
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut have = 0;
    while let Some((kind, after)) = rest.split_first() {
        match kind {
            &HANDSHAKE => {}
            20 | 21 | 23 => return Err(No::Broken(Alert::UnexpectedMessage)),
            _ if parts.is_empty() => return Err(No::Foreign),
            _ => return Err(No::Broken(Alert::UnexpectedMessage)),
        }
        match after.first() {
            None | Some(3) => {}
            Some(_) if parts.is_empty() => return Err(No::Foreign),
            Some(_) => return Err(No::Broken(Alert::ProtocolVersion)),
        }
        let Some(&[_, _, high, low]) = after.first_chunk() else { break };
        let length = usize::from(u16::from_be_bytes([high, low]));
        match length {
            0 => return Err(No::Broken(Alert::DecodeError)),
            1..=RECORD => {}
            _ => return Err(No::Broken(Alert::RecordOverflow)),
        }
        let payload = &after[4..];
        let part = &payload[..length.min(payload.len())];
        have += part.len();
        parts.push(part);
        if let Some(wanted) = wanted(&parts)? {
            if wanted > LONGEST {
                return Err(No::Broken(Alert::DecodeError));
            }
            if have >= wanted {
                let mut whole = parts.concat();
                whole.truncate(wanted);
                return Ok(Some(whole.split_off(4)));
            }
        }
        if part.len() < length {
            break;
        }
        rest = &payload[length..];
    }
    Ok(None)
}

/// Length of the message that `parts` begin, its header included, as soon as it can be told.
fn wanted(parts: &[&[u8]]) -> Result<Option<usize>, No> {
    let mut bytes = parts.iter().flat_map(|part| part.iter().copied());
    match bytes.next() {
        Some(CLIENT_HELLO) => {}
        Some(_) => return Err(No::Broken(Alert::UnexpectedMessage)),
        None => return Ok(None),
    }
    let (Some(high), Some(middle), Some(low)) = (bytes.next(), bytes.next(), bytes.next()) else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, high, middle, low]);
    Ok(Some(usize::try_from(length).unwrap_or(usize::MAX).saturating_add(4)))
}

/// The name in the body of a ClientHello.
fn server_name(body: &[u8]) -> Result<Option<String>, Alert> {
    let mut body = Reader(body);
    body.take(2 + 32)?; // version, random
    let session_id = usize::from(body.byte()?);
    body.take(session_id)?;
    body.sized()?; // cipher suites
    let compression = usize::from(body.byte()?);
    body.take(compression)?;
    if body.0.is_empty() {
        return Ok(None); // no extensions: an old client
    }
    let mut extensions = Reader(body.sized()?);
    if !body.0.is_empty() {
        return Err(Alert::DecodeError);
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.short()?;
        let content = extensions.sized()?;
        if kind == SERVER_NAME {
            if found.is_some() {
                return Err(Alert::IllegalParameter);
            }
            found = Some(host_name(content)?);
        }
    }
    Ok(found.flatten())
}

/// The one host name of a server_name extension.
fn host_name(content: &[u8]) -> Result<Option<String>, Alert> {
    let mut content = Reader(content);
    let mut list = Reader(content.sized()?);
    if !content.0.is_empty() || list.0.is_empty() {
        return Err(Alert::DecodeError);
    }
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.byte()?;
        let name = list.sized()?;
        if kind == HOST_NAME {
            if found.is_some() {
                return Err(Alert::IllegalParameter);
            }
            found = Some(name);
        }
    }
    let Some(name) = found else { return Ok(None) };
    let name = name.strip_suffix(b".").unwrap_or(name);
    let sound = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if name.is_empty() || name.ends_with(b".") || name.len() > 255 || !name.iter().all(sound) {
        return Err(Alert::IllegalParameter);
    }
    Ok(Some(name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect()))
}

/// Bytes yet to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Alert> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Alert::DecodeError)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Alert> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn short(&mut self) -> Result<u16, Alert> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Two bytes of length, then so many.
    fn sized(&mut self) -> Result<&'a [u8], Alert> {
        let length = self.short()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests;
