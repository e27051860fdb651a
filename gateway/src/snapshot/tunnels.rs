//! Which frps holds which host, and what tunnels serve by themselves: one look-up per request.
//!
//! For pools of vhost ports a listing is a preference, not a filter: a tunnel may be a moment younger than the last poll.
//! Matching follows frps: exact name, then `*.` wildcards from the longest suffix, then `*`; locations are plain string
//! prefixes, and at each level routes for the visitor's basic-auth user go first.
//!
//! The table is persistent (a hash trie): a changed host costs O(log n), whatever the size of the fleet, and requests that
//! hold an older one keep it.

use std::{borrow::Cow, sync::Arc, time::Duration};

use frp_gateway_config::model::Hold;
use lb_algos::Tick;
use rpds::HashTrieMapSync;

use super::router::{Request, Route, Split};

/// All known hosts. The key of `*.suffix` is `.suffix`; that of `*` is `*`.
type Hosts = HashTrieMapSync<Arc<str>, Arc<Host>, foldhash::fast::RandomState>;

/// What is known of every host.
#[derive(Debug, Clone)]
pub struct Tunnels {
    hosts: Hosts,
    /// Of https tunnels, by the same keys.
    tls: Hosts,
    /// What all tunnel routes have in common: their name and timeout.
    pub route: Arc<Route>,
    /// Whether, and how long, requests wait for hosts that are away.
    pub hold: Option<Hold>,
    /// Any route is for one basic-auth user only.
    by_user: bool,
    /// Hosts that nobody claims any more, and since when.
    away: HashTrieMapSync<Arc<str>, Tick, foldhash::fast::RandomState>,
}

/// How long a host whose last tunnel went is told apart from one that nobody knows.
pub const AWAY: Duration = Duration::from_secs(60);

/// What the keys of https tunnels begin with: hosts of two kinds have nothing to do with each other.
pub const TLS: &str = "tls ";

/// What is known of one host.
#[derive(Debug, Default)]
pub struct Host {
    /// frps whose own vhost serves it.
    pub holders: Vec<Holder>,
    /// What is served without a configured route: for a user before for all, then locations in descending order.
    pub routes: Vec<TunnelRoute>,
    /// Tunnels (frps, name) that claim what somebody else has.
    pub losers: Vec<(Arc<str>, Arc<str>)>,
}

/// One http proxy of one frps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Index of the frps, as in [`super::Member::frps`].
    pub frps: u32,
    /// String prefixes of the path; frps uses `""` when the proxy names none.
    pub locations: Vec<Box<str>>,
}

/// A host's location with the tunnels that serve it.
#[derive(Debug)]
pub struct TunnelRoute {
    /// String prefix of the path.
    pub location: Box<str>,
    /// Only for this basic-auth user; empty = for all.
    pub user: Box<str>,
    /// The pool of its tunnels.
    pub split: Split,
}

impl Default for Tunnels {
    fn default() -> Self {
        Self {
            hosts: Hosts::new_with_hasher_and_ptr_kind(foldhash::fast::RandomState::default()),
            tls: Hosts::new_with_hasher_and_ptr_kind(foldhash::fast::RandomState::default()),
            route: Arc::new(Route::of_tunnels(Some(Duration::from_secs(30)))),
            hold: None,
            by_user: false,
            away: HashTrieMapSync::new_with_hasher_and_ptr_kind(foldhash::fast::RandomState::default()),
        }
    }
}

impl Tunnels {
    /// Nothing is known; routes share `route` and `hold`.
    #[must_use]
    pub fn new(route: Arc<Route>, hold: Option<Hold>) -> Self {
        Self { route, hold, ..Self::default() }
    }

    /// Sets what is known of a host, given by its [`key_of`], behind [`TLS`] for https tunnels; `None` = nothing any more.
    pub fn set(&mut self, key: &Arc<str>, host: Option<Arc<Host>>, now: Tick) {
        if let Some(plain) = key.strip_prefix(TLS) {
            match host {
                Some(host) => {
                    self.away.remove_mut(key);
                    self.tls.insert_mut(plain.into(), host);
                }
                None if self.tls.remove_mut(plain) => self.away.insert_mut(Arc::clone(key), now),
                None => {}
            }
            return;
        }
        match host {
            Some(host) => {
                self.away.remove_mut(key);
                self.by_user |= host.routes.iter().any(|route| !route.user.is_empty());
                self.hosts.insert_mut(Arc::clone(key), host);
            }
            None => {
                if self.hosts.remove_mut(key) {
                    self.away.insert_mut(Arc::clone(key), now);
                }
            }
        }
    }

    /// Forgets hosts that have been away for long; whether there was one.
    pub fn forget_away(&mut self, now: Tick) -> bool {
        let long: Vec<_> = self
            .away
            .iter()
            .filter(|(_, since)| now.since(**since) >= AWAY)
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in &long {
            self.away.remove_mut(key);
        }
        !long.is_empty()
    }

