//! Keys of a listener.

use super::{HTTP2, Kind, POSITIVE, Section, TLS, defaults, optional, required, tls::SWITCH};

pub(crate) static LISTENER: Section = Section {
    title: "listeners[]",
    about: "One bound address.",
    keys: &[
        required("name", Kind::Name, "Unique name: label in metrics and logs."),
        required(
            "bind",
            Kind::Address,
            "Address; port 0 lets the system choose (the log and the API tell which).",
        ),
        defaults(
            "protocol",
            Kind::Word(&["http", "https", "tcp", "tls_passthrough", "udp", "frp"], &[]),
            "http",
            "What is spoken on it. One `https` and one `tls_passthrough` listener may have the same address: names that \
             the latter knows are passed through.",
        ),
        optional(
            "trusted_proxies",
            Kind::OneOrMany(&Kind::Network),
            "Peers whose `X-Forwarded-*` and `Forwarded` are believed and extended, not replaced.",
        ),
        optional(
            "pool",
            Kind::Reference("pools"),
            "`tcp`, `udp`: where everything goes; `tls_passthrough`: what no route takes, and connections without a \
             server name.",
        ),
        optional(
            "proxy_protocol",
            Kind::OneOrMany(&Kind::Network),
            "Peers that begin each connection with a PROXY protocol header (v1 or v2), and must; not for `udp`.",
        ),
        optional(
            "frps",
            Kind::OneOrMany(&Kind::Reference("frps")),
            "`frp`: where clients are placed; without it, every frps with a `control_port`.",
        ),
        optional(
            "place",
            Kind::Word(&["least_tunnels", "least_clients", "source_ip"], &[]),
            "`frp`: the rule that places a client; without it, `least_tunnels`. Weights apply to all.",
        ),
        optional(
            "together",
            Kind::Word(&["nobody", "user", "source_ip"], &[]),
            "`frp`: which clients are kept on one frps, as stcp, sudp and xtcp need it; without it, `nobody`.",
        ),
        optional(
            "tls",
            Kind::Section(&TLS),
            "`https` (required there): certificates; `frp`: TLS ends here, and frps are spoken to in plain; without it, it is passed through.",
        ),
        optional(
            "http2",
            Kind::Either(&[SWITCH, Kind::Section(&HTTP2)]),
            "HTTP/2: on `https` unless it is `off`, on `http` (prior knowledge) if it is `on`.",
        ),
        optional("timeouts", Kind::Section(&TIMEOUTS), "Deadlines on the visitor's side."),
        optional("limits", Kind::Section(&LIMITS), "Bounds on what a visitor may send."),
    ],
    planned: &[],
};

pub(crate) static TIMEOUTS: Section = Section {
    title: "listeners[].timeouts",
    about: "Deadlines on the visitor's side.",
    keys: &[
        defaults("header", POSITIVE, "10s", "From the first byte of a request head to its end."),
        defaults("idle", POSITIVE, "75s", "A keep-alive connection without a request."),
        defaults(
            "stream_idle",
            POSITIVE,
            "5m",
            "While a body flows, an upgraded connection or one of `tcp` and `tls_passthrough` is open: no byte in either direction. \
             Ends a session of `udp`, where the default is 60s.",
        ),
    ],
    planned: &[],
};

pub(crate) static LIMITS: Section = Section {
    title: "listeners[].limits",
    about: "Bounds on what a visitor may send.",
    keys: &[
        defaults("head_bytes", Kind::Size(1 << 10, 1 << 20), "32KiB", "Request line and fields together."),
        defaults(
            "request_line_bytes",
            Kind::Size(256, 1 << 20),
            "8KiB",
            "Request line; at most `head_bytes`.",
        ),
        defaults("headers", Kind::Integer(1, 1_000), "100", "Number of header fields."),
        optional("body_bytes", Kind::Size(0, u64::MAX), "Largest request body; without it, unbounded."),
        defaults(
            "connections",
            Kind::Integer(1, 10_000_000),
            "100000",
            "Open connections; more are accepted and closed at once.",
        ),
        optional(
            "in_flight",
            super::COUNT,
            "Requests in flight; more are answered 503 at once; without it, unbounded. `http` and `https` alone.",
        ),
    ],
    planned: &[],
};
