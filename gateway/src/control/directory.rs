//! The directory: every tunnel of every frps, and who claims which host. Pure: listings and hints in, a new value and the hosts
//! that changed out.
//!
//! A listing is the truth. Between listings single proxies are looked at; a plugin call alone changes nothing but that a tunnel
//! which is said to be closing becomes suspect: it is used only where nobody else serves, until somebody has looked.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use frp_gateway_config::model::{self, Carries, Claims, Config};
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use crate::{
    frps::{
        BasicAuth, HttpClaim, Proxy, ProxyKind,
        ask::Registration,
        claims::{self, ClaimAbout, TunnelSettings},
        seal::Seals,
    },
    snapshot::tunnels::key_of,
};

/// Tunnels of one frps, by name.
pub type Table = RedBlackTreeMapSync<Arc<str>, Arc<Tunnel>>;

/// Keys of hosts whose claimants changed.
pub type Touched = BTreeSet<Arc<str>>;

/// Who claims which host, by [`key_of`] the domain, as [`filed_under`] says. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    hosts: HashTrieMapSync<Arc<str>, Arc<Vec<Arc<Tunnel>>>>,
}

/// One tunnel.
#[derive(Debug, PartialEq)]
pub struct Tunnel {
    /// Name of its frps.
    pub frps: Arc<str>,
    /// What frps tells.
    pub proxy: Proxy,
    /// Live or suspect.
    pub phase: Phase,
    /// Since when it has been live, as far as we know.
    pub since: SystemTime,
    /// How visitors reach it.
    pub way: Way,
    /// What its frpc says about it, within what policy lets count.
    pub settings: TunnelSettings,
    /// Why it serves nothing here although it could; for people.
    pub fault: Option<String>,
}

/// Where a tunnel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// frps lists it.
    Live,
    /// It is said to be closing: not used where others are.
    Suspect,
}

impl Phase {
    /// As the API writes it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Suspect => "suspect",
        }
    }
}

/// How visitors reach a tunnel.
#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    /// By its own port: it was taken over, from http or https.
    Direct {
        /// What it claimed before.
        claim: Box<HttpClaim>,
        /// Whose port it is.
        registration: Arc<Registration>,
    },
    /// By its frps's vhost port.
    Vhost,
    /// TLS, unopened, by its frps's vhost port for it.
    VhostTls,
    /// By its own port, as its frpc asked for it: tcp and udp tunnels.
    Port {
        /// tcp or udp.
        carries: Carries,
        /// Whose port it is.
        registration: Arc<Registration>,
    },
    /// Not: another type, or refused.
    None,
}

impl Way {
    /// As the API writes it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Direct { .. } => "takeover",
            Self::Vhost => "vhost",
            Self::VhostTls => "vhost_https",
            Self::Port { .. } => "port",
            Self::None => "none",
        }
    }

    /// What reaches it this way.
    #[must_use]
    pub const fn carries(&self) -> Option<Carries> {
        match self {
            Self::Direct { claim, .. } if claim.tls => Some(Carries::Tls),
            Self::Direct { .. } | Self::Vhost => Some(Carries::Http),
            Self::VhostTls => Some(Carries::Tls),
            Self::Port { carries, .. } => Some(*carries),
            Self::None => None,
        }
    }

    /// Whose port is connected to; `None` = that of the vhost.
    #[must_use]
    pub const fn registration(&self) -> Option<&Arc<Registration>> {
        match self {
            Self::Direct { registration, .. } | Self::Port { registration, .. } => Some(registration),
            Self::Vhost | Self::VhostTls | Self::None => None,
        }
    }

    /// What it claimed before it was taken over.
    #[must_use]
    pub const fn claim(&self) -> Option<&HttpClaim> {
        match self {
            Self::Direct { claim, .. } => Some(claim),
            Self::Vhost | Self::VhostTls | Self::Port { .. } | Self::None => None,
        }
    }
}

impl Tunnel {
    /// User of FRP.
    #[must_use]
    pub fn user(&self) -> &str {
        self.way.claim().map_or(&self.proxy.user, |claim| &claim.user)
    }

