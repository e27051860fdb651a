//! What an frps tells about itself: the client of its admin API and the poller that keeps asking.
//!
//! Polling is the truth about which tunnels are live (`docs/control-plane.md`). Nothing here decides: an answer becomes
//! an event of [`crate::control`].

pub mod admin;
pub mod poller;
pub mod wire;

/// The live http proxies of one frps, sorted, so that equal listings are equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Proxies that are online.
    pub proxies: Vec<Proxy>,
}

/// One http proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proxy {
    /// `user.name` as frps lists it.
    pub name: String,
    /// Custom domains and `subdomain.subDomainHost`, lower case.
    pub domains: Vec<String>,
    /// Path prefixes; `[""]` when the proxy names none, as inside frps.
    pub locations: Vec<String>,
}
