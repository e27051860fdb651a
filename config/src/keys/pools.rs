//! Keys of a pool: members, policy, zones.

use super::{
    AFFINITY, COUNT, HEALTH, HOUR, Kind, OFF, OUTLIER, POOL_LIMITS, POOL_TLS, PORT, POSITIVE, RETRY, Section,
    TUNNEL_SELECTOR, WEIGHT, defaults, optional, required, tls::SWITCH,
};

/// The rules that pick.
pub(super) const POLICY: Kind =
    Kind::Word(&["round_robin", "random", "least_request", "peak_ewma", "maglev", "ring_hash"], &[]);

pub(crate) static POOL: Section = Section {
    title: "pools[]",
    about: "A set of endpoints under one policy.",
    keys: &[
        required("name", Kind::Name, "Unique name: label in metrics and logs."),
        defaults(
            "frps",
            Kind::Either(&[
                Kind::Word(&["all"], &[]),
                Kind::List(&Kind::Either(&[Kind::Reference("frps"), Kind::Section(&MEMBER)])),
                Kind::Section(&SELECTOR),
            ]),
            "all",
            "Members: names, or maps with a weight; `all` = every frps with a `vhost_http_port`; \
             `{ labels: { … } }` = those of them that have these labels.",
        ),
        optional(
            "tunnels",
            Kind::Section(&TUNNEL_SELECTOR),
            "Members: live tunnels, each for itself, instead of `frps`.",
        ),
        defaults(
            "balance",
            Kind::Either(&[POLICY, Kind::Section(&BALANCE)]),
            "round_robin",
            "The rule that picks; weights apply to all.",
        ),
        optional(
            "affinity",
            Kind::Either(&[Kind::Word(&["source_ip"], &[]), Kind::Section(&AFFINITY)]),
            "Preference of one visitor for one endpoint; without it, none.",
        ),
        defaults(
            "slow_start",
            Kind::DurationOrOff(1, HOUR),
            "off",
            "Time in which a member that joins or comes back grows to its full weight; `off` = at once.",
        ),
        defaults(
            "locality",
            Kind::Either(&[Kind::Word(&["ignore", "prefer"], &[]), Kind::Section(&LOCALITY)]),
            "ignore",
            "`prefer` = members in the gateway's own zone serve as long as they can.",
        ),
        defaults(
            "panic_threshold",
            Kind::Percent(0, 100),
            "0%",
            "Under this share of healthy members health is ignored, rather than all traffic sent to a few; 0% = never.",
        ),
        optional("health", Kind::Section(&HEALTH), "Active health checks; without it, none."),
        defaults(
            "outlier",
            Kind::Either(&[OFF, Kind::Section(&OUTLIER)]),
            "off",
            "Ejection of members by what real traffic shows; `{}` = on, as described there.",
        ),
        defaults(
            "hold",
            HOLD_KIND,
            "3s",
            "How long a request waits while no member can serve it and one was here a moment ago; `off` = not at all.",
        ),
        optional("port", PORT, "For `tcp` and `udp` listeners: the remote port on each frps of this pool."),
        optional(
            "proxy_protocol",
            Kind::Word(&["v1", "v2"], &[]),
            "For `tcp` and `tls_passthrough`: connections to members begin with this PROXY protocol header; without it, none.",
        ),
        defaults(
            "protocol",
            Kind::Word(&["h1", "h2c"], &[]),
            "h1",
            "What is spoken to members: HTTP/1.1, or HTTP/2 with prior knowledge, which gRPC needs; a tunnel may say \
             otherwise for itself (`metadatas.gw_protocol`).",
        ),
        optional(
            "tls",
            Kind::Either(&[SWITCH, Kind::Section(&POOL_TLS)]),
            "TLS to members that are frps; without it, none.",
        ),
        defaults("limits", Kind::Section(&POOL_LIMITS), "{}", "Bounds per member."),
        defaults("retry", Kind::Section(&RETRY), "{}", "Retry rules."),
        defaults("connect_timeout", Kind::Duration(1, HOUR), "2s", "Deadline of one TCP connect."),
        defaults("keepalive", POSITIVE, "60s", "How long an unused connection to an endpoint is kept."),
        defaults(
            "fail_timeout",
            Kind::Duration(1, HOUR),
            "1s",
            "How long an endpoint stays out after a refused or timed-out connect (doubles up to 8 ×).",
        ),
        defaults(
            "absent_timeout",
            Kind::Duration(1, HOUR),
            "5s",
            "How long an endpoint stays out for a host and path where its frps said \"no such tunnel\".",
        ),
    ],
    planned: &[],
};