    /// Domains it serves, or would.
    #[must_use]
    pub fn domains(&self) -> &[String] {
        self.way.claim().map_or(&self.proxy.domains, |claim| &claim.domains)
    }

    /// Path prefixes.
    #[must_use]
    pub fn locations(&self) -> &[String] {
        self.way.claim().map_or(&self.proxy.locations, |claim| &claim.locations)
    }

    /// Only for visitors of this basic-auth name; empty = for all. frps doesn't list it of its own.
    #[must_use]
    pub fn http_user(&self) -> &str {
        self.way.claim().map_or("", |claim| &claim.route_by_http_user)
    }

    /// FRP group and key, when it has a group.
    fn group(&self) -> Option<(&str, &str)> {
        // The key of one that wasn't taken over isn't listed; inside one frps it was checked.
        let claim = self.way.claim().filter(|claim| !claim.group.is_empty())?;
        Some((&claim.group, &claim.group_key))
    }

    /// What visitors have to know.
    #[must_use]
    pub fn auth(&self) -> Option<&BasicAuth> {
        self.way.claim()?.auth.as_ref()
    }

    /// Who came first: by what frps tells, else by when we saw it, else by name.
    fn age(&self) -> impl Ord + '_ {
        let seen = self.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let started = self.proxy.started.parse::<u64>().unwrap_or(seen);
        (started, &self.frps, &self.proxy.name)
    }

    /// The keys it is filed under.
    fn keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let carries = self.way.carries();
        let by_name = carries.filter(|carries| matches!(carries, Carries::Tcp | Carries::Udp));
        let by_domain = carries.filter(|_| by_name.is_none());
        let domains = by_domain.into_iter().flat_map(|carries| {
            // No host has a space in it, and one that an frpc makes up must not look like another kind of key.
            let sound = self.domains().iter().filter(|domain| !domain.contains(' '));
            sound.map(move |domain| filed_under(carries, key_of(domain)))
        });
        by_name.map(|carries| filed_under(carries, &self.proxy.name)).into_iter().chain(domains)
    }
}

/// What is needed to judge a listed proxy.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// In force.
    pub config: &'a Config,
    /// Opens our annotations; `None` = we are nobody's plugin.
    pub seals: Option<&'a Seals>,
    /// The frps that lists it.
    pub frps: &'a model::Frps,
    /// Now.
    pub now: SystemTime,
}

