//! Keys of a listener.

use super::{Kind, POSITIVE, Section, defaults, optional, required};

const NO_TLS: &str = "terminate TLS before the gateway for now, and name the terminator in trusted_proxies";

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
            Kind::Word(&["http"], &["https", "tcp", "udp", "tls_passthrough", "frp"]),
            "http",
            "What is spoken on it.",
        ),
        optional(
            "trusted_proxies",
            Kind::OneOrMany(&Kind::Network),
            "Peers whose `X-Forwarded-*` and `Forwarded` are believed and extended, not replaced.",
        ),
        optional("timeouts", Kind::Section(&TIMEOUTS), "Deadlines on the visitor's side."),
        optional("limits", Kind::Section(&LIMITS), "Bounds on what a visitor may send."),
    ],
    planned: &[
        ("tls", NO_TLS),
        ("pool", "write a route with \"listeners: [NAME]\" instead"),
        ("proxy_protocol", "remove it; X-Forwarded-For from trusted_proxies works"),
    ],
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
            "While a body flows or an upgraded connection is open: no byte in either direction.",
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
    ],
    planned: &[],
};
