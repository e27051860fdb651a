//! All that is spoken with an frps: its admin API ([`admin`], [`poller`]), its calls to us as server plugin ([`plugin`]),
//! and what we make of a claim ([`claims`], [`takeover`], [`seal`]: pure).
//!
//! Polling is the truth about which tunnels are live (`docs/control-plane.md`). Nothing here decides: an answer becomes
//! an event of [`crate::control`].

pub mod admin;
pub mod ask;
pub mod claim;
pub mod claims;
pub mod decide;
pub mod heard;
pub mod plugin;
pub mod poller;
pub mod seal;
pub mod takeover;
pub mod watch;
pub mod wire;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::claim::{BasicAuth, HttpClaim, Rewrite};

/// The live proxies of one frps, sorted by name, so that equal listings are equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Proxies that are online. Names are unique.
    pub proxies: Vec<Proxy>,
    /// `subDomainHost` of frps, lower case; `None` when it has none or was not asked.
    pub subdomain_host: Option<String>,
}

/// One proxy that is online, as the admin API tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxy {
    /// `user.name` as frps lists it.
    pub name: String,
    /// Its type.
    pub kind: ProxyKind,
    /// User of FRP; empty when it has none, or with the v1 API, which doesn't tell.
    pub user: String,
    /// `clientID`, or the run id of a client without one; empty with the v1 API. Never logged: a run id is a secret.
    pub client_id: String,
    /// http, https, tcpmux: custom domains and `subdomain.subDomainHost`, lower case, sorted.
    pub domains: Vec<String>,
    /// Path prefixes; `[""]` when the proxy names none, as inside frps.
    pub locations: Vec<String>,
    /// Name of its FRP group; empty when it has none.
    pub group: String,
    /// What the frpc says about it.
    pub metadatas: BTreeMap<String, String>,
    /// tcp, udp: the port on frps.
    pub port: Option<u16>,
    /// The annotation that takeover left ([`claim::ANNOTATION`]), sealed. `None` on tunnels that weren't taken over.
    pub sealed: Option<String>,
    /// When it came up, as this API writes it: `lastStartAt` of v2 (unix seconds), `lastStartTime` of v1. Only compared.
    pub started: String,
}

/// Type of a proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyKind {
    /// `http`
    #[default]
    Http,
    /// `https`
    Https,
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
    /// `tcpmux`
    Tcpmux,
    /// `stcp`
    Stcp,
    /// `sudp`
    Sudp,
    /// `xtcp`
    Xtcp,
}

impl ProxyKind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Http, Self::Https, Self::Tcp, Self::Udp, Self::Tcpmux, Self::Stcp, Self::Sudp, Self::Xtcp];

    /// FRP's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Tcpmux => "tcpmux",
            Self::Stcp => "stcp",
            Self::Sudp => "sudp",
            Self::Xtcp => "xtcp",
        }
    }

    /// From FRP's word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}