impl Judge<'_> {
    /// What a proxy that frps lists is to us. `before`: what it was.
    #[must_use]
    pub fn tunnel(&self, proxy: Proxy, before: Option<&Tunnel>) -> Tunnel {
        let since = before
            .filter(|before| before.proxy.started == proxy.started && before.proxy.sealed == proxy.sealed)
            .map_or(self.now, |before| before.since);
        let (mut way, mut fault) = self.way(&proxy, before);
        let user = way.claim().map_or(&proxy.user, |claim| &claim.user).clone();
        let settings = claims::settings(&self.config.claims, &self.frps.name, &user, &proxy.metadatas);
        if !matches!(way, Way::None) {
            let claimed = way.claim();
            let about = ClaimAbout {
                name: &proxy.name,
                user: &user,
                kind: claimed.map_or(proxy.kind, HttpClaim::kind),
                domains: claimed.map_or(&proxy.domains, |claim| &claim.domains),
                port: proxy.port.filter(|_| claimed.is_none()),
                metadatas: &proxy.metadatas,
            };
            if let Err(reason) = claims::check_claim(&self.config.claims, &self.frps.name, &about) {
                (way, fault) = (Way::None, Some(reason));
            }
        }
        let frps = before.map_or_else(|| self.frps.name.as_str().into(), |before| Arc::clone(&before.frps));
        Tunnel { frps, proxy, phase: Phase::Live, since, way, settings, fault }
    }

    fn way(&self, proxy: &Proxy, before: Option<&Tunnel>) -> (Way, Option<String>) {
        match proxy.kind {
            ProxyKind::Http if self.frps.vhost_http_port.is_some() => (Way::Vhost, None),
            ProxyKind::Http => {
                (Way::None, Some("it was not taken over, and this frps has no vhost_http_port here".into()))
            }
            ProxyKind::Tcp => match (&proxy.sealed, proxy.port) {
                (Some(sealed), Some(port)) => self.direct(proxy, sealed, port, before),
                (None, Some(port)) => (self.port(proxy, Carries::Tcp, port, before), None),
                (_, None) => (Way::None, Some("frps tells no port".into())),
            },
            ProxyKind::Udp => match proxy.port {
                Some(port) => (self.port(proxy, Carries::Udp, port, before), None),
                None => (Way::None, Some("frps tells no port".into())),
            },
            ProxyKind::Https if self.frps.vhost_https_port.is_some() => (Way::VhostTls, None),
            ProxyKind::Https | ProxyKind::Tcpmux | ProxyKind::Stcp | ProxyKind::Sudp | ProxyKind::Xtcp => {
                (Way::None, None)
            }
        }
    }

    fn port(&self, proxy: &Proxy, carries: Carries, port: u16, before: Option<&Tunnel>) -> Way {
        if let Some(Tunnel { way: way @ Way::Port { carries: known, registration }, .. }) = before
            && (*known, registration.port, &registration.started) == (carries, port, &proxy.started)
        {
            return way.clone();
        }
        let registration = Registration {
            name: proxy.name.clone(),
            port,
            sealed: String::new(),
            started: proxy.started.clone(),
        };
        Way::Port { carries, registration: Arc::new(registration) }
    }

    fn direct(
        &self,
        proxy: &Proxy,
        sealed: &str,
        port: u16,
        before: Option<&Tunnel>,
    ) -> (Way, Option<String>) {
        if let Some(Tunnel { way: way @ Way::Direct { .. }, proxy: known, .. }) = before
            && (&known.sealed, known.port, &known.started) == (&proxy.sealed, proxy.port, &proxy.started)
        {
            return (way.clone(), None);
        }
        let Some(seals) = self.seals else {
            return (
                Way::None,
                Some("it was taken over, and there is no plugin.key here to open its claim".into()),
            );
        };
        let Some(claim) = seals.open(&self.frps.name, &proxy.name, sealed) else {
            return (
                Way::None,
                Some("its claim can't be opened: sealed with another plugin.key, or forged".into()),
            );
        };
        let registration = Registration {
            name: proxy.name.clone(),
            port,
            sealed: sealed.to_owned(),
            started: proxy.started.clone(),
        };
        (Way::Direct { claim: Box::new(claim), registration: Arc::new(registration) }, None)
    }
}

impl Directory {
    /// Who claims the host of this key.
    #[must_use]
    pub fn claimants(&self, key: &str) -> &[Arc<Tunnel>] {
        self.hosts.get(key).map_or(&[], |all| all)
    }

    /// Everybody who claims a host; who claims several comes several times.
    pub fn tunnels(&self) -> impl Iterator<Item = &Arc<Tunnel>> {
        self.hosts.values().flat_map(|all| all.iter())
    }

    /// All hosts that are claimed.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.hosts.keys()
    }

    /// Puts `new` in place of the tunnel of that name, or takes it out. O(claimants of its hosts + log n).
    pub fn replace(&mut self, table: &mut Table, name: &str, new: Option<Tunnel>, touched: &mut Touched) {
        let old = table.get(name).cloned();
        if let (Some(old), Some(new)) = (&old, &new)
            && **old == *new
        {
            return;
        }
        let new = new.map(Arc::new);
        if let Some(old) = &old {
            for key in old.keys() {
                self.edit(&key, touched, |all| all.retain(|tunnel| !Arc::ptr_eq(tunnel, old)));
            }
        }
        match new {
            Some(new) => {
                for key in new.keys() {
                    self.edit(&key, touched, |all| all.push(Arc::clone(&new)));
                }
                table.insert_mut(name.into(), new);
            }
            None => {
                table.remove_mut(name);
            }
        }
    }

    fn edit(&mut self, key: &str, touched: &mut Touched, change: impl FnOnce(&mut Vec<Arc<Tunnel>>)) {
        let shared =
            self.hosts.get_key_value(key).map(|(key, _)| Arc::clone(key)).unwrap_or_else(|| key.into());
        let mut all = self.claimants(key).to_vec();
        change(&mut all);
        // Two gateways, or one before and after a restart, must agree on the order.
        all.sort_by(|one, other| (&one.frps, &one.proxy.name).cmp(&(&other.frps, &other.proxy.name)));
        if all.is_empty() {
            self.hosts.remove_mut(key);
        } else {
            self.hosts.insert_mut(Arc::clone(&shared), Arc::new(all));
        }
        touched.insert(shared);
    }
}

