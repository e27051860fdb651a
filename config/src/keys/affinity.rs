//! Keys of a pool's affinity.

use super::{DAY, Kind, Section, defaults, optional, required};

/// The longest life that browsers grant a cookie, milliseconds.
const LONGEST_COOKIE: u64 = 400 * DAY;

pub(crate) static AFFINITY: Section = Section {
    title: "pools[].affinity",
    about: "Exactly one of these. A cookie names an endpoint; the others pick one by a hash. \
            Short form: `affinity: source_ip`.",
    keys: &[
        optional("cookie", Kind::Section(&AFFINITY_COOKIE), "An encrypted cookie names the endpoint."),
        optional("header", Kind::Token, "Hash of this header field (any case)."),
        optional("query", Kind::Text, "Hash of this query parameter (as written)."),
        optional(
            "source_ip",
            Kind::Section(&SOURCE_IP),
            "Hash of the visitor's address: `{}` for the whole IPv4 address or the /64 of IPv6.",
        ),
    ],
    planned: &[],
};

pub(crate) static AFFINITY_COOKIE: Section = Section {
    title: "pools[].affinity.cookie",
    about: "The cookie names nothing that a visitor could read or forge. Gateways with the same key agree.",
    keys: &[
        defaults("name", Kind::Token, "gw", "Name of the cookie."),
        required(
            "key",
            Kind::Secret,
            "Seals new cookies; at least 32 characters; the same in all gateways that stand in for each other. \
             `head -c 32 /dev/urandom | base64` makes one.",
        ),
        optional(
            "old_key",
            Kind::Secret,
            "The key before: its cookies are still believed, and sealed anew. At least 32 characters.",
        ),
        optional(
            "ttl",
            Kind::Duration(1_000, LONGEST_COOKIE),
            "Longest life of a session; without it, until the browser is closed.",
        ),
        optional(
            "idle",
            Kind::Duration(1_000, LONGEST_COOKIE),
            "A session unused for this long ends; without it, never.",
        ),
        defaults("path", Kind::UrlPath, "/", "`Path` of the cookie."),
        optional("domain", Kind::Domain, "`Domain` of the cookie; without it, the host alone."),
        defaults(
            "secure",
            Kind::Word(&["auto", "always", "never"], &[]),
            "auto",
            "`Secure` of the cookie; `auto` = when the visitor speaks HTTPS, to the gateway or to a trusted proxy.",
        ),
        defaults("http_only", Kind::Bool, "true", "`HttpOnly` of the cookie."),
        defaults(
            "same_site",
            Kind::Word(&["lax", "strict", "none"], &[]),
            "lax",
            "`SameSite` of the cookie; browsers want `Secure` beside `none`.",
        ),
        defaults(
            "strict",
            Kind::Bool,
            "false",
            "Whether a request whose endpoint is gone gets 503 rather than another endpoint.",
        ),
    ],
    planned: &[],
};

pub(crate) static SOURCE_IP: Section = Section {
    title: "pools[].affinity.source_ip",
    about: "How much of the visitor's address counts.",
    keys: &[
        defaults("ipv4_prefix", Kind::Integer(1, 32), "32", "Bits of an IPv4 address."),
        defaults("ipv6_prefix", Kind::Integer(1, 128), "64", "Bits of an IPv6 address; 64 = one site."),
    ],
    planned: &[],
};
