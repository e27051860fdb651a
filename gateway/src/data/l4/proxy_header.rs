//! The PROXY protocol header: who really connected, told in front of a connection's first byte. Versions 1 (a line of text)
//! and 2 (binary), both directions. Pure: no socket, no clock.
//!
//! Source: Willy Tarreau, "The PROXY protocol, versions 1 & 2" (haproxy.org, doc/proxy-protocol.txt).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use frp_gateway_config::model::ProxyHeader;

/// What begins a header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What begins one of version 1.
const WORD: &[u8] = b"PROXY ";
/// Longest line of version 1, its end included (§2.1).
const LONGEST_LINE: usize = 107;
/// Fixed part of version 2.
const FIXED: usize = 16;
/// Longest header of version 2 that is read. The length field allows 64 KiB; a client certificate in it is some KiB.
pub const LONGEST: usize = 16 * 1024;
/// Type of the TLV that holds a CRC-32C of the whole header (§2.2.3).
const CRC32C: u8 = 0x03;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// They may become a header: read on. Never for more than [`LONGEST`] bytes.
    Incomplete,
    /// They are no header; the text is for the log.
    Invalid(&'static str),
    /// A header.
    Header {
        /// Its length; what follows is the connection's first byte.
        len: usize,
        /// Who connected, and to which address. `None` = the sender doesn't say (`LOCAL`, `UNKNOWN`, a family without
        /// IP addresses): the connection's own addresses hold.
        source: Option<(SocketAddr, SocketAddr)>,
    },
}

/// Reads a header of either version from the first bytes of a connection.
///
/// Strict: an address family the specification doesn't know, an address that isn't written as it wants, or a wrong checksum
/// is [`Decoded::Invalid`]. What `LOCAL` and unspecified families carry is skipped, as are TLVs but the checksum. O(length).
#[must_use]
pub fn decode(bytes: &[u8]) -> Decoded {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, wanted)| byte == wanted);
    if begins(&SIGNATURE) {
        if bytes.len() < FIXED { Decoded::Incomplete } else { binary(bytes) }
    } else if begins(WORD) {
        if bytes.len() < WORD.len() { Decoded::Incomplete } else { line(bytes) }
    } else {
        Decoded::Invalid("no PROXY protocol header")
    }
}

/// Appends a header of `version` that says: `from` connected to `to`. At most 107 bytes.
///
/// Addresses of different families are both written as IPv6, the IPv4 one mapped.
pub fn encode(version: ProxyHeader, from: SocketAddr, to: SocketAddr, out: &mut Vec<u8>) {
    let (from_ip, to_ip) = match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V6(to)) => (from.to_ipv6_mapped().into(), to.into()),
        (IpAddr::V6(from), IpAddr::V4(to)) => (from.into(), to.to_ipv6_mapped().into()),
        same => same,
    };
    match version {
        ProxyHeader::V1 => {
            let family = if from_ip.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from_port, to_port) = (from.port(), to.port());
            let text = format!("PROXY {family} {from_ip} {to_ip} {from_port} {to_port}\r\n");
            out.extend_from_slice(text.as_bytes());
        }
        ProxyHeader::V2 => {
            let (family, length) = if from_ip.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
            out.extend_from_slice(&SIGNATURE);
            out.extend_from_slice(&[0x21, family, 0, length]);
            for ip in [from_ip, to_ip] {
                match ip {
                    IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
                }
            }
            out.extend_from_slice(&from.port().to_be_bytes());
            out.extend_from_slice(&to.port().to_be_bytes());
        }
    }
}

/// Version 1. `bytes` begin with [`WORD`].
fn line(bytes: &[u8]) -> Decoded {
    let seen = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() < LONGEST_LINE {
            Decoded::Incomplete
        } else {
            Decoded::Invalid("PROXY line longer than 107 bytes")
        };
    };
    let len = end + 2;
    let Ok(text) = std::str::from_utf8(&seen[WORD.len()..end]) else {
        return Decoded::Invalid("PROXY line is not ASCII");
    };
    // Whatever follows UNKNOWN is to be ignored.
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Decoded::Header { len, source: None };
    }
    match addresses(text) {
        Some(source) => Decoded::Header { len, source: Some(source) },
        None => Decoded::Invalid("PROXY line without proper addresses"),
    }
}

