//! Keys of what the gateway does with tunnels: plugin, takeover, claims, routes by themselves, agent.

use super::{AFFINITY, DAY, HOUR, Kind, POOL_LIMITS, POSITIVE, RETRY, Section, defaults, optional, required};

const LATER: &str = "remove it: it comes with tcp listeners; those proxies stay with frps for now";

pub(crate) static FRPS_PLUGIN: Section = Section {
    title: "frps[].plugin",
    about: "This frps calls us as its server plugin: \
            `[[httpPlugins]] name = \"gateway\", addr = \"HOST:9901\", path = \"/frps/SECRET\", \
            ops = [\"Login\", \"NewProxy\", \"CloseProxy\"]` in its frps.toml.",
    keys: &[required(
        "secret",
        Kind::Secret,
        "Last part of the path, by which we know who calls: 16 or more of A-Z a-z 0-9 - _, unique in the fleet.",
    )],
    planned: &[],
};

pub(crate) static PLUGIN: Section = Section {
    title: "plugin",
    about: "The listener that frps call as server plugin, and agents report to.",
    keys: &[
        defaults("listen", Kind::Address, "127.0.0.1:9901", "Its address."),
        required(
            "key",
            Kind::Secret,
            "Seals what frps stores for us, 32 characters or more; the same in all gateways and agents.",
        ),
        optional("old_key", Kind::Secret, "The key before: what it sealed is still believed."),
        optional(
            "allow",
            Kind::OneOrMany(&Kind::Network),
            "Who may connect; without it, loopback and private addresses.",
        ),
        optional(
            "agent_token",
            Kind::Secret,
            "Bearer token of agents, 16 characters or more; without it, none may report.",
        ),
    ],
    planned: &[("tls", "keep it on a private network for now")],
};

pub(crate) static TAKEOVER: Section = Section {
    title: "takeover",
    about: "Which proxies become private tcp ports, whose http work the gateway does. Needs `plugin`.",
    keys: &[
        defaults("http", Kind::Bool, "true", "Whether http proxies of which no rule speaks are taken over."),
        defaults(
            "https",
            Kind::Bool,
            "false",
            "Whether https proxies of which no rule speaks are: TLS still ends in the application, which can then be told its visitors by PROXY protocol.",
        ),
        optional("rules", Kind::List(&Kind::Section(&TAKEOVER_RULE)), "The first rule that fits decides."),
    ],
    planned: &[("tcp", LATER)],
};

pub(crate) static TAKEOVER_RULE: Section = Section {
    title: "takeover.rules[]",
    about: "All given conditions hold together; at least one is given.",
    keys: &[
        optional("frps", Kind::OneOrMany(&Kind::Reference("frps")), "On one of these frps."),
        optional(
            "users",
            Kind::OneOrMany(&Kind::Text),
            "Of one of these users of FRP; `*` stands for any characters.",
        ),
        optional(
            "domains",
            Kind::OneOrMany(&Kind::HostPattern),
            "Every domain of the proxy is one of these; `*.example.com` stands for all names below.",
        ),
        required("http", Kind::Bool, "Whether such http proxies are taken over."),
        defaults("https", Kind::Bool, "false", "Whether such https proxies are."),
    ],
    planned: &[("tcp", LATER)],
};

pub(crate) static CLAIMS: Section = Section {
    title: "claims",
    about: "Who may claim what. FRP itself lets every client claim every name.",
    keys: &[
        defaults(
            "default",
            Kind::Word(&["allow", "refuse"], &[]),
            "allow",
            "For users of whom no rule speaks.",
        ),
        defaults(
            "conflicts",
            Kind::Word(&["refuse", "share"], &[]),
            "refuse",
            "Two users, one domain and location: the later one is refused, or both serve.",
        ),
        optional(
            "rules",
            Kind::List(&Kind::Section(&CLAIM_RULE)),
            "The first rule whose users and frps fit decides.",
        ),
    ],
    planned: &[],
};

pub(crate) static CLAIM_RULE: Section = Section {
    title: "claims.rules[]",
    about: "What some users may claim. What isn't given isn't restricted.",
    keys: &[
        required(
            "users",
            Kind::OneOrMany(&Kind::Text),
            "Users of FRP; `*` stands for any characters, `\"\"` for no user.",
        ),
        optional("frps", Kind::OneOrMany(&Kind::Reference("frps")), "Only on these frps."),
        optional("token", Kind::Secret, "Their frpc show this as `metadatas.gw_token`."),
        optional("refuse", Kind::Text, "They may claim nothing, for this reason."),
        optional(
            "domains",
            Kind::OneOrMany(&Kind::HostPattern),
            "Domains; `*.example.com` stands for all names below; `[]` = none.",
        ),
        optional(
            "ports",
            Kind::OneOrMany(&Kind::Text),
            "Remote ports: `22`, `20000-20100`; `[]` = only those that frps chooses.",
        ),
        optional("max_weight", Kind::Integer(0, 65_535), "Largest `gw_weight`; more is refused."),
        optional(
            "metadata",
            Kind::OneOrMany(&METADATA),
            "Which of their `gw_` metadata counts; the rest is ignored; `[]` = none.",
        ),
    ],
    planned: &[],
};

