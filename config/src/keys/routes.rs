//! Keys of a route.

use super::{
    CLIENT_RULE, DAY, HSTS, Kind, REDIRECT, Section, WEIGHT, defaults, optional, required, tls::SWITCH,
};

const LATER: &str = "remove it; CHANGELOG.md will tell when it comes";

pub(crate) static LIMITS: Section = Section {
    title: "routes[].limits",
    about: "Bounds on all requests of a route together; those of a pool are per member.",
    keys: &[optional(
        "in_flight",
        super::COUNT,
        "Requests in flight; more are answered 503 at once; without it, unbounded.",
    )],
    planned: &[],
};

pub(crate) static ROUTE: Section = Section {
    title: "routes[]",
    about: "Match → weighted pools. The most specific host wins, then the path; on a tie the earlier route.",
    keys: &[
        optional(
            "name",
            Kind::Name,
            "Unique name: label in metrics and logs; without it, `route-N`, N = position from 0.",
        ),
        optional(
            "match",
            Kind::Section(&MATCH),
            "What a request must look like; without it, every request matches.",
        ),
        optional(
            "pools",
            Kind::List(&Kind::Either(&[Kind::Reference("pools"), Kind::Section(&ROUTE_POOL)])),
            "Where it goes: names, or maps with a weight. Either this or `pool`.",
        ),
        optional("pool", Kind::Reference("pools"), "Short form of `pools` with one name."),
        defaults(
            "timeout",
            Kind::DurationOrOff(1, DAY),
            "30s",
            "Longest wait for a response head, over all attempts; `off` = unbounded.",
        ),
        optional(
            "listeners",
            Kind::OneOrMany(&Kind::Reference("listeners")),
            "Listeners this route is served on; without it, all.",
        ),
        optional("limits", Kind::Section(&LIMITS), "Bounds on all requests of this route."),
        optional(
            "redirect",
            Kind::Either(&[Kind::Word(&["https"], &[]), Kind::Section(&REDIRECT)]),
            "Visitors are sent elsewhere; then it has no pools.",
        ),
        optional(
            "hsts",
            Kind::Either(&[SWITCH, Kind::Section(&HSTS)]),
            "Browsers shall come by https from now on.",
        ),
        optional(
            "client",
            Kind::Either(&[Kind::Word(&["required"], &[]), Kind::Section(&CLIENT_RULE)]),
            "Only clients whose certificate is trusted (`listeners[].tls.client_auth`) are served; others get 403.",
        ),
    ],
    planned: &[
        ("hold", LATER),
        ("affinity", "write it into the pool: pools[].affinity"),
        ("retry", "write it into the pool: pools[].retry"),
        ("rewrite", LATER),
        ("headers", "write conditions under \"match: { headers: … }\"; changing headers comes later"),
    ],
};

pub(crate) static ROUTE_POOL: Section = Section {
    title: "routes[].pools[]",
    about: "A pool and its share of the route. Short form: the name alone.",
    keys: &[
        required("name", Kind::Reference("pools"), "Name of a pool."),
        defaults("weight", WEIGHT, "1", "Share of the route's requests; 0 = none."),
    ],
    planned: &[],
};

pub(crate) static MATCH: Section = Section {
    title: "routes[].match",
    about: "Conditions on a request. All that are given hold together.",
    keys: &[
        optional(
            "host",
            Kind::OneOrMany(&Kind::HostPattern),
            "Any of these hosts: `shop.example.com`, `*.example.com`.",
        ),
        defaults(
            "path",
            Kind::Either(&[Kind::UrlPath, Kind::Section(&PATH)]),
            "/",
            "The path; a text alone is a prefix.",
        ),
        optional("method", Kind::OneOrMany(&Kind::Method), "Any of these methods."),
        optional("headers", Kind::Map(&VALUE_KIND), "All of these header fields, by name (any case)."),
        optional("query", Kind::Map(&VALUE_KIND), "All of these query parameters, by name."),
        optional(
            "client",
            Kind::OneOrMany(&Kind::Identity),
            "The client's certificate is for any of these identities.",
        ),
    ],
    planned: &[("source_ip", LATER), ("cookie", LATER)],
};

const VALUE_KIND: Kind = Kind::Either(&[Kind::Text, Kind::Section(&VALUE)]);

pub(crate) static PATH: Section = Section {
    title: "routes[].match.path",
    about: "Exactly one of these. The path without the query, compared byte for byte, never decoded.",
    keys: &[
        optional("exact", Kind::UrlPath, "The path is exactly this."),
        optional(
            "prefix",
            Kind::UrlPath,
            "On a segment boundary: `/api` matches `/api` and `/api/x`, not `/apix`.",
        ),
        optional("regex", Kind::Regex, "The whole path matches (anchored at both ends)."),
    ],
    planned: &[],
};

pub(crate) static VALUE: Section = Section {
    title: "routes[].match.headers.*, routes[].match.query.*",
    about: "Exactly one of these. Short form of `exact`: the text alone.",
    keys: &[
        optional("exact", Kind::Text, "The value is exactly this."),
        optional("regex", Kind::Regex, "The whole value matches (anchored at both ends)."),
        optional("present", Kind::True, "The name is there, whatever its value."),
    ],
    planned: &[],
};
