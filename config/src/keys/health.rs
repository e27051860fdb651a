//! Keys of what keeps bad members out: active checks and ejection.

use super::{DAY, HOUR, Kind, OFF, Section, defaults, optional, required};

pub(crate) static HEALTH: Section = Section {
    title: "pools[].health",
    about: "Active health checks. Exactly one of `tcp`, `http` and `grpc`.",
    keys: &[
        optional("tcp", Kind::Section(&TCP_CHECK), "A probe is a TCP connect: `tcp: {}`."),
        optional("http", Kind::Section(&HTTP_CHECK), "A probe is an HTTP request; status and body decide."),
        optional(
            "grpc",
            Kind::Section(&GRPC_CHECK),
            "A probe is a call of the gRPC health protocol; for pools of tunnels that are taken over.",
        ),
        defaults("interval", Kind::Duration(10, HOUR), "2s", "Time between two probes."),
        optional(
            "fast_interval",
            Kind::Duration(10, HOUR),
            "Time between two probes while the last result speaks against the verdict; without it, a quarter of \
             `interval`.",
        ),
        defaults(
            "jitter",
            Kind::Percent(0, 50),
            "10%",
            "Each interval is lengthened or shortened by up to this.",
        ),
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
        optional(
            "body",
            Kind::Text,
            "Text that the first 64 KiB of the body must contain; without it, the body is not looked at.",
        ),
    ],
    planned: &[
        ("method", "remove it: probes are GET requests"),
        ("headers", "remove it; CHANGELOG.md will tell when it comes"),
    ],
};

pub(crate) static GRPC_CHECK: Section = Section {
    title: "pools[].health.grpc",
    about: "What a gRPC probe asks (`grpc.health.v1.Health/Check`); `SERVING` is the one good answer. `grpc: {}` asks about \
            the server as a whole.",
    keys: &[
        defaults("host", Kind::Authority, "localhost", "`:authority` of the call."),
        optional("service", Kind::Text, "The service asked about; without it, the server as a whole."),
    ],
    planned: &[],
};

pub(crate) static OUTLIER: Section = Section {
    title: "pools[].outlier",
    about: "Ejection of members by what real traffic shows. `outlier: {}` turns it on.",
    keys: &[
        defaults(
            "consecutive_failures",
            Kind::Integer(0, 1000),
            "5",
            "Failures in a row (5xx but 501 and 505, or a broken attempt) that eject; 0 = never.",
        ),
        defaults(
            "consecutive_gateway_errors",
            Kind::Integer(0, 1000),
            "3",
            "Gateway errors in a row (502, 503, 504, or a broken attempt) that eject; 0 = never.",
        ),
        defaults(
            "success_ratio",
            Kind::Either(&[RATIO, OFF, Kind::Section(&SUCCESS_RATIO)]),
            "{}",
            "Ejection by the share of successes. Short form: the minimum alone.",
        ),
        defaults(
            "latency_factor",
            Kind::Either(&[Kind::Factor(150, 100_000), OFF]),
            "off",
            "A member whose mean latency over `window` is this many times the median of the others is ejected.",
        ),
        defaults("window", Kind::Duration(100, HOUR), "10s", "What ratios and means are taken over."),
        defaults(
            "base_ejection",
            Kind::Duration(1, DAY),
            "10s",
            "First time out. Grows by itself with each ejection.",
        ),
        defaults("max_ejection", Kind::Duration(1, DAY), "5m", "Longest time out; at least `base_ejection`."),
        defaults(
            "max_ejected",
            Kind::Percent(0, 100),
            "50%",
            "Most members out at once, of their number; one may always be out where there are two.",
        ),
    ],
    planned: &[],
};

const RATIO: Kind = Kind::Percent(1, 100);

pub(crate) static SUCCESS_RATIO: Section = Section {
    title: "pools[].outlier.success_ratio",
    about: "Ejection by the share of successes. Short form: `success_ratio: 80%`.",
    keys: &[
        defaults(
            "minimum",
            RATIO,
            "80%",
            "A member under this is ejected, if the others together do better.",
        ),
        defaults(
            "min_requests",
            Kind::Integer(1, 1_000_000),
            "20",
            "Requests in the window without which nothing is concluded.",
        ),
    ],
    planned: &[],
};
