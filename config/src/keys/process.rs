//! Keys of the file itself and of the process.

use super::{
    ACME, AGENT, CLAIMS, FRPS, HOUR, Key, Kind, LISTENER, PLUGIN, POOL, ROUTE, Section, TAKEOVER, TUNNELS,
    defaults, optional, required,
};

const LATER: &str = "remove it; CHANGELOG.md will tell when it comes";

pub(crate) static ROOT: Section = Section {
    title: "",
    about: "The whole file. `frps` and `listeners` are enough: without `pools` there is one pool, `default`, of every \
            frps with a `vhost_http_port`; without `routes` the only pool gets every request. Where tunnels are routes \
            by themselves (`tunnels.serve`), a fleet without any `vhost_http_port` needs neither.",
    keys: &[
        optional(
            "zone",
            Kind::Name,
            "Zone that this gateway stands in: pools with `locality: prefer` prefer the frps of it.",
        ),
        optional("admin", Kind::Section(&ADMIN), "The operator's side: metrics, health, API."),
        optional("runtime", Kind::Section(&RUNTIME), "Threads and shutdown."),
        defaults("access_log", ACCESS_LOG_KIND, "off", "Where one JSON line per request goes."),
        required("frps", Kind::List(&Kind::Section(&FRPS)), "The fleet of FRP servers."),
        required(
            "listeners",
            Kind::List(&Kind::Section(&LISTENER)),
            "The addresses that visitors connect to; a file for `agent` alone needs none.",
        ),
        optional("pools", Kind::List(&Kind::Section(&POOL)), "Sets of endpoints under one policy."),
        optional("routes", Kind::List(&Kind::Section(&ROUTE)), "Which request goes to which pools."),
        defaults("tunnels", Kind::Section(&TUNNELS), "{}", "Live tunnels as routes by themselves."),
        optional("plugin", Kind::Section(&PLUGIN), "The listener that frps and agents call."),
        defaults("takeover", Kind::Section(&TAKEOVER), "{}", "Which proxies become private tcp ports."),
        defaults("claims", Kind::Section(&CLAIMS), "{}", "Who may claim what."),
        defaults(
            "audit",
            ACCESS_LOG_KIND,
            "off",
            "Where one JSON line per login, claim, refusal, takeover and loss of a tunnel goes.",
        ),
        optional(
            "agent",
            Kind::Section(&AGENT),
            "What `frp-gateway agent` does; the gateway doesn't read it.",
        ),
        optional("acme", Kind::Section(&ACME), "Certificates that renew themselves."),
    ],
    planned: &[("policy", LATER), ("trace", LATER), ("kubernetes", LATER)],
};

const ACCESS_LOG_KIND: Kind = Kind::Either(&[Kind::Text, Kind::Section(&ACCESS_LOG)]);

pub(crate) static ADMIN: Section = Section {
    title: "admin",
    about: "The admin listener: `/metrics`, `/healthz`, `/readyz` and the API.",
    keys: ADMIN_KEYS,
    planned: &[("tls", LATER), ("dashboard", LATER)],
};

const ADMIN_KEYS: &[Key] = &[
    defaults("listen", Kind::Address, "127.0.0.1:9900", "Address of the admin listener."),
    optional(
        "token",
        Kind::Secret,
        "Bearer token of the API; required when `listen` is not a loopback address.",
    ),
];

pub(crate) static RUNTIME: Section = Section {
    title: "runtime",
    about: "Process-wide settings, fixed at start.",
    keys: &[
        defaults("workers", Kind::Integer(0, 1024), "0", "Data-plane threads; 0 = one for each usable core."),
        defaults(
            "drain_timeout",
            Kind::Duration(0, HOUR),
            "30s",
            "How long a drain (shutdown, an upgrade, a removed listener) may take.",
        ),
        defaults(
            "drain_delay",
            Kind::Duration(0, HOUR),
            "0s",
            "How long a shutdown says \"not ready\" and still accepts, so that whoever sends visitors here can notice.",
        ),
        defaults(
            "upgrade_timeout",
            Kind::Duration(1000, HOUR),
            "60s",
            "How long an upgrade waits for the new process to be ready; the old one stays when it isn't.",
        ),
    ],
    planned: &[],
};

pub(crate) static ACCESS_LOG: Section = Section {
    title: "access_log",
    about: "Short form: `access_log: stdout`.",
    keys: &[required("output", Kind::Text, "`off`, `stdout`, or the absolute path of a file to append to.")],
    planned: &[("format", "remove it: lines are JSON"), ("sample", LATER)],
};