/// What an frpc may say about its tunnel.
pub(crate) const METADATA: Kind =
    Kind::Word(&["weight", "zone", "priority", "protocol", "proxy_protocol", "labels"], &[]);

pub(crate) static TUNNELS: Section = Section {
    title: "tunnels",
    about: "Live http tunnels as routes by themselves: the most specific host first, then path; on a tie a route of \
            this file wins.",
    keys: &[
        optional(
            "serve",
            Kind::Bool,
            "Whether a live http tunnel is served without a route; without it, if some frps has a `plugin`.",
        ),
        optional(
            "listeners",
            Kind::OneOrMany(&Kind::Reference("listeners")),
            "On these listeners; without it, on all.",
        ),
        defaults(
            "timeout",
            Kind::DurationOrOff(1, DAY),
            "30s",
            "Longest wait for a response head, over all attempts.",
        ),
        defaults("pool", Kind::Section(&TUNNEL_POOL), "{}", "Settings of their pools."),
        defaults(
            "series",
            Kind::Integer(0, 10_000),
            "100",
            "Tunnels that get metrics of their own; the rest are counted together.",
        ),
    ],
    planned: &[],
};

pub(crate) static TUNNEL_POOL: Section = Section {
    title: "tunnels.pool",
    about: "Settings of the pools of tunnels that no pool of this file names, one per host and location.",
    keys: &[
        defaults(
            "balance",
            Kind::Either(&[super::pools::POLICY, Kind::Section(&super::BALANCE)]),
            "round_robin",
            "The rule that picks; weights apply to all.",
        ),
        optional(
            "affinity",
            Kind::Either(&[Kind::Word(&["source_ip"], &[]), Kind::Section(&AFFINITY)]),
            "Preference of one visitor for one tunnel; without it, none.",
        ),
        defaults(
            "slow_start",
            Kind::DurationOrOff(1, HOUR),
            "off",
            "Time in which a tunnel that joins grows to its full weight; `off` = at once.",
        ),
        defaults(
            "locality",
            Kind::Either(&[Kind::Word(&["ignore", "prefer"], &[]), Kind::Section(&super::LOCALITY)]),
            "ignore",
            "`prefer` = tunnels in the gateway's own zone serve as long as they can.",
        ),
        defaults(
            "hold",
            super::pools::HOLD_KIND,
            "3s",
            "How long a request waits while no tunnel can serve it and one was here a moment ago; `off` = not at all.",
        ),
        defaults("limits", Kind::Section(&POOL_LIMITS), "{}", "Bounds per tunnel."),
        defaults("retry", Kind::Section(&RETRY), "{}", "Retry rules."),
        defaults("connect_timeout", Kind::Duration(1, HOUR), "2s", "Deadline of one TCP connect."),
        defaults("keepalive", POSITIVE, "60s", "How long an unused connection to a tunnel is kept."),
        defaults(
            "fail_timeout",
            Kind::Duration(1, HOUR),
            "1s",
            "How long a tunnel stays out after a refused or timed-out connect (doubles up to 8 ×).",
        ),
        defaults(
            "absent_timeout",
            Kind::Duration(1, HOUR),
            "5s",
            "How long an frps stays out for a host and path where it said \"no such tunnel\".",
        ),
    ],
    planned: &[],
};

pub(crate) static TUNNEL_SELECTOR: Section = Section {
    title: "pools[].tunnels",
    about: "The members are the live tunnels that fit, each for itself: http tunnels, or those of the type that the \
            listeners which lead here speak (`tcp`, `udp`; https for `tls_passthrough`). All given conditions hold together; at \
            least one is given.",
    keys: &[
        optional(
            "domain",
            Kind::OneOrMany(&Kind::HostPattern),
            "They claim one of these domains, as written by the frpc.",
        ),
        optional("user", Kind::OneOrMany(&Kind::Text), "Users of FRP; `*` stands for any characters."),
        optional(
            "name",
            Kind::OneOrMany(&Kind::Text),
            "Names as frps lists them, `USER.NAME`; `*` stands for any characters.",
        ),
        optional("labels", Kind::Map(&Kind::Label), "All of these labels (`gw_label_NAME` of the frpc)."),
        optional("frps", Kind::OneOrMany(&Kind::Reference("frps")), "On one of these frps."),
    ],
    planned: &[],
};

pub(crate) static AGENT: Section = Section {
    title: "agent",
    about: "What `frp-gateway agent` does: answers one frps as its plugin, and tells the gateways. The gateway itself \
            doesn't read it.",
    keys: &[
        required("frps", Kind::Reference("frps"), "The frps beside it, one with a `plugin`."),
        defaults("listen", Kind::Address, "127.0.0.1:9911", "Address that this frps calls."),
        required(
            "gateways",
            Kind::OneOrMany(&Kind::Url),
            "`http://host:port` of each gateway's plugin listener.",
        ),
        optional("token", Kind::Secret, "`plugin.agent_token` of the gateways."),
    ],
    planned: &[],
};