    /// Takes over which hosts of `before` are away.
    pub fn follow(&mut self, before: &Self, now: Tick) {
        self.away = before.away.clone();
        for key in before.hosts.keys().filter(|key| !self.hosts.contains_key(*key)) {
            self.away.insert_mut(Arc::clone(key), now);
        }
        for plain in before.tls.keys().filter(|plain| !self.tls.contains_key(*plain)) {
            self.away.insert_mut(format!("{TLS}{plain}").into(), now);
        }
        let back: Vec<_> = self.away.keys().filter(|key| self.get(key).is_some()).cloned().collect();
        for key in &back {
            self.away.remove_mut(key);
        }
    }

    /// Every host that is known, or away: by its [`key_of`], and for how long it has been away.
    pub fn known_or_away(&self, now: Tick) -> impl Iterator<Item = (&Arc<str>, Duration)> {
        let away = self.away.iter().map(move |(key, since)| (key, now.since(*since)));
        self.hosts.keys().map(|key| (key, Duration::ZERO)).chain(away)
    }

    /// A host that another process knew, and that is not known here, is away.
    pub fn remember(&mut self, key: &str, away: Duration, now: Tick) {
        if !self.hosts.contains_key(key) && !self.away.contains_key(key) && away < AWAY {
            let since = now.as_nanos().saturating_sub(u64::try_from(away.as_nanos()).unwrap_or(u64::MAX));
            self.away.insert_mut(key.into(), Tick::from_nanos(since));
        }
    }

    /// Whether `host` had a tunnel a moment ago.
    #[must_use]
    pub fn is_away(&self, host: &str, now: Tick) -> bool {
        self.away.size() > 0
            && levels(host).any(|level| self.away.get(level).is_some_and(|since| now.since(*since) < AWAY))
    }

    /// Whether there was an https tunnel for `name` a moment ago.
    #[must_use]
    pub fn is_tls_away(&self, name: &str, now: Tick) -> bool {
        let since = |level: &str| self.away.get(format!("{TLS}{level}").as_str());
        self.away.size() > 0
            && levels(name).any(|level| since(level).is_some_and(|since| now.since(*since) < AWAY))
    }

    /// Adds one vhost proxy. `domain` is an exact name, `*.suffix` or `*`; compared in lower case.
    #[cfg(test)]
    pub(crate) fn insert(&mut self, domain: &str, holder: Holder) {
        let key: Arc<str> = key_of(&domain.to_ascii_lowercase()).into();
        let mut holders = self.get(&key).map(|host| host.holders.clone()).unwrap_or_default();
        holders.push(holder);
        self.set(&key, Some(Arc::new(Host { holders, ..Host::default() })), Tick::ZERO);
    }

    /// What is known of a host, given by its [`key_of`], behind [`TLS`] for https tunnels.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Arc<Host>> {
        key.strip_prefix(TLS).map_or_else(|| self.hosts.get(key), |plain| self.tls.get(plain))
    }

    /// All hosts with their keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Host>)> {
        self.hosts.iter()
    }

    /// Whether nothing is known (no admin API configured, or none has answered).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Number of distinct domains.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.size()
    }

    /// Whether anybody claims `host`, at whatever location.
    #[must_use]
    pub fn knows(&self, host: &str) -> bool {
        levels(host).any(|level| self.hosts.contains_key(level))
    }

    /// Calls `found` with the frps of every vhost tunnel that would serve `host` (lower case, no port) and `path`.
    ///
    /// Over the whole fleet the most specific domain level with a match wins, as it does inside one frps. Returns
    /// whether there was one.
    pub fn holders(&self, host: &str, path: &[u8], mut found: impl FnMut(u32)) -> bool {
        let path = decoded(path);
        for level in levels(host) {
            let Some(known) = self.hosts.get(level) else { continue };
            let mut any = false;
            for holder in &known.holders {
                if holder.locations.iter().any(|location| path.starts_with(location.as_bytes())) {
                    found(holder.frps);
                    any = true;
                }
            }
            if any {
                return true;
            }
        }
        false
    }

    /// Calls `found` with the frps of every https tunnel for `name` (lower case), the most specific domain level alone.
    pub fn tls_holders(&self, name: &str, found: impl FnMut(u32)) {
        let known = levels(name).find_map(|level| self.tls.get(level));
        known.into_iter().flat_map(|host| &host.holders).map(|holder| holder.frps).for_each(found);
    }

    /// The https tunnels' route at one level: an exact name, `.suffix` or `*`.
    #[must_use]
    pub fn tls_route_at(&self, level: &str) -> Option<&TunnelRoute> {
        self.tls.get(level)?.routes.first()
    }

    /// Whether any https tunnel is known.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        !self.tls.is_empty()
    }

    /// The tunnel route of `request` at one level: an exact name, `.suffix` or `*`.
    #[must_use]
    pub fn route_at(&self, level: &str, request: &impl Request) -> Option<&TunnelRoute> {
        let routes = &self.hosts.get(level)?.routes;
        let path = decoded(request.path());
        routes.iter().find(|route| {
            path.starts_with(route.location.as_bytes())
                && (!self.by_user || route.user.is_empty() || request.is_basic_user(&route.user))
        })
    }
}

