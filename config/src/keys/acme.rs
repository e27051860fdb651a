//! Keys of certificates that renew themselves.

use super::{Kind, OFF, Section, defaults, optional, required};

pub(crate) static ACME: Section = Section {
    title: "acme",
    about: "Certificates that renew themselves (RFC 8555), for listeners with `tls: { acme: true }`.",
    keys: &[
        defaults(
            "directory",
            Kind::HttpsUrl,
            "https://acme-v02.api.letsencrypt.org/directory",
            "The authority's directory.",
        ),
        optional(
            "trust",
            Kind::Path,
            "PEM file with the authority that the directory's own certificate is checked by; without it, those of the \
             system.",
        ),
        optional("email", Kind::Text, "Where the authority may write to."),
        required(
            "storage",
            Kind::Path,
            "Folder of accounts, keys and certificates, an absolute path; several gateways may share it.",
        ),
        optional(
            "challenges",
            Kind::OneOrMany(&Kind::Word(&["http-01", "tls-alpn-01"], &["dns-01"])),
            "Ways to prove that a name is ours, in the order they are tried; without it, those that some listener can \
             answer.",
        ),
        optional(
            "names",
            Kind::OneOrMany(&Kind::Domain),
            "Names that get a certificate without being asked for. No wildcards: no challenge here proves them.",
        ),
        defaults(
            "on_demand",
            Kind::Either(&[OFF, Kind::Section(&ON_DEMAND)]),
            "{}",
            "Names that may get one when a client asks for them.",
        ),
        defaults(
            "per_user",
            Kind::Integer(1, 100_000),
            "50",
            "Certificates that the tunnels of one user of FRP may have.",
        ),
        optional(
            "external_account",
            Kind::Section(&EXTERNAL_ACCOUNT),
            "External account binding, where the authority wants it.",
        ),
        optional("profile", Kind::Text, "Profile of the authority; without it, its default."),
        optional(
            "from",
            Kind::OneOrMany(&Kind::Network),
            "Addresses from which challenges are answered; without it, everyone.",
        ),
        required("accept_terms", Kind::True, "You accept the terms of the authority."),
    ],
    planned: &[],
};

pub(crate) static ON_DEMAND: Section = Section {
    title: "acme.on_demand",
    about: "Names that may get a certificate when a client asks for them. No others do.",
    keys: &[
        defaults("routes", Kind::Bool, "true", "Hosts that routes name, wildcards not."),
        defaults("tunnels", Kind::Bool, "true", "Hosts that live tunnels claim."),
    ],
    planned: &[],
};

pub(crate) static EXTERNAL_ACCOUNT: Section = Section {
    title: "acme.external_account",
    about: "An account that exists at the authority already.",
    keys: &[
        required("key_id", Kind::Text, "Its key id."),
        required("hmac_key", Kind::Secret, "Its HMAC key, base64url."),
    ],
    planned: &[],
};
