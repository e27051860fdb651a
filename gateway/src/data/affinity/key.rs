//! What a request is hashed by: the bytes that stay the same from one request of a visitor to the next.
//!
//! Replicas must agree on these bytes. No value, or an empty one, is no key: hashing it would send all visitors without
//! one to the same member.

use std::net::IpAddr;

use frp_gateway_config::model::{Affinity, Balance};

use crate::{http1::RequestHead, snapshot::Pool};

/// The value of the first header field called `name` (any case). `None` when it is absent or empty.
#[must_use]
pub fn header<'a>(head: &RequestHead, wire: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.fields
        .iter()
        .find(|field| field.name.of(wire).eq_ignore_ascii_case(name))
        .map(|field| field.value.of(wire))
        .filter(|value| !value.is_empty())
}

/// The value of the first parameter called `name` in `query` (without `?`), both as written: nothing is decoded, as in
/// the routes' conditions. `None` when it is absent or empty.
#[must_use]
pub fn query<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query
        .split(|byte| *byte == b'&')
        .find_map(|pair| match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at] == name).then(|| &pair[at + 1..]),
            None => (pair == name).then_some(&[] as &[u8]),
        })
        .filter(|value| !value.is_empty())
}

/// Hash of the visitor's address, if the pool goes by it: by affinity, or because its policy hashes and no other affinity names
/// something else. `visitor` is asked only then.
#[must_use]
pub fn by_address(pool: &Pool, visitor: impl FnOnce() -> IpAddr) -> Option<u64> {
    let kind = pool.keyed.as_ref().map_or(pool.policy, |(kind, _)| *kind);
    let (ipv4_prefix, ipv6_prefix) = match (&pool.affinity, pool.balance) {
        (Some(Affinity::SourceIp { ipv4_prefix, ipv6_prefix }), _) => (*ipv4_prefix, *ipv6_prefix),
        (_, Balance::Maglev | Balance::RingHash) => (32, 64),
        (
            None | Some(Affinity::Cookie(_) | Affinity::Header(_) | Affinity::Query(_)),
            Balance::RoundRobin | Balance::Random | Balance::LeastRequest | Balance::PeakEwma,
        ) => return None,
    };
    Some(kind.key_of(&source_ip(visitor(), ipv4_prefix, ipv6_prefix)))
}

/// `ip` cut to a prefix: 4 or 6, then the network's address, zeros after it.
///
/// An IPv4 address mapped into IPv6 (`::ffff:a.b.c.d`) is the IPv4 address. Prefixes in bits; a longer one than the
/// address means all of it, 0 none.
#[must_use]
pub fn source_ip(ip: IpAddr, ipv4_prefix: u8, ipv6_prefix: u8) -> [u8; 17] {
    let mut bytes = [0; 17];
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(ipv4_prefix.into())).unwrap_or(0);
            bytes[0] = 4;
            bytes[1..5].copy_from_slice(&(ip.to_bits() & mask).to_be_bytes());
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(ipv6_prefix.into())).unwrap_or(0);
            bytes[0] = 6;
            bytes[1..].copy_from_slice(&(ip.to_bits() & mask).to_be_bytes());
        }
    }
    bytes
}
