//! Names of fields that the gateway treats in some way.

use super::token::{ONES, TOPS};

/// A field name, if it is one we care for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Known {
    /// Any other name.
    #[default]
    Other,
    /// `Host`
    Host,
    /// `Connection`
    Connection,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `TE`
    Te,
    /// `Trailer`
    Trailer,
    /// `Upgrade`
    Upgrade,
    /// `Keep-Alive`
    KeepAlive,
    /// `Proxy-Connection`
    ProxyConnection,
    /// `Proxy-Authenticate`
    ProxyAuthenticate,
    /// `Proxy-Authorization`
    ProxyAuthorization,
    /// `Expect`
    Expect,
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `X-Forwarded-Proto`
    XForwardedProto,
    /// `X-Forwarded-Host`
    XForwardedHost,
    /// `X-Forwarded-Port`
    XForwardedPort,
    /// `X-Gateway-Proto`
    XGatewayProto,
    /// `X-Real-IP`
    XRealIp,
    /// `Forwarded`
    Forwarded,
    /// `Via`
    Via,
    /// `Accept-Encoding`
    AcceptEncoding,
    /// `Content-Type`
    ContentType,
    /// `Content-Encoding`
    ContentEncoding,
    /// `Content-Range`
    ContentRange,
    /// `Server`
    Server,
    /// `Date`
    Date,
    /// `Retry-After`
    RetryAfter,
    /// `Authorization`
    Authorization,
    /// `Cookie`
    Cookie,
    /// `Set-Cookie`
    SetCookie,
    /// `Range`
    Range,
    /// `Cache-Control`
    CacheControl,
    /// `User-Agent`
    UserAgent,
    /// `X-Request-Id`
    XRequestId,
    /// `HTTP2-Settings`
    Http2Settings,
}

/// A name of at most 16 bytes in lower case, as two words that may overlap: the first eight bytes and the last eight.
/// Names of equal length are equal if their keys are.
type Key = (u64, u64);

const fn key(name: &[u8]) -> Key {
    if let (Some(head), Some(tail)) = (name.first_chunk(), name.last_chunk()) {
        return (lower(u64::from_le_bytes(*head)), lower(u64::from_le_bytes(*tail)));
    }
    if let (Some(head), Some(tail)) = (name.first_chunk(), name.last_chunk()) {
        let (head, tail) = (u32::from_le_bytes(*head), u32::from_le_bytes(*tail));
        return (lower(head as u64), lower(tail as u64));
    }
    let mut word = 0;
    let mut rest = name;
    while let [byte, others @ ..] = rest {
        word = word << 8 | *byte as u64;
        rest = others;
    }
    (lower(word), 0)
}

/// Eight bytes, the capital letters of ASCII among them in lower case.
const fn lower(word: u64) -> u64 {
    // With the top bits out of the way, sums stay within their bytes and show in the top bit which side of a limit they are.
    let low = word & !TOPS;
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let above_z = low + ONES * (0x7f - b'Z' as u64);
    word | ((from_a & !above_z & !word & TOPS) >> 2)
}

