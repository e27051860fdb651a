//! Which names an authority could give a certificate for by our challenges.

use std::net::IpAddr;

/// Longest name (RFC 1035 §2.3.4, as text).
const LONGEST: usize = 253;

/// Why a name can have no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is an IP address.
    #[error("it is an IP address")]
    Address,
    /// Neither http-01 nor tls-alpn-01 proves a wildcard.
    #[error("no challenge here proves a wildcard")]
    Wildcard,
    /// A name of the local network.
    #[error("it has no dot")]
    NoDot,
    /// It isn't what DNS allows for a host.
    #[error("it is no host name")]
    Malformed,
}

/// Whether this name (lower case, no final dot) could have one.
///
/// # Errors
/// Why not.
pub fn fit(name: &str) -> Result<(), Unfit> {
    if name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
        return Err(Unfit::Address);
    }
    if name.contains('*') {
        return Err(Unfit::Wildcard);
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if name.len() > LONGEST || !name.split('.').all(label) {
        return Err(Unfit::Malformed);
    }
    let Some((_, top)) = name.rsplit_once('.') else { return Err(Unfit::NoDot) };
    if top.bytes().all(|byte| byte.is_ascii_digit()) { Err(Unfit::Address) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_with_a_dot_can_have_a_certificate() {
        for good in ["a.test", "xn--bcher-kva.example", "1.a-b.c2", "a.b.c.d.e"] {
            assert_eq!(fit(good), Ok(()), "{good}");
        }
        let long = format!("{}.test", ["a23456789"; 30].join("."));
        let cases = [
            ("10.0.0.1", Unfit::Address),
            ("[::1]", Unfit::Address),
            ("::1", Unfit::Address),
            ("1.2.3", Unfit::Address),
            ("*.a.test", Unfit::Wildcard),
            ("localhost", Unfit::NoDot),
            ("", Unfit::Malformed),
            ("a..test", Unfit::Malformed),
            (".a.test", Unfit::Malformed),
            ("a.test.", Unfit::Malformed),
            ("-a.test", Unfit::Malformed),
            ("a_b.test", Unfit::Malformed),
            ("A.test", Unfit::Malformed),
            ("../../etc.passwd", Unfit::Malformed),
            ("a/b.test", Unfit::Malformed),
            (&long, Unfit::Malformed),
        ];
        for (name, why) in cases {
            assert_eq!(fit(name), Err(why), "{name}");
        }
    }
}