/// Tunnels that serve one location of a host for one basic-auth user (or for all).
#[derive(Debug)]
pub struct Group<'a> {
    /// String prefix of the path.
    pub location: &'a str,
    /// Basic-auth user; empty = all.
    pub user: &'a str,
    /// Who serves it.
    pub tunnels: Vec<&'a Arc<Tunnel>>,
    /// Who claims it too, and may not: it belongs to another user.
    pub losers: Vec<&'a Arc<Tunnel>>,
}

/// Settles who serves what of a host: for a user before for all, then locations in descending order (frps's rule).
///
/// Within a group, the user whose tunnel is the oldest owns it, with those who share his FRP group and its key. Suspect tunnels
/// count only where no live one is left.
#[must_use]
pub fn settle<'a>(claimants: &'a [Arc<Tunnel>], claims: &Claims) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Arc<Tunnel>>> = BTreeMap::new();
    for tunnel in claimants {
        for location in tunnel.locations() {
            groups.entry((tunnel.http_user(), location)).or_default().push(tunnel);
        }
    }
    let mut settled: Vec<_> = groups
        .into_iter()
        .map(|((user, location), all)| {
            let (mut tunnels, losers): (Vec<_>, Vec<_>) = if claims.share {
                (all, Vec::new())
            } else {
                let owner = all
                    .iter()
                    .min_by(|one, other| one.age().cmp(&other.age()))
                    .map(|owner| Arc::clone(owner));
                all.into_iter().partition(|tunnel| {
                    owner.as_ref().is_some_and(|owner| {
                        owner.user() == tunnel.user()
                            || (owner.group().is_some_and(|(_, key)| !key.is_empty())
                                && owner.group() == tunnel.group())
                    })
                })
            };
            if tunnels.iter().any(|tunnel| tunnel.phase == Phase::Live) {
                tunnels.retain(|tunnel| tunnel.phase == Phase::Live);
            }
            Group { location, user, tunnels, losers }
        })
        .collect();
    settled.sort_by(|one, other| {
        (one.user.is_empty(), other.location).cmp(&(other.user.is_empty(), one.location))
    });
    settled
}

/// Where tunnels of a kind are filed: http ones under the host's own key, the rest behind a word and a space, which no host
/// has. tcp and udp ones by their name.
#[must_use]
pub fn filed_under(carries: Carries, key: &str) -> Cow<'_, str> {
    match carries {
        Carries::Http => Cow::Borrowed(key),
        Carries::Tls | Carries::Tcp | Carries::Udp => Cow::Owned(format!("{} {key}", carries.word())),
    }
}

/// Tunnels of which kind are filed under `key`.
#[must_use]
pub fn carried_at(key: &str) -> Carries {
    let begins =
        |carries: &Carries| key.strip_prefix(carries.word()).is_some_and(|rest| rest.starts_with(' '));
    [Carries::Tls, Carries::Tcp, Carries::Udp].into_iter().find(begins).unwrap_or(Carries::Http)
}

/// Whether a pool that selects tunnels selects this one, if it is of the type that the pool carries.
#[must_use]
pub fn selects(selector: &model::TunnelSelector, tunnel: &Tunnel) -> bool {
    let any = |patterns: &[model::Pattern], text: &str| {
        patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(text))
    };
    !matches!(tunnel.way, Way::None)
        && (selector.frps.is_empty() || selector.frps.iter().any(|frps| **frps == *tunnel.frps))
        && (selector.domains.is_empty()
            || selector.domains.iter().any(|domain| tunnel.domains().contains(domain)))
        && any(&selector.users, tunnel.user())
        && any(&selector.names, &tunnel.proxy.name)
        && selector.labels.iter().all(|(name, value)| tunnel.settings.labels.get(name) == Some(value))
}

#[cfg(test)]
mod tests;
