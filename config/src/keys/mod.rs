//! The one table of keys. It drives the unknown-key check, ranges, defaults, the JSON Schema and the reference
//! page, so none of them can disagree with another.

mod acme;
mod affinity;
mod elsewhere;
mod frps;
mod health;
mod listeners;
mod pools;
mod process;
mod retry;
mod routes;
mod tls;
mod tunnels;

pub(crate) use acme::{ACME, EXTERNAL_ACCOUNT, ON_DEMAND};
pub(crate) use affinity::{AFFINITY, AFFINITY_COOKIE, SOURCE_IP};
pub(crate) use elsewhere::elsewhere;
pub(crate) use frps::{FRPS, FRPS_ADMIN, LIMITS as FRPS_LIMITS};
pub(crate) use health::{GRPC_CHECK, HEALTH, HTTP_CHECK, OUTLIER, SUCCESS_RATIO, TCP_CHECK};
pub(crate) use listeners::{LIMITS, LISTENER, TIMEOUTS};
pub(crate) use pools::{BALANCE, HOLD, LOCALITY, MEMBER, POOL, PREFER, SELECTOR};
pub(crate) use process::{ACCESS_LOG, ADMIN, ROOT, RUNTIME};
pub(crate) use retry::{ADAPTIVE, BACKOFF, BUDGET, HEDGE, HEDGE_BUDGET, POOL_LIMITS, QUEUE, RETRY};
pub(crate) use routes::{LIMITS as ROUTE_LIMITS, MATCH, PATH, ROUTE, ROUTE_POOL, VALUE};
pub(crate) use tls::{
    CERTIFICATE, CLIENT_AUTH, CLIENT_RULE, HSTS, HTTP2, OWN_CERTIFICATE, POOL_TLS, REDIRECT, TLS,
};
pub(crate) use tunnels::{
    AGENT, CLAIM_RULE, CLAIMS, FRPS_PLUGIN, METADATA, PLUGIN, TAKEOVER, TAKEOVER_RULE, TUNNEL_POOL,
    TUNNEL_SELECTOR, TUNNELS,
};

/// One map of the YAML.
#[derive(Debug)]
pub(crate) struct Section {
    /// Heading of the reference page: the path, `pools[].health`.
    pub(crate) title: &'static str,
    /// What it is, in a sentence or two.
    pub(crate) about: &'static str,
    /// Its keys, in the order of the reference page.
    pub(crate) keys: &'static [Key],
    /// Keys of later versions, with what to do meanwhile.
    pub(crate) planned: &'static [(&'static str, &'static str)],
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) need: Need,
    /// What it means. One sentence, no unit, default or range: those have columns of their own.
    pub(crate) meaning: &'static str,
}

/// Whether a key must be there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    Required,
    Optional,
    /// May be left out; then it is as if this were written: a scalar, or `{}`.
    Default(&'static str),
}

/// What a value may be.
#[derive(Debug)]
pub(crate) enum Kind {
    Text,
    Name,
    Secret,
    Host,
    Authority,
    Url,
    /// `https://…`, with a path.
    HttpsUrl,
    /// Of a file or folder.
    Path,
    /// A pattern for who a client's certificate is for.
    Identity,
    Address,
    Network,
    HostPattern,
    UrlPath,
    Regex,
    Method,
    Statuses,
    /// A token of HTTP: a header or cookie name.
    Token,
    /// A DNS name, no address.
    Domain,
    /// Name or value of a label.
    Label,
    Bool,
    /// Inclusive.
    Integer(u64, u64),
    /// Inclusive, milliseconds.
    Duration(u64, u64),
    /// Inclusive, milliseconds; or the word `off`.
    DurationOrOff(u64, u64),
    /// Inclusive, bytes.
    Size(u64, u64),
    /// Inclusive, percent: `20%` or `20`.
    Percent(u64, u64),
    /// Inclusive, percent, but written as a factor: `1.25`.
    Factor(u64, u64),
    /// One of these words; then words of later versions.
    Word(&'static [&'static str], &'static [&'static str]),
    /// `true`, nothing else.
    True,
    /// Name of an item of this section.
    Reference(&'static str),
    Section(&'static Section),
    List(&'static Self),
    OneOrMany(&'static Self),
    Either(&'static [Self]),
    /// Any key → this.
    Map(&'static Self),
}

impl Kind {
    /// The bounds of a number, of alternatives those of the first that has any; everything for what is none.
    pub(crate) fn range(&self) -> (u64, u64) {
        match self {
            Self::Integer(min, max)
            | Self::Duration(min, max)
            | Self::DurationOrOff(min, max)
            | Self::Size(min, max)
            | Self::Percent(min, max)
            | Self::Factor(min, max) => (*min, *max),
            Self::Either(kinds) => {
                kinds.iter().map(Self::range).find(|range| *range != UNBOUNDED).unwrap_or(UNBOUNDED)
            }
            Self::Text
            | Self::Name
            | Self::Secret
            | Self::Host
            | Self::Authority
            | Self::Url
            | Self::HttpsUrl
            | Self::Path
            | Self::Identity
            | Self::Address
            | Self::Network
            | Self::HostPattern
            | Self::UrlPath
            | Self::Regex
            | Self::Method
            | Self::Statuses
            | Self::Token
            | Self::Domain
            | Self::Label
            | Self::Bool
            | Self::Word(..)
            | Self::True
            | Self::Reference(_)
            | Self::Section(_)
            | Self::List(_)
            | Self::OneOrMany(_)
            | Self::Map(_) => UNBOUNDED,
        }
    }

    /// The words and the planned words, of alternatives those of the first that is a word.
    pub(crate) fn words(&self) -> Option<(&'static [&'static str], &'static [&'static str])> {
        match self {
            Self::Word(words, planned) => Some((words, planned)),
            Self::OneOrMany(kind) => kind.words(),
            Self::Either(kinds) => kinds.iter().find_map(Self::words),
            _ => None,
        }
    }
}

/// The range of what is no number.
const UNBOUNDED: (u64, u64) = (0, u64::MAX);

/// One hour in milliseconds.
const HOUR: u64 = 3_600_000;
/// One day in milliseconds.
const DAY: u64 = 24 * HOUR;
/// A duration that must be positive.
const POSITIVE: Kind = Kind::Duration(1, DAY);
/// A weight.
const WEIGHT: Kind = Kind::Integer(0, 1_000_000);
/// A count that bounds something.
const COUNT: Kind = Kind::Integer(1, 1_000_000);
/// The word that turns a thing off.
const OFF: Kind = Kind::Word(&["off"], &[]);
/// A port that something listens on.
const PORT: Kind = Kind::Integer(1, 65_535);

const fn required(name: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key { name, kind, need: Need::Required, meaning }
}

const fn optional(name: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key { name, kind, need: Need::Optional, meaning }
}

const fn defaults(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key { name, kind, need: Need::Default(default), meaning }
}
