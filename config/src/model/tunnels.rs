//! What the gateway does with the tunnels it finds: takeover, claims, routes by themselves, and the agent.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use ipnet::IpNet;

use super::Pool;
use crate::secret::Secret;

/// The listener that frps call as server plugin, and agents report to.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// Its address. Default `127.0.0.1:9901`.
    pub listen: SocketAddr,
    /// Seals what frps stores for us; the same in all gateways and agents. At least 32 characters.
    pub key: Secret,
    /// The key before: what it sealed is still believed.
    pub old_key: Option<Secret>,
    /// Who may connect. Default loopback and private addresses.
    pub allow: Vec<IpNet>,
    /// Bearer token of agents; `None` = no agent may report.
    pub agent_token: Option<Secret>,
}

/// That an frps calls us as its server plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct FrpsPlugin {
    /// Last part of the path, by which we know who calls: `path = "/frps/SECRET"`. At least 16 characters of
    /// `A-Z a-z 0-9 - _`, unique in the fleet.
    pub secret: Secret,
}

/// Which proxies become private tcp ports. https and tcp stay with frps.
#[derive(Debug, Clone, PartialEq)]
pub struct Takeover {
    /// For http proxies of which no rule speaks. Default true.
    pub http: bool,
    /// For https proxies of which no rule speaks. Default false.
    pub https: bool,
    /// The first rule that fits decides.
    pub rules: Vec<TakeoverRule>,
}

/// One rule. All given conditions hold together; at least one is given.
#[derive(Debug, Clone, PartialEq)]
pub struct TakeoverRule {
    /// Names of frps; empty = every one.
    pub frps: Vec<String>,
    /// Users of FRP; empty = every one.
    pub users: Vec<Pattern>,
    /// Every domain of the proxy lies in one of these; empty = whatever domains.
    pub domains: Vec<DomainPattern>,
    /// Whether http proxies are taken over.
    pub http: bool,
    /// Whether https proxies are taken over. Default false.
    pub https: bool,
}

/// Who may claim what.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// Whether those may claim of whom no rule speaks. Default true.
    pub allow: bool,
    /// Whether two users may claim the same domain and location. Default false: the later one is refused.
    pub share: bool,
    /// The first rule whose users and frps fit decides.
    pub rules: Vec<ClaimRule>,
}

/// One rule about some users.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimRule {
    /// Users of FRP; at least one. The empty user is `""`.
    pub users: Vec<Pattern>,
    /// Names of frps; empty = every one.
    pub frps: Vec<String>,
    /// Their logins carry this as `metadatas.gw_token`; `None` = no login of theirs is looked at.
    pub token: Option<Secret>,
    /// They may claim nothing, for this reason.
    pub refuse: Option<String>,
    /// Domains they may claim; `None` = any.
    pub domains: Option<Vec<DomainPattern>>,
    /// Remote ports (tcp, udp) they may claim, inclusive ranges; `None` = any. Port 0 (frps chooses) is always allowed.
    pub ports: Option<Vec<(u16, u16)>>,
    /// Largest `gw_weight`; `None` = any. More is refused.
    pub max_weight: Option<u32>,
    /// Which metadata of theirs counts; the rest is ignored. `None` = all.
    pub metadata: Option<Vec<MetadataKey>>,
}

/// What an frpc may say about its tunnel in `metadatas`, under the prefix `gw_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetadataKey {
    /// `gw_weight`: 0 to 65,535.
    Weight,
    /// `gw_zone`.
    Zone,
    /// `gw_priority`: 0 to 7.
    Priority,
    /// `gw_protocol`: `h1` or `h2c`.
    Protocol,
    /// `gw_proxy_protocol`: `v1` or `v2`.
    ProxyProtocol,
    /// `gw_label_NAME`.
    Labels,
}

/// A text with `*` for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(pub String);

impl Pattern {
    /// Whether `text` fits. Compared byte for byte. O(pattern × text) at worst.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        // Greedy with one way back: the last `*` takes one character more whenever the rest doesn't fit.
        let (mut p, mut t, mut star) = (0, 0, None);
        while t < text.len() {
            if pattern.get(p) == Some(&b'*') {
                star = Some((p, t));
                p += 1;
            } else if pattern.get(p) == Some(&text[t]) {
                (p, t) = (p + 1, t + 1);
            } else if let Some((at, taken)) = star {
                star = Some((at, taken + 1));
                (p, t) = (at + 1, taken + 1);
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

/// A set of domains, lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DomainPattern {
    /// `*`: any.
    Any,
    /// `app.example.com`: this name alone.
    Exact(String),
    /// `*.example.com`: every name below `example.com` (stored), wildcards included, but not the bare name.
    Below(String),
}

impl DomainPattern {
    /// Whether `domain` (lower case; may itself be `*.suffix` or `*`) lies within. `*` lies within [`DomainPattern::Any`] alone.
    #[must_use]
    pub fn contains(&self, domain: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == domain,
            Self::Below(suffix) => {
                domain.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

/// Tunnels as routes by themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Tunnels {
    /// Whether a live http tunnel is served without a route. Default: true when some frps has a `plugin`.
    pub serve: bool,
    /// Names of the http listeners they are served on; empty = all.
    pub listeners: Vec<String>,
    /// Longest wait for a response head; `None` = unbounded. Default 30 s.
    pub timeout: Option<Duration>,
    /// Settings of their pools: named `auto`, without members, health checks or outlier rules.
    pub pool: Pool,
    /// Tunnels that get metrics of their own; the rest share `endpoint="other"`. Default 100.
    pub series: usize,
}

/// Which tunnels make up a pool. All given conditions hold together; at least one is given.
#[derive(Debug, Clone, PartialEq)]
pub struct TunnelSelector {
    /// The tunnel claims one of these domains (lower case, as written in frpc: `*.x` means the wildcard claim itself).
    pub domains: Vec<String>,
    /// Users of FRP.
    pub users: Vec<Pattern>,
    /// Names of the proxy as frps lists it: `USER.NAME`, or `NAME` without a user.
    pub names: Vec<Pattern>,
    /// All of these labels (`gw_label_NAME` of the frpc).
    pub labels: BTreeMap<String, String>,
    /// Names of frps; empty = every one.
    pub frps: Vec<String>,
}

/// What `frp-gateway agent` does: answers one frps as its plugin, and tells the gateways.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Name of the frps beside it: an entry of `frps` with a `plugin`.
    pub frps: String,
    /// Address that this frps calls. Default `127.0.0.1:9911`.
    pub listen: SocketAddr,
    /// `http://host:port` of each gateway's plugin listener.
    pub gateways: Vec<String>,
    /// Bearer token: `plugin.agent_token` of the gateways.
    pub token: Option<Secret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_globs_do() {
        let fits = |pattern: &str, text: &str| Pattern(pattern.into()).fits(text);
        assert!(
            fits("*", "") && fits("*", "a") && fits("a*", "a") && fits("a*c", "abbc") && fits("*b*", "abc")
        );
        assert!(fits("a*b*c", "aXbXbXc") && fits("", ""));
        assert!(!fits("", "a") && !fits("a*c", "abbd") && !fits("a", "ab") && !fits("*b", "abc"));
    }

    #[test]
    fn a_domain_lies_within_its_pattern() {
        let below = DomainPattern::Below("a.test".into());
        assert!(below.contains("x.a.test") && below.contains("x.y.a.test") && below.contains("*.a.test"));
        assert!(!below.contains("a.test") && !below.contains("xa.test") && !below.contains(".a.test"));
        assert!(!below.contains("*") && DomainPattern::Any.contains("*"));
    }
}
