//! Keys of what bounds the work of a pool: limits, retries, hedging.

use super::{COUNT, DAY, HOUR, Kind, OFF, Section, defaults, optional, required};

/// A share of requests.
const SHARE: Kind = Kind::Percent(0, 100);

pub(crate) static POOL_LIMITS: Section = Section {
    title: "pools[].limits",
    about: "Bounds per member. A request that no member may take waits in the pool's queue.",
    keys: &[
        optional("connections", COUNT, "Most open connections to one endpoint; without it, unbounded."),
        optional("in_flight", COUNT, "Most requests in flight at one endpoint; without it, unbounded."),
        defaults(
            "queue",
            Kind::Either(&[OFF, Kind::Section(&QUEUE)]),
            "{}",
            "Where requests wait while every eligible endpoint is at its limit; `off` = they get 503 at once.",
        ),
        defaults(
            "adaptive",
            Kind::Either(&[OFF, Kind::Section(&ADAPTIVE)]),
            "off",
            "A limit of requests in flight that follows the latency; `{}` = on.",
        ),
    ],
    planned: &[],
};

pub(crate) static QUEUE: Section = Section {
    title: "pools[].limits.queue",
    about: "One per pool.",
    keys: &[
        defaults(
            "size",
            Kind::Integer(0, 1_000_000),
            "1000",
            "Most waiting requests; more get 503 at once. 0 = no queue.",
        ),
        defaults("timeout", Kind::Duration(1, HOUR), "1s", "Longest wait."),
    ],
    planned: &[],
};

pub(crate) static ADAPTIVE: Section = Section {
    title: "pools[].limits.adaptive",
    about: "Between which bounds the limit of one endpoint moves.",
    keys: &[
        defaults("min", COUNT, "4", "Never below."),
        defaults("max", COUNT, "1000", "Never above; at least `min`."),
    ],
    planned: &[],
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
        optional(
            "on",
            Kind::OneOrMany(&Kind::Statuses),
            "Statuses from 400 to 599 of answers to idempotent requests that are thrown away and asked for elsewhere: \
             `[502, 503]`, `\"500-599\"`; without it, none.",
        ),
        defaults(
            "budget",
            Kind::Either(&[SHARE, Kind::Section(&BUDGET)]),
            "{}",
            "Retries allowed; attempts that never reached an endpoint don't draw on it. Short form: the percent alone.",
        ),
        defaults(
            "backoff",
            Kind::Either(&[OFF, Kind::Section(&BACKOFF)]),
            "{}",
            "Wait before a retry that draws on the budget; `off` = none.",
        ),
        defaults(
            "hedge",
            Kind::Either(&[Kind::DurationOrOff(1, HOUR), Kind::Section(&HEDGE)]),
            "off",
            "A second attempt of an idempotent request before the first has failed. Short form: `after` alone.",
        ),
    ],
    planned: &[],
};

pub(crate) static BUDGET: Section = Section {
    title: "pools[].retry.budget",
    about: "How many retries are allowed. Short form: `budget: 20%`.",
    keys: &[
        defaults("percent", SHARE, "20%", "Of the requests of the last ten seconds."),
        defaults(
            "floor",
            Kind::Integer(0, 1_000_000),
            "3",
            "This many a second are allowed however few requests there are.",
        ),
    ],
    planned: &[],
};

pub(crate) static BACKOFF: Section = Section {
    title: "pools[].retry.backoff",
    about: "Waits that double, with full jitter: each is drawn between 0 and its bound.",
    keys: &[
        defaults("base", Kind::Duration(0, HOUR), "25ms", "Bound of the first wait; 0s = no wait."),
        defaults("max", Kind::Duration(0, HOUR), "250ms", "Bound of every wait; at least `base`."),
    ],
    planned: &[],
};

pub(crate) static HEDGE: Section = Section {
    title: "pools[].retry.hedge",
    about: "Hedging. Short form: `hedge: 300ms`.",
    keys: &[
        required(
            "after",
            Kind::Duration(1, HOUR),
            "Wait for the response head before the second attempt begins.",
        ),
        defaults(
            "budget",
            Kind::Either(&[SHARE, Kind::Section(&HEDGE_BUDGET)]),
            "{}",
            "Second attempts allowed. Short form: the percent alone.",
        ),
    ],
    planned: &[],
};

pub(crate) static HEDGE_BUDGET: Section = Section {
    title: "pools[].retry.hedge.budget",
    about: "How many second attempts are allowed. Short form: `budget: 10%`.",
    keys: &[
        defaults("percent", SHARE, "10%", "Of the requests of the last ten seconds."),
        defaults(
            "floor",
            Kind::Integer(0, 1_000_000),
            "1",
            "This many a second are allowed however few requests there are.",
        ),
    ],
    planned: &[],
};