/// How `hold` may be written.
pub(super) const HOLD_KIND: Kind = Kind::Either(&[Kind::DurationOrOff(1, 10 * 60_000), Kind::Section(&HOLD)]);

pub(crate) static HOLD: Section = Section {
    title: "pools[].hold",
    about: "Requests wait while every tunnel of theirs is away. Short form: the time alone.",
    keys: &[
        defaults("time", Kind::Duration(1, 10 * 60_000), "3s", "Longest wait of one request."),
        defaults("requests", COUNT, "1000", "Most requests that wait for this pool at a time."),
        defaults(
            "bytes",
            Kind::Size(1 << 10, 1 << 40),
            "16MiB",
            "Most bytes of heads and bodies that they hold together.",
        ),
    ],
    planned: &[],
};

pub(crate) static MEMBER: Section = Section {
    title: "pools[].frps[]",
    about: "One member of a pool. Short form: the name alone.",
    keys: &[
        required("name", Kind::Reference("frps"), "Name of an frps that has the port."),
        optional(
            "weight",
            WEIGHT,
            "Share within this pool; without it, the weight of the frps; 0 = no new traffic.",
        ),
        defaults(
            "priority",
            Kind::Integer(0, 7),
            "0",
            "0 is used first; members of a higher number stand by until no lower one is eligible.",
        ),
        optional("port", PORT, "For `tcp` and `udp` listeners: the remote port on this frps."),
    ],
    planned: &[],
};

pub(crate) static SELECTOR: Section = Section {
    title: "pools[].frps (by labels)",
    about: "Members are every frps that has a `vhost_http_port` and all of these labels.",
    keys: &[required("labels", Kind::Map(&Kind::Label), "Label names and their values; at least one.")],
    planned: &[],
};

pub(crate) static BALANCE: Section = Section {
    title: "pools[].balance",
    about: "Short form: the policy alone.",
    keys: &[
        required("policy", POLICY, "The rule that picks; weights apply to all."),
        defaults(
            "decay",
            Kind::Duration(10, HOUR),
            "2s",
            "`peak_ewma`: time in which what is known of a latency fades to 1/e.",
        ),
        defaults(
            "bound",
            Kind::Either(&[Kind::Factor(100, 10_000), OFF]),
            "1.25",
            "Hashing (`maglev`, `ring_hash`, or an affinity by header, query or source_ip): most requests in flight at \
             one member, as a multiple of its fair share; `off` = unbounded. Where connections are relayed (tcp, tls_passthrough) it is off unless given.",
        ),
    ],
    planned: &[],
};

pub(crate) static LOCALITY: Section = Section {
    title: "pools[].locality",
    about: "Short form: `locality: prefer`.",
    keys: &[required(
        "prefer",
        Kind::Section(&PREFER),
        "Members in the gateway's own zone serve as long as they can.",
    )],
    planned: &[],
};

pub(crate) static PREFER: Section = Section {
    title: "pools[].locality.prefer",
    about: "When other zones help out.",
    keys: &[defaults(
        "spill",
        Kind::Factor(100, 10_000),
        "1.4",
        "The own zone serves everything while its eligible weight × this is at least its whole weight; below, the rest \
         goes to other zones in proportion.",
    )],
    planned: &[],
};
