//! Keys of TLS, of HTTP/2 and of what a route says about them.

use super::{DAY, Kind, PORT, Section, defaults, optional, required};

/// Turns a thing on or off, where a map gives the details.
pub(super) const SWITCH: Kind = Kind::Word(&["on", "off"], &[]);

pub(crate) static TLS: Section = Section {
    title: "listeners[].tls",
    about: "TLS that ends at this listener. Certificates are chosen by the name that the client asks for: an exact name \
            first, then a wildcard. It needs `certificates`, or `acme: true`.",
    keys: &[
        optional(
            "certificates",
            Kind::List(&Kind::Section(&CERTIFICATE)),
            "The first is for clients that ask for a name that none has, or for no name.",
        ),
        defaults(
            "acme",
            Kind::Bool,
            "false",
            "Names without a certificate of their own get one by `acme` (at the top of the file).",
        ),
        defaults("min_version", Kind::Word(&["1.2", "1.3"], &[]), "1.2", "Oldest version that is spoken."),
        defaults("session_tickets", Kind::Bool, "true", "Clients may resume sessions; the keys rotate."),
        defaults(
            "unknown_name",
            Kind::Word(&["first", "refuse"], &[]),
            "first",
            "A client that asks for a name which has no certificate gets the first one, or its handshake ends.",
        ),
        optional(
            "client_auth",
            Kind::Section(&CLIENT_AUTH),
            "Certificates of clients; without it, none is asked for.",
        ),
    ],
    planned: &[],
};

pub(crate) static CERTIFICATE: Section = Section {
    title: "listeners[].tls.certificates[]",
    about: "A certificate and its key, as PEM files.",
    keys: &[
        required("cert", Kind::Path, "The chain, leaf first."),
        required("key", Kind::Path, "The private key."),
        optional("ocsp", Kind::Path, "An OCSP response (DER) that is stapled; without it, none."),
    ],
    planned: &[],
};

pub(crate) static CLIENT_AUTH: Section = Section {
    title: "listeners[].tls.client_auth",
    about: "Certificates of clients.",
    keys: &[
        defaults(
            "mode",
            Kind::Word(&["required", "optional"], &[]),
            "required",
            "Whether the handshake fails without one; with `optional`, routes can ask for one (`routes[].client`).",
        ),
        required(
            "trust",
            Kind::OneOrMany(&Kind::Path),
            "PEM files with the authorities that are trusted, all at once.",
        ),
        optional(
            "crl",
            Kind::OneOrMany(&Kind::Path),
            "PEM files with revocation lists; without it, nothing is revoked.",
        ),
        optional(
            "allow",
            Kind::OneOrMany(&Kind::Identity),
            "Who is let in; without it, everyone whose certificate is trusted.",
        ),
    ],
    planned: &[],
};

pub(crate) static HTTP2: Section = Section {
    title: "listeners[].http2",
    about: "HTTP/2 from visitors: by ALPN on `https`, with prior knowledge on `http`. Short forms: `on`, `off`.",
    keys: &[defaults(
        "max_streams",
        Kind::Integer(1, 1_000),
        "100",
        "Streams that one connection may have open.",
    )],
    planned: &[],
};

pub(crate) static REDIRECT: Section = Section {
    title: "routes[].redirect",
    about: "The same host, path and query by https, for visitors who come without TLS; others don't match the route. Short form: `redirect: https`.",
    keys: &[
        required("to", Kind::Word(&["https"], &[]), "Where to."),
        optional("port", PORT, "Port in the new address; without it, 443, which isn't written."),
        defaults(
            "status",
            Kind::Word(&["301", "302", "307", "308"], &[]),
            "308",
            "With 307 and 308 the method stays; with 301 and 302 browsers make a GET of a POST.",
        ),
    ],
    planned: &[],
};

pub(crate) static HSTS: Section = Section {
    title: "routes[].hsts",
    about: "`Strict-Transport-Security`, sent on `https` listeners alone. Short forms: `on`, `off`.",
    keys: &[
        defaults(
            "max_age",
            Kind::Duration(0, 3_650 * DAY),
            "365d",
            "How long browsers remember, whole seconds.",
        ),
        defaults("include_subdomains", Kind::Bool, "false", "Names below are meant as well."),
        defaults(
            "preload",
            Kind::Bool,
            "false",
            "The name may go into the lists that browsers are shipped with.",
        ),
    ],
    planned: &[],
};

pub(crate) static CLIENT_RULE: Section = Section {
    title: "routes[].client",
    about: "Whose requests are served; others get 403. Short form: `client: required`, everyone whose certificate is trusted.",
    keys: &[required("allow", Kind::OneOrMany(&Kind::Identity), "Who is let in.")],
    planned: &[],
};

pub(crate) static POOL_TLS: Section = Section {
    title: "pools[].tls",
    about: "TLS to the vhost ports of frps, where a proxy in front of them ends it. Short forms: `on`, `off`.",
    keys: &[
        optional(
            "trust",
            Kind::OneOrMany(&Kind::Path),
            "PEM files with the authorities that are trusted; without it, those of the system.",
        ),
        optional(
            "server_name",
            Kind::Host,
            "Name that is asked for, and that the member's certificate must be for; without it, `host` of the frps.",
        ),
        optional("certificate", Kind::Section(&OWN_CERTIFICATE), "Our own, where the member wants one."),
    ],
    planned: &[],
};

pub(crate) static OWN_CERTIFICATE: Section = Section {
    title: "pools[].tls.certificate",
    about: "A certificate and its key, as PEM files.",
    keys: &[
        required("cert", Kind::Path, "The chain, leaf first."),
        required("key", Kind::Path, "The private key."),
    ],
    planned: &[],
};
