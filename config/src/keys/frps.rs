//! Keys of an FRP server.

use super::{FRPS_PLUGIN, HOUR, Kind, PORT, Section, WEIGHT, defaults, optional, required};

pub(crate) static FRPS: Section = Section {
    title: "frps[]",
    about: "One FRP server. It needs a name, a host and at least one port or a `plugin`.",
    keys: &[
        required("name", Kind::Name, "Unique name: label in metrics and logs."),
        required("host", Kind::Host, "IP address or DNS name."),
        optional("zone", Kind::Name, "Zone, for locality."),
        optional(
            "labels",
            Kind::Map(&Kind::Label),
            "Labels by which pools select it: `{ version: v2, tier: gold }`. They hold no variables.",
        ),
        optional("control_port", PORT, "`bindPort` of frps."),
        optional(
            "token",
            Kind::Secret,
            "Its `auth.token`: a login that knows it replaces an older connection of the same client at once. Never sent anywhere.",
        ),
        optional("vhost_http_port", PORT, "`vhostHTTPPort` of frps: where pools send requests."),
        optional(
            "vhost_https_port",
            PORT,
            "`vhostHTTPSPort` of frps: where pools of `tls_passthrough` routes pass connections through.",
        ),
        defaults(
            "drain",
            Kind::Bool,
            "false",
            "It is being emptied: no new clients, no new requests where others can serve, its clients move away.",
        ),
        defaults(
            "weight",
            WEIGHT,
            "1",
            "Relative share in every pool that does not say otherwise; 0 = no new traffic.",
        ),
        optional("limits", Kind::Section(&LIMITS), "Bounds on all that goes through it."),
        optional("admin", Kind::Section(&FRPS_ADMIN), "The admin API of frps, asked which tunnels are live."),
        optional("plugin", Kind::Section(&FRPS_PLUGIN), "It calls us as its server plugin. Needs `admin`."),
        optional(
            "tunnel_host",
            Kind::Host,
            "Where its tunnels' ports are reached (`proxyBindAddr`); without it, `host`.",
        ),
        optional(
            "subdomain_host",
            Kind::Domain,
            "Its `subDomainHost`; without it, what its admin API tells.",
        ),
        optional(
            "not_found_marker",
            Kind::Text,
            "Text that this server's `custom404Page` contains and no application's page does; with it, only a 404 that \
             contains it is taken for frps's own.",
        ),
    ],
    planned: &[],
};

pub(crate) static LIMITS: Section = Section {
    title: "frps[].limits",
    about: "Bounds on all that goes through an frps, over all pools and tunnels; those of a pool are per member.",
    keys: &[
        optional(
            "in_flight",
            super::COUNT,
            "Requests in flight; at its limit it isn't picked; without it, unbounded.",
        ),
        optional(
            "connections",
            super::COUNT,
            "Open connections for visitors, kept ones included; at its limit only members with a kept connection are \
             picked; without it, unbounded.",
        ),
    ],
    planned: &[],
};

pub(crate) static FRPS_ADMIN: Section = Section {
    title: "frps[].admin",
    about: "How to reach the admin API (`webServer`) of an frps.",
    keys: &[
        required("url", Kind::Url, "`http://host:port`, without a path."),
        defaults("user", Kind::Text, "admin", "Basic-auth user."),
        required("password", Kind::Secret, "Basic-auth password."),
        defaults("interval", Kind::Duration(100, HOUR), "2s", "Time between two listings."),
    ],
    planned: &[],
};
