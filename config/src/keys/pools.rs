//! Keys of a pool.

use super::{DAY, HOUR, Kind, POSITIVE, Section, WEIGHT, defaults, optional, required};

const LATER: &str = "remove it; CHANGELOG.md will tell when it comes";

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
            ]),
            "all",
            "Members: names, or maps with a weight; `all` = every frps with a `vhost_http_port`.",
        ),
        defaults(
            "balance",
            Kind::Word(&["round_robin", "random", "least_request"], &["peak_ewma", "maglev", "ring_hash"]),
            "round_robin",
            "The rule that picks; weights apply to all.",
        ),
        optional("health", Kind::Section(&HEALTH), "Active health checks; without it, none."),
        optional("retry", Kind::Section(&RETRY), "Retry rules."),
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
    planned: &[
        ("tunnels", "write \"frps: [NAME, …]\" for now: the pool then sends to their vhost ports"),
        ("affinity", LATER),
        ("outlier", "remove it; \"health\" and \"fail_timeout\" take dead endpoints out for now"),
        ("limits", LATER),
        ("hold", LATER),
        ("locality", "weigh the members instead: \"frps: [{ name: NAME, weight: 3 }, …]\""),
        ("slow_start", LATER),
        ("panic_threshold", LATER),
    ],
};

pub(crate) static MEMBER: Section = Section {
    title: "pools[].frps[]",
    about: "One member of a pool. Short form: the name alone.",
    keys: &[
        required("name", Kind::Reference("frps"), "Name of an frps that has a `vhost_http_port`."),
        optional(
            "weight",
            WEIGHT,
            "Share within this pool; without it, the weight of the frps; 0 = no new traffic.",
        ),
    ],
    planned: &[],
};

pub(crate) static HEALTH: Section = Section {
    title: "pools[].health",
    about: "Active health checks. Exactly one of `tcp` and `http`.",
    keys: &[
        optional("tcp", Kind::Section(&TCP_CHECK), "A probe is a TCP connect: `tcp: {}`."),
        optional("http", Kind::Section(&HTTP_CHECK), "A probe is an HTTP request; the status decides."),
        defaults("interval", Kind::Duration(10, HOUR), "2s", "Time between two probes."),
        defaults("timeout", Kind::Duration(1, HOUR), "1s", "Deadline of one probe."),
        defaults("rise", Kind::Integer(1, 100), "2", "Successes in a row that bring an endpoint back."),
        defaults("fall", Kind::Integer(1, 100), "3", "Failures in a row that take it out."),
    ],
    planned: &[],
};

pub(crate) static TCP_CHECK: Section =
    Section { title: "pools[].health.tcp", about: "No keys: `tcp: {}`.", keys: &[], planned: &[] };

pub(crate) static HTTP_CHECK: Section = Section {
    title: "pools[].health.http",
    about: "What an HTTP probe asks and which answer is a good one.",
    keys: &[
        required("host", Kind::Authority, "`Host` of the probe, so that it goes through a tunnel."),
        defaults("path", Kind::UrlPath, "/", "Path and query."),
        defaults(
            "expect",
            Kind::OneOrMany(&Kind::Statuses),
            "200-399",
            "Statuses that count as healthy: `200`, or an inclusive range `\"200-399\"`.",
        ),
    ],
    planned: &[("method", "remove it: probes are GET requests"), ("headers", LATER), ("body", LATER)],
};

pub(crate) static RETRY: Section = Section {
    title: "pools[].retry",
    about: "Retry rules. Only what can't have reached the application is sent again, or what may be repeated.",
    keys: &[
        defaults("attempts", Kind::Integer(0, 10), "2", "Attempts after the first; 0 = never."),
        optional(
            "per_try_timeout",
            Kind::Duration(1, DAY),
            "Deadline for the response head of one attempt; without it, only the route's timeout.",
        ),
    ],
    planned: &[("budget", LATER), ("on", LATER)],
};