impl Known {
    /// Recognises a name in any case: at most four comparisons of two words each.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let candidates: &[(Key, Self)] = match name.len() {
            2 => const { &[(key(b"te"), Self::Te)] },
            3 => const { &[(key(b"via"), Self::Via)] },
            4 => const { &[(key(b"host"), Self::Host), (key(b"date"), Self::Date)] },
            5 => const { &[(key(b"range"), Self::Range)] },
            6 => {
                const {
                    &[
                        (key(b"cookie"), Self::Cookie),
                        (key(b"expect"), Self::Expect),
                        (key(b"server"), Self::Server),
                    ]
                }
            }
            7 => const { &[(key(b"trailer"), Self::Trailer), (key(b"upgrade"), Self::Upgrade)] },
            9 => const { &[(key(b"x-real-ip"), Self::XRealIp), (key(b"forwarded"), Self::Forwarded)] },
            10 => {
                const {
                    &[
                        (key(b"connection"), Self::Connection),
                        (key(b"user-agent"), Self::UserAgent),
                        (key(b"keep-alive"), Self::KeepAlive),
                        (key(b"set-cookie"), Self::SetCookie),
                    ]
                }
            }
            11 => const { &[(key(b"retry-after"), Self::RetryAfter)] },
            12 => {
                const { &[(key(b"content-type"), Self::ContentType), (key(b"x-request-id"), Self::XRequestId)] }
            }
            13 => {
                const {
                    &[
                        (key(b"content-range"), Self::ContentRange),
                        (key(b"authorization"), Self::Authorization),
                        (key(b"cache-control"), Self::CacheControl),
                    ]
                }
            }
            14 => {
                const {
                    &[
                        (key(b"content-length"), Self::ContentLength),
                        (key(b"http2-settings"), Self::Http2Settings),
                    ]
                }
            }
            15 => {
                const {
                    &[
                        (key(b"accept-encoding"), Self::AcceptEncoding),
                        (key(b"x-forwarded-for"), Self::XForwardedFor),
                        (key(b"x-gateway-proto"), Self::XGatewayProto),
                    ]
                }
            }
            16 => {
                const {
                    &[
                        (key(b"proxy-connection"), Self::ProxyConnection),
                        (key(b"x-forwarded-host"), Self::XForwardedHost),
                        (key(b"x-forwarded-port"), Self::XForwardedPort),
                        (key(b"content-encoding"), Self::ContentEncoding),
                    ]
                }
            }
            // Longer than a key, and rare.
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => return Self::TransferEncoding,
            17 if name.eq_ignore_ascii_case(b"x-forwarded-proto") => return Self::XForwardedProto,
            18 if name.eq_ignore_ascii_case(b"proxy-authenticate") => return Self::ProxyAuthenticate,
            19 if name.eq_ignore_ascii_case(b"proxy-authorization") => return Self::ProxyAuthorization,
            _ => return Self::Other,
        };
        let key = key(name);
        candidates.iter().find(|(candidate, _)| *candidate == key).map_or(Self::Other, |(_, known)| *known)
    }

    /// Ends at this hop by its nature (RFC 9110 §7.6.1). `Trailer` goes on: it announces what the forwarded body carries.
    #[must_use]
    pub const fn is_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::TransferEncoding
                | Self::Te
                | Self::Upgrade
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::Http2Settings
        )
    }

    /// Connection must not name it: RFC 9110 §7.6.1 forbids that for fields that are meant for all recipients, and nobody
    /// has a reason to name the framing fields. Some proxies delete it then and some don't: the message has two meanings.
    pub(super) const fn must_not_be_nominated(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::ContentLength
                | Self::TransferEncoding
                | Self::Expect
                | Self::XForwardedFor
                | Self::XForwardedProto
                | Self::XForwardedHost
                | Self::XForwardedPort
                | Self::XRealIp
                | Self::Forwarded
                | Self::Via
                | Self::Authorization
                | Self::Cookie
                | Self::SetCookie
                | Self::CacheControl
                | Self::ContentType
                | Self::ContentEncoding
                | Self::ContentRange
        )
    }

    /// Must not come after the content: it frames, routes, authenticates, or says what the content is (RFC 9110 §6.5.1),
    /// and recipients that merge trailers into the head would believe it.
    #[must_use]
    pub const fn is_forbidden_in_trailers(self) -> bool {
        self.is_hop()
            || self.must_not_be_nominated()
            || matches!(self, Self::Trailer | Self::Range | Self::AcceptEncoding | Self::RetryAfter)
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, lower};

    #[test]
    fn capital_letters_alone_become_small_ones_beside_any_other_byte() {
        for byte in 0..=255_u8 {
            for beside in [0, b'@', b'A', b'Z', b'[', b'a', 0x7f, 0x80, 0xc1, 0xff] {
                let mut bytes = [beside; 8];
                bytes[3] = byte;
                let expected = bytes.map(|byte| byte.to_ascii_lowercase());
                assert_eq!(
                    lower(u64::from_le_bytes(bytes)).to_le_bytes(),
                    expected,
                    "{byte:#x} beside {beside:#x}"
                );
            }
        }
    }

    #[test]
    fn names_are_known_in_any_case() {
        for (name, known) in [
            ("Host", Known::Host),
            ("Connection", Known::Connection),
            ("Content-Length", Known::ContentLength),
            ("Transfer-Encoding", Known::TransferEncoding),
            ("TE", Known::Te),
            ("Trailer", Known::Trailer),
            ("Upgrade", Known::Upgrade),
            ("Keep-Alive", Known::KeepAlive),
            ("Proxy-Connection", Known::ProxyConnection),
            ("Proxy-Authenticate", Known::ProxyAuthenticate),
            ("Proxy-Authorization", Known::ProxyAuthorization),
            ("Expect", Known::Expect),
            ("X-Forwarded-For", Known::XForwardedFor),
            ("X-Forwarded-Proto", Known::XForwardedProto),
            ("X-Forwarded-Host", Known::XForwardedHost),
            ("X-Forwarded-Port", Known::XForwardedPort),
            ("X-Real-IP", Known::XRealIp),
            ("Forwarded", Known::Forwarded),
            ("Via", Known::Via),
            ("Accept-Encoding", Known::AcceptEncoding),
            ("Content-Type", Known::ContentType),
            ("Content-Encoding", Known::ContentEncoding),
            ("Content-Range", Known::ContentRange),
            ("Server", Known::Server),
            ("Date", Known::Date),
            ("Retry-After", Known::RetryAfter),
            ("Authorization", Known::Authorization),
            ("Cookie", Known::Cookie),
            ("Set-Cookie", Known::SetCookie),
            ("Range", Known::Range),
            ("Cache-Control", Known::CacheControl),
            ("User-Agent", Known::UserAgent),
            ("X-Request-Id", Known::XRequestId),
            ("HTTP2-Settings", Known::Http2Settings),
        ] {
            for name in [name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                assert_eq!(Known::of(name.as_bytes()), known, "{name}");
                assert_eq!(Known::of(format!("{name}x").as_bytes()), Known::Other, "{name}x");
                assert_eq!(Known::of(&name.as_bytes()[1..]), Known::Other, "{name} without its first byte");
            }
        }
    }
}