/// A path as frps compares it with locations: `%` sequences stand for the bytes they mean. A broken one stays as it is.
fn decoded(path: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', path).is_none() {
        return Cow::Borrowed(path);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        let pair = (digit(path.get(at + 1)), digit(path.get(at + 2)));
        let (byte, length) = match (byte, pair) {
            (b'%', (Some(high), Some(low))) => (u8::try_from(high * 16 + low).unwrap_or(b'%'), 3),
            (byte, _) => (*byte, 1),
        };
        bytes.push(byte);
        at += length;
    }
    Cow::Owned(bytes)
}

/// Where a domain (lower case) is filed: `.suffix` for `*.suffix`.
#[must_use]
pub fn key_of(domain: &str) -> &str {
    match domain.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => suffix,
        _ => domain,
    }
}

/// The domain that is filed there.
#[must_use]
pub fn domain_of(key: &str) -> String {
    if key.starts_with('.') { format!("*{key}") } else { key.to_owned() }
}

/// The keys to look up for `host`, most specific first. A wildcard keeps at least two labels (frps's rule).
pub fn levels(host: &str) -> impl Iterator<Item = &str> {
    let wildcards = host.match_indices('.').map(|(dot, _)| &host[dot..]).filter(|suffix| is_wildcard(suffix));
    std::iter::once(host).chain(wildcards).chain(std::iter::once("*"))
}

/// Whether frps looks a wildcard of this suffix (with its leading dot) up.
#[must_use]
pub fn is_wildcard(suffix: &str) -> bool {
    suffix.get(1..).is_some_and(|rest| rest.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tunnels: &Tunnels, host: &str, path: &str) -> Vec<u32> {
        let mut all = Vec::new();
        tunnels.holders(host, path.as_bytes(), |frps| all.push(frps));
        all
    }

    #[test]
    fn hosts_and_locations_match_as_in_frps() {
        let mut tunnels = Tunnels::default();
        let mut add = |domain: &str, frps, locations: &[&str]| {
            let locations = locations.iter().map(|l| Box::from(*l)).collect();
            tunnels.insert(domain, Holder { frps, locations });
        };
        add("App.test", 0, &[""]);
        add("app.test", 1, &["/api"]);
        add("*.wild.test", 2, &[""]);
        add("x.wild.test", 3, &["/only"]);
        assert_eq!(found(&tunnels, "app.test", "/"), [0]);
        assert_eq!(found(&tunnels, "app.test", "/apix"), [0, 1], "a location is a plain prefix");
        assert_eq!(found(&tunnels, "a.b.wild.test", "/"), [2], "a wildcard spans labels");
        assert_eq!(found(&tunnels, "wild.test", "/"), [] as [u32; 0], "never the bare name");
        assert!(!levels("a.test").any(|level| level == ".test"), "two labels try no wildcard");
        assert_eq!(found(&tunnels, "x.wild.test", "/only/1"), [3]);
        assert_eq!(found(&tunnels, "x.wild.test", "/else"), [2], "no location falls through to the wildcard");
        assert!(tunnels.knows("y.wild.test") && !tunnels.knows("nobody.test"));
    }

    #[test]
    fn a_path_means_what_its_percent_sequences_stand_for() {
        let text = |path: &str| String::from_utf8_lossy(&decoded(path.as_bytes())).into_owned();
        assert!(matches!(decoded(b"/plain"), Cow::Borrowed(_)), "nothing to decode, nothing copied");
        assert_eq!(text("/%61pi%2Fv1"), "/api/v1");
        assert_eq!(text("/%2561"), "/%61", "once, not twice");
        assert_eq!(text("/%zz%4"), "/%zz%4", "what is none stays");
    }

    #[test]
    fn a_host_whose_last_tunnel_went_is_away_for_a_while_and_a_stranger_never_is() {
        let (mut tunnels, key): (_, Arc<str>) = (Tunnels::default(), "x.test".into());
        let at = |seconds| Tick::ZERO.saturating_add(Duration::from_secs(seconds));
        let host = || Some(Arc::new(Host::default()));
        tunnels.set(&key, None, at(1));
        assert!(!tunnels.is_away("x.test", at(1)), "it never was here");
        tunnels.set(&key, host(), at(2));
        tunnels.set(&key, None, at(3));
        assert!(tunnels.is_away("x.test", at(62)) && !tunnels.is_away("x.test", at(63)));
        assert!(!tunnels.is_away("y.test", at(3)));
        let mut next = Tunnels::default();
        next.follow(&tunnels, at(4));
        assert!(next.is_away("x.test", at(4)), "a reload forgets nothing");
        next.set(&key, host(), at(5));
        assert!(!next.is_away("x.test", at(5)), "it is back");
        let mut after = Tunnels::default();
        after.follow(&next, at(6));
        assert!(after.is_away("x.test", at(6)), "gone with a reload");
        assert!(after.forget_away(at(66)) && !after.forget_away(at(66)));
    }
}
