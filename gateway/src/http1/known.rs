//! Names of fields that the gateway treats in some way.

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

impl Known {
    /// Recognises a name in any case: its length first, then at most four comparisons.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let candidates: &[(&[u8], Self)] = match name.len() {
            2 => &[(b"te", Self::Te)],
            3 => &[(b"via", Self::Via)],
            4 => &[(b"host", Self::Host), (b"date", Self::Date)],
            5 => &[(b"range", Self::Range)],
            6 => &[(b"cookie", Self::Cookie), (b"expect", Self::Expect), (b"server", Self::Server)],
            7 => &[(b"trailer", Self::Trailer), (b"upgrade", Self::Upgrade)],
            9 => &[(b"x-real-ip", Self::XRealIp), (b"forwarded", Self::Forwarded)],
            10 => &[
                (b"connection", Self::Connection),
                (b"user-agent", Self::UserAgent),
                (b"keep-alive", Self::KeepAlive),
                (b"set-cookie", Self::SetCookie),
            ],
            11 => &[(b"retry-after", Self::RetryAfter)],
            12 => &[(b"content-type", Self::ContentType), (b"x-request-id", Self::XRequestId)],
            13 => &[
                (b"content-range", Self::ContentRange),
                (b"authorization", Self::Authorization),
                (b"cache-control", Self::CacheControl),
            ],
            14 => &[(b"content-length", Self::ContentLength), (b"http2-settings", Self::Http2Settings)],
            15 => &[
                (b"accept-encoding", Self::AcceptEncoding),
                (b"x-forwarded-for", Self::XForwardedFor),
                (b"x-gateway-proto", Self::XGatewayProto),
            ],
            16 => &[
                (b"proxy-connection", Self::ProxyConnection),
                (b"x-forwarded-host", Self::XForwardedHost),
                (b"x-forwarded-port", Self::XForwardedPort),
                (b"content-encoding", Self::ContentEncoding),
            ],
            17 => &[
                (b"transfer-encoding", Self::TransferEncoding),
                (b"x-forwarded-proto", Self::XForwardedProto),
            ],
            18 => &[(b"proxy-authenticate", Self::ProxyAuthenticate)],
            19 => &[(b"proxy-authorization", Self::ProxyAuthorization)],
            _ => return Self::Other,
        };
        candidates
            .iter()
            .find(|(candidate, _)| name.eq_ignore_ascii_case(candidate))
            .map_or(Self::Other, |(_, known)| *known)
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
    use super::Known;

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