/// `TCP4 192.0.2.1 192.0.2.2 56324 443`: single spaces, nothing more.
fn addresses(text: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = text.split(' ');
    let family = words.next()?;
    let mut ip = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (from, to) = (ip()?, ip()?);
    let mut port = || words.next().and_then(port);
    let (from_port, to_port) = (port()?, port()?);
    words.next().is_none().then_some((SocketAddr::new(from, from_port), SocketAddr::new(to, to_port)))
}

/// Decimal, without sign or leading zero.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

/// Version 2. `bytes` begin with [`SIGNATURE`] and have the [`FIXED`] part.
fn binary(bytes: &[u8]) -> Decoded {
    let (command, family) = (bytes[12], bytes[13]);
    let len = FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if len > LONGEST {
        return Decoded::Invalid("PROXY header longer than 16 KiB");
    }
    // Said before all of it has come: who sends garbage needn't be waited for.
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Decoded::Invalid("PROXY header of an unknown version or command"),
    };
    // Length of both addresses with their ports.
    let block = match family {
        _ if local => None,
        0x00 => None,
        0x11 | 0x12 => Some(12),
        0x21 | 0x22 => Some(36),
        0x31 | 0x32 => Some(216),
        _ => return Decoded::Invalid("PROXY header of an unknown address family"),
    };
    if block.is_some_and(|block| len < FIXED + block) {
        return Decoded::Invalid("PROXY header too short for its addresses");
    }
    let Some(header) = bytes.get(..len) else { return Decoded::Incomplete };
    let Some(block) = block else { return Decoded::Header { len, source: None } };
    if let Err(reason) = check(header, FIXED + block) {
        return Decoded::Invalid(reason);
    }
    let source = match block {
        12 => pair::<4>(header),
        36 => pair::<16>(header),
        _ => None,
    };
    Decoded::Header { len, source }
}

/// Two addresses of `N` bytes each, then their ports.
fn pair<const N: usize>(header: &[u8]) -> Option<(SocketAddr, SocketAddr)>
where
    [u8; N]: Into<IpAddr>,
{
    let ip = |at: usize| Some(<[u8; N]>::try_from(header.get(at..at + N)?).ok()?.into());
    let port = |at: usize| Some(u16::from_be_bytes(header.get(at..at + 2)?.try_into().ok()?));
    let ports = FIXED + 2 * N;
    Some((SocketAddr::new(ip(FIXED)?, port(ports)?), SocketAddr::new(ip(FIXED + N)?, port(ports + 2)?)))
}

/// Walks the TLVs, which begin at `at`, and verifies the checksum if there is one.
fn check(header: &[u8], mut at: usize) -> Result<(), &'static str> {
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3).and_then(<[u8]>::first_chunk) else {
            return Err("PROXY header ends within a TLV");
        };
        let (start, length) = (at + 3, usize::from(u16::from_be_bytes([high, low])));
        let Some(value) = header.get(start..start + length) else {
            return Err("PROXY header ends within a TLV");
        };
        if kind == CRC32C {
            let Ok(told) = <[u8; 4]>::try_from(value) else {
                return Err("PROXY header's checksum is not 4 bytes");
            };
            // Over the whole header, with zeros in the checksum's own place.
            let sum = crc32c::crc32c(&header[..start]);
            let sum = crc32c::crc32c_append(sum, &[0; 4]);
            let sum = crc32c::crc32c_append(sum, &header[start + 4..]);
            if sum != u32::from_be_bytes(told) {
                return Err("PROXY header's checksum is wrong");
            }
        }
        at = start + length;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
