//! Tunnels → hosts, routes and members of pools. Works on single hosts: a tunnel that comes or goes costs what its own hosts
//! cost, whatever else is configured.
//!
//! What outlives a snapshot is found by identity here too, but kept in place: publishing tunnels can't fail, so nothing has to
//! be undone.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use frp_gateway_config::model::{self, Carries, Config};
use lb_algos::Tick;

use super::{
    identities::{PoolIdentity, PoolShape},
    members::{build_pool, keyed, policy, tables},
};
use crate::{
    clock,
    control::directory::{Directory, Tunnel, Way, carried_at, settle},
    frps::{HttpClaim, ask::Registration, watch::FrpsWatch},
    snapshot::{
        Direct, Endpoint, EndpointId, Gate, Guard, Host, Member, MemberState, Pool, Split,
        pool::DRAINING,
        tunnels::{self, Holder, TunnelRoute, Tunnels},
    },
    telemetry::{
        shard::{Counter, Shards},
        stats::{RequestShard, TunnelStats},
    },
};

/// Half a round trip between frps and frpc, generously, and what a busy frpc takes to note its tunnel.
const SETTLES: Duration = Duration::from_millis(100);

/// What was learnt about a tunnel that is gone is kept this long.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Numbers of tunnels' endpoints begin here: those of configured ones stay below.
const FIRST_NUMBER: u64 = 1 << 48;

/// What outlives a snapshot, of tunnels.
#[derive(Debug)]
pub struct TunnelIdentities {
    workers: usize,
    last_number: u64,
    last_revision: u64,
    free_slots: Vec<usize>,
    slots: usize,
    /// By name of the frps.
    hosts: HashMap<String, Arc<Host>>,
    /// What goes on at frps that are bounded.
    loads: HashMap<(&'static str, String), Arc<Shards<Counter>>>,
    watches: HashMap<String, Arc<FrpsWatch>>,
    endpoints: HashMap<EndpointId, Arc<Endpoint>>,
    lasting: HashMap<EndpointId, Lasting>,
    /// By key of the host.
    pools: HashMap<Arc<str>, Vec<Known>>,
    /// Tunnels that have metrics of their own.
    series: usize,
    series_changed: bool,
    /// `tunnels.series`.
    most: usize,
    stats: Arc<TunnelStats>,
    /// Something has been published: who joins now joins a fleet that serves.
    serving: bool,
}

/// What is known of a tunnel over its registrations.
#[derive(Debug)]
struct Lasting {
    /// In pools without a configuration of their own.
    state: Arc<MemberState>,
    answers: Arc<Shards<RequestShard>>,
    has_series: bool,
    seen: Tick,
}

/// The pool of a location.
#[derive(Debug)]
struct Known {
    location: Box<str>,
    user: Box<str>,
    identity: PoolIdentity,
    pool: Arc<Pool>,
}

/// The fleet as tunnels are compiled against it.
#[derive(Debug, Clone, Copy)]
pub struct Fleet<'a> {
    /// In force, or about to be.
    pub config: &'a Config,
    /// Who claims what.
    pub directory: &'a Directory,
    /// Now.
    pub now: Tick,
}

impl TunnelIdentities {
    /// Nothing is known.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            last_number: FIRST_NUMBER,
            last_revision: 0,
            free_slots: Vec::new(),
            slots: 0,
            hosts: HashMap::new(),
            loads: HashMap::new(),
            watches: HashMap::new(),
            endpoints: HashMap::new(),
            lasting: HashMap::new(),
            pools: HashMap::new(),
            series: 0,
            series_changed: false,
            most: 100,
            stats: Arc::new(TunnelStats::new(workers)),
            serving: false,
        }
    }

    /// What is shared about an frps.
    pub fn watch(&mut self, frps: &str) -> Arc<FrpsWatch> {
        if let Some(known) = self.watches.get(frps) {
            return Arc::clone(known);
        }
        Arc::clone(self.watches.entry(frps.to_owned()).or_default())
    }

    /// What tunnels count.
    pub fn stats(&mut self) -> Arc<TunnelStats> {
        if std::mem::take(&mut self.series_changed) {
            let named = self.lasting.iter().filter(|(_, lasting)| lasting.has_series).map(|(id, lasting)| {
                let name = id.tunnel.as_ref().map_or("", |tunnel| &tunnel.name);
                (Arc::from(format!("{}/{name}", id.frps)), Arc::clone(&lasting.answers))
            });
            let mut series: Vec<(Arc<str>, _)> = named.collect();
            series.sort_by(|one, other| one.0.cmp(&other.0));
            self.stats = Arc::new(TunnelStats {
                pool: Arc::clone(&self.stats.pool),
                split: Arc::clone(&self.stats.split),
                series,
                most: self.most,
                other: Arc::clone(&self.stats.other),
            });
        }
        Arc::clone(&self.stats)
    }

    /// Where tunnels' ports are, each once; those of every frps that has us for a plugin are known beforehand.
    pub fn hosts_of(&mut self, config: &Config) -> Vec<Arc<Host>> {
        for frps in config.frps.iter().filter(|frps| frps.plugin.is_some()) {
            self.frps_host(frps);
        }
        self.hosts.values().cloned().collect()
    }

    /// Whether a compiled pool is made of exactly these tunnels, as they are now.
    #[must_use]
    pub fn is_made_of(&self, pool: &Pool, tunnels: &[Arc<Tunnel>], config: &Config) -> bool {
        let member = |member: &Member| {
            let said = (member.priority, member.zone.clone(), member.proxy_protocol, member.protocol);
            (member.endpoint.id.clone(), member.weight, said)
        };
        let mut wanted = Vec::new();
        for tunnel in tunnels {
            let Some(frps) = config.frps.iter().find(|frps| *frps.name == *tunnel.frps) else { continue };
            let id = match (tunnel.way.registration(), tunnel.way.carries()) {
                (Some(registration), _) => Some(EndpointId {
                    frps: frps.name.as_str().into(),
                    host: frps.tunnel_host.as_str().into(),
                    port: registration.port,
                    tunnel: Some(Arc::clone(registration)),
                    tls: None,
                }),
                (None, Some(carries)) => EndpointId::of(frps, carries, None),
                (None, None) => None,
            };
            let Some(id) = id else { continue };
            let zone: Option<Arc<str>> =
                tunnel.settings.zone.as_ref().or(frps.zone.as_ref()).map(|zone| zone.as_str().into());
            let weight = tunnel.settings.weight.unwrap_or(1).saturating_mul(frps.weight);
            let said = (tunnel.settings.priority.unwrap_or(0), zone, header_for(tunnel), protocol_of(tunnel));
            wanted.push((id, weight, said));
        }
        // Several tunnels behind one vhost port are one member.
        let mut merged: Vec<(EndpointId, u32, _)> = Vec::new();
        for one in wanted {
            match merged.iter_mut().find(|other| other.0 == one.0) {
                Some(same) => same.1 = same.1.saturating_add(one.1),
                None => merged.push(one),
            }
        }
        pool.members.iter().map(member).eq(merged)
    }

    /// Follows a new configuration: hosts of frps that moved, and nothing else's.
    pub fn follow(&mut self, config: &Config) {
        self.series_changed |= self.most != config.tunnels.series;
        self.most = config.tunnels.series;
        self.hosts.retain(|name, host| {
            config.frps.iter().any(|frps| {
                (frps.name == *name && *frps.tunnel_host == *host.name)
                    || (*name == vhost_name(frps) && *frps.host == *host.name)
            })
        });
        self.watches.retain(|name, _| config.frps.iter().any(|frps| frps.name == *name));
    }

    /// The whole table anew.
    pub fn all(&mut self, fleet: Fleet<'_>, route: Arc<crate::snapshot::Route>) -> Tunnels {
        let mut tunnels = Tunnels::new(route, fleet.config.tunnels.pool.hold);
        let gone: Vec<_> =
            self.pools.keys().filter(|key| fleet.directory.claimants(key).is_empty()).cloned().collect();
        for key in gone {
            self.retire_gone(&key, &[]);
            self.forget_pools(&key);
        }
        for key in fleet.directory.keys().filter(|key| is_asked_for(key)) {
            let host = self.host(fleet, key);
            tunnels.set(key, host, fleet.now);
        }
        self.serving = true;
        tunnels
    }

    /// What one host is now; `None` = nobody claims it.
    pub fn host(&mut self, fleet: Fleet<'_>, key: &Arc<str>) -> Option<Arc<tunnels::Host>> {
        let claimants = fleet.directory.claimants(key);
        self.retire_gone(key, claimants);
        if claimants.is_empty() {
            self.forget_pools(key);
            return None;
        }
        let settled = settle(claimants, &fleet.config.claims);
        // Whose a host is only matters where tunnels are served for themselves.
        let config = fleet.config;
        let matters = config.tunnels.serve || config.pools.iter().any(|pool| pool.tunnels.is_some());
        let mut losers: Vec<_> = settled
            .iter()
            .filter(|_| matters)
            .flat_map(|group| &group.losers)
            .map(|tunnel| (Arc::clone(&tunnel.frps), Arc::from(&*tunnel.proxy.name)))
            .collect();
        losers.sort();
        losers.dedup();
        let mut known = self.pools.remove(key).unwrap_or_default();
        let mut kept = Vec::new();
        let mut routes = Vec::new();
        for group in settled.iter().filter(|_| fleet.config.tunnels.serve) {
            let at = known
                .iter()
                .position(|known| *known.location == *group.location && *known.user == *group.user);
            let before = at.map(|at| known.swap_remove(at));
            let tunnels: Vec<&Tunnel> = group.tunnels.iter().map(|tunnel| &***tunnel).collect();
            if tunnels.is_empty() {
                kept.extend(before);
                continue;
            }
            let members = self.members(fleet, &tunnels, |ids, id| ids.lasting(id, fleet));
            let now = self.pool(fleet.config, key, (group.location, group.user), members, before);
            routes.push(TunnelRoute {
                location: group.location.into(),
                user: group.user.into(),
                split: Split { pool: Arc::clone(&now.pool), weight: 1, stats: Arc::clone(&self.stats.split) },
            });
            kept.push(now);
        }
        self.free_slots.extend(known.into_iter().map(|known| known.identity.slot));
        if !kept.is_empty() {
            self.pools.insert(Arc::clone(key), kept);
        }
        Some(Arc::new(tunnels::Host { holders: holders(fleet, claimants), routes, losers }))
    }

    /// Registrations that are over are over at once: a request that still holds the snapshot before must not connect there.
    fn retire_gone(&self, key: &str, claimants: &[Arc<Tunnel>]) {
        let members = self.pools.get(key).into_iter().flatten().flat_map(|known| &known.pool.members);
        for endpoint in members.map(|member| &member.endpoint) {
            let Some(registration) = &endpoint.id.tunnel else { continue };
            let stays = claimants.iter().any(|tunnel| {
                tunnel.way.registration() == Some(registration) && tunnel.frps == endpoint.id.frps
            });
            if !stays {
                endpoint.retire();
            }
        }
    }

    fn forget_pools(&mut self, key: &str) {
        let gone = self.pools.remove(key).unwrap_or_default();
        self.free_slots.extend(gone.into_iter().map(|known| known.identity.slot));
    }

    /// Members of a pool of `tunnels`: each that has a port for itself, the others by their frps's vhost port.
    pub(super) fn members(
        &mut self,
        fleet: Fleet<'_>,
        tunnels: &[&Tunnel],
        mut state: impl FnMut(&mut Self, &EndpointId) -> Arc<MemberState>,
    ) -> Vec<Member> {
        let mut members: Vec<Member> = Vec::with_capacity(tunnels.len());
        for tunnel in tunnels {
            let found = (0..).zip(&fleet.config.frps).find(|(_, frps)| *frps.name == *tunnel.frps);
            let Some((number, frps)) = found else { continue };
            let weight = tunnel.settings.weight.unwrap_or(1).saturating_mul(frps.weight);
            let zone = tunnel.settings.zone.as_ref().or(frps.zone.as_ref());
            let endpoint = match (tunnel.way.registration(), tunnel.way.carries()) {
                (Some(registration), _) => Some(self.endpoint(frps, registration)),
                (None, Some(carries)) => self.vhost(frps, carries),
                (None, None) => None,
            };
            let Some(endpoint) = endpoint else { continue };
            // Several tunnels behind one vhost port are one member: frps alternates among them.
            if let Some(same) = members.iter_mut().find(|member| member.endpoint.number == endpoint.number) {
                same.weight = same.weight.saturating_add(weight);
                continue;
            }
            let direct = tunnel.way.claim().map(|claim| self.direct(fleet, &endpoint.id, claim));
            members.push(Member {
                state: state(self, &endpoint.id.lasting()),
                priority: tunnel.settings.priority.unwrap_or(0) + if frps.drain { DRAINING } else { 0 },
                local: zone.is_some() && zone == fleet.config.zone.as_ref(),
                zone: zone.map(|zone| zone.as_str().into()),
                key: endpoint.id.key(),
                weight,
                not_found_marker: frps.not_found_marker.as_ref().map(|marker| marker.as_bytes().into()),
                frps: number,
                tunnel: direct,
                proxy_protocol: header_for(tunnel),
                protocol: protocol_of(tunnel),
                gate: self.gate(frps),
                connections: self.connections(frps),
                endpoint,
            });
        }
        members
    }

    fn direct(&mut self, fleet: Fleet<'_>, id: &EndpointId, claim: &HttpClaim) -> Arc<Direct> {
        self.lasting(&id.lasting(), fleet);
        let answers = self.lasting.get(&id.lasting()).map(|lasting| Arc::clone(&lasting.answers));
        Arc::new(Direct {
            rewrite: claim.rewrite.clone(),
            auth: claim.auth.clone(),
            answers: answers.unwrap_or_else(|| Arc::clone(&self.stats.other)),
        })
    }

    fn lasting(&mut self, id: &EndpointId, fleet: Fleet<'_>) -> Arc<MemberState> {
        let (workers, joined) = (self.workers, self.serving.then_some(fleet.now));
        if let Some(known) = self.lasting.get_mut(id) {
            known.seen = fleet.now;
            return Arc::clone(&known.state);
        }
        let has_series = id.tunnel.is_some() && self.series < fleet.config.tunnels.series;
        self.series += usize::from(has_series);
        self.series_changed |= has_series;
        let answers = if has_series { Arc::new(Shards::new(workers)) } else { Arc::clone(&self.stats.other) };
        let state = Arc::new(MemberState::new(workers, joined));
        let lasting = Lasting { state: Arc::clone(&state), answers, has_series, seen: fleet.now };
        self.lasting.insert(id.clone(), lasting);
        state
    }

    fn endpoint(&mut self, frps: &model::Frps, registration: &Arc<Registration>) -> Arc<Endpoint> {
        let host = self.frps_host(frps);
        let id = EndpointId {
            frps: frps.name.as_str().into(),
            host: Arc::clone(&host.name),
            port: registration.port,
            tunnel: Some(Arc::clone(registration)),
            tls: None,
        };
        if let Some(known) = self.endpoints.get(&id) {
            return Arc::clone(known);
        }
        self.last_number += 1;
        let (registration, watch) = (Arc::clone(registration), self.watch(&frps.name));
        let guard = Guard { registration, watch, settled: clock::now().saturating_add(SETTLES) };
        let endpoint = Endpoint::at(host, id.clone(), self.last_number, self.workers, Some(guard));
        let endpoint = Arc::new(endpoint);
        self.endpoints.insert(id, Arc::clone(&endpoint));
        endpoint
    }

    /// The vhost port as an endpoint of tunnels: apart from that of configured pools, which come and go with the file.
    fn vhost(&mut self, frps: &model::Frps, carries: Carries) -> Option<Arc<Endpoint>> {
        let id = EndpointId::of(frps, carries, None)?;
        if let Some(known) = self.endpoints.get(&id) {
            return Some(Arc::clone(known));
        }
        self.last_number += 1;
        let host =
            self.hosts.entry(vhost_name(frps)).or_insert_with(|| Arc::new(Host::new(Arc::clone(&id.host))));
        let host = Arc::clone(host);
        let endpoint = Arc::new(Endpoint::at(host, id.clone(), self.last_number, self.workers, None));
        self.endpoints.insert(id, Arc::clone(&endpoint));
        Some(endpoint)
    }

    /// The bound of an frps on requests in flight, if it has one.
    pub(super) fn gate(&mut self, frps: &model::Frps) -> Option<Gate> {
        self.bound("in_flight", frps, frps.in_flight)
    }

    /// Its bound on open connections, if it has one.
    pub(super) fn connections(&mut self, frps: &model::Frps) -> Option<Gate> {
        self.bound("connections", frps, frps.connections)
    }

    fn bound(&mut self, what: &'static str, frps: &model::Frps, limit: Option<u32>) -> Option<Gate> {
        let (limit, workers) = (limit?, self.workers);
        let load = self.loads.entry((what, frps.name.clone()));
        Some(Gate::new(limit, Arc::clone(load.or_insert_with(|| Arc::new(Shards::new(workers))))))
    }

    fn frps_host(&mut self, frps: &model::Frps) -> Arc<Host> {
        let host = self
            .hosts
            .entry(frps.name.clone())
            .or_insert_with(|| Arc::new(Host::new((*frps.tunnel_host).into())));
        Arc::clone(host)
    }

    fn pool(
        &mut self,
        config: &Config,
        key: &str,
        (location, user): (&str, &str),
        members: Vec<Member>,
        before: Option<Known>,
    ) -> Known {
        let settings = &config.tunnels.pool;
        let shape = PoolShape {
            policy: policy(settings),
            keyed: keyed(settings),
            members: members.iter().map(|member| (member.endpoint.number, member.weight)).collect(),
        };
        let identity = match before {
            Some(Known { identity, .. }) if identity.shape == shape => identity,
            before => {
                self.last_revision += 1;
                let (slot, bell, queue) = match before {
                    Some(Known { identity, .. }) => (identity.slot, identity.bell, identity.queue),
                    None => (self.free_slot(), Arc::default(), Arc::default()),
                };
                PoolIdentity {
                    slot,
                    revision: self.last_revision,
                    stats: Arc::clone(&self.stats.pool),
                    bell,
                    queue,
                    tables: tables(&shape, &members),
                    shape,
                }
            }
        };
        let carries = carried_at(key);
        let name = match (carries, user) {
            (Carries::Http, "") => format!("auto:{}{location}", tunnels::domain_of(key)),
            (Carries::Http, user) => format!("auto:{user}@{}{location}", tunnels::domain_of(key)),
            (Carries::Tls | Carries::Tcp | Carries::Udp, _) => format!("auto:{}", shown(key)),
        };
        let workers = u32::try_from(self.workers).unwrap_or(u32::MAX);
        let mut pool = build_pool(settings, members, identity.clone(), workers);
        pool.name = name.into();
        (pool.auto, pool.of_tunnels, pool.carries) = (true, true, carries);
        Known { location: location.into(), user: user.into(), identity, pool: Arc::new(pool) }
    }

    fn free_slot(&mut self) -> usize {
        self.free_slots.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// Lets go of endpoints that no tunnel in the directory has, and forgets what was learnt long ago.
    pub fn tidy(&mut self, fleet: Fleet<'_>) {
        let current: HashSet<(&str, &Registration)> = fleet
            .directory
            .tunnels()
            .filter_map(|tunnel| Some((&*tunnel.frps, &**tunnel.way.registration()?)))
            .collect();
        self.endpoints.retain(|id, endpoint| {
            let stays = match &id.tunnel {
                Some(registration) => current.contains(&(&*id.frps, &**registration)),
                None => fleet.config.frps.iter().any(|frps| {
                    let vhosts = [Carries::Http, Carries::Tls];
                    vhosts.iter().any(|carries| EndpointId::of(frps, *carries, None).as_ref() == Some(id))
                }),
            };
            if !stays {
                endpoint.retire();
            }
            stays
        });
        let present: HashSet<EndpointId> = self.endpoints.keys().map(EndpointId::lasting).collect();
        let (series, changed) = (&mut self.series, &mut self.series_changed);
        self.lasting.retain(|id, lasting| {
            if present.contains(id) {
                lasting.seen = fleet.now;
            }
            let stays = fleet.now.since(lasting.seen) < REMEMBERED;
            if !stays && lasting.has_series {
                *series -= 1;
                *changed = true;
            }
            stays
        });
    }
}

/// Whether visitors ask for tunnels filed under `key`: ports have no name that one could ask for.
#[must_use]
pub fn is_asked_for(key: &str) -> bool {
    matches!(carried_at(key), Carries::Http | Carries::Tls)
}

/// A key for people: the domain, behind `tls:` where its TLS is passed through.
#[must_use]
pub fn shown(key: &str) -> String {
    match carried_at(key) {
        Carries::Http => tunnels::domain_of(key),
        Carries::Tls => format!("tls:{}", tunnels::domain_of(&key[4..])),
        Carries::Tcp | Carries::Udp => key.replacen(' ', ":", 1),
    }
}

/// The PROXY protocol header that a tunnel asks for. A vhost port would take it for a broken request: only ports of tunnels
/// get one, of those that carry whole connections.
fn header_for(tunnel: &Tunnel) -> Option<model::ProxyHeader> {
    let whole = match &tunnel.way {
        Way::Port { carries, .. } => *carries == Carries::Tcp,
        Way::Direct { claim, .. } => claim.tls,
        Way::Vhost | Way::VhostTls | Way::None => false,
    };
    tunnel.settings.proxy_protocol.filter(|_| whole)
}

/// What a tunnel says that its application speaks. frps's vhost speaks HTTP/1.1 to it, whatever it says.
fn protocol_of(tunnel: &Tunnel) -> Option<model::PoolProtocol> {
    match &tunnel.way {
        Way::Direct { .. } => tunnel.settings.protocol,
        Way::Port { .. } | Way::Vhost | Way::VhostTls | Way::None => None,
    }
}

/// Names hold no space, so this is nobody's.
fn vhost_name(frps: &model::Frps) -> String {
    format!("{} vhost", frps.name)
}

/// Which frps serve a host by their own vhost: what pools of vhost ports prefer. Whose tunnel it is doesn't matter there: who
/// wrote such a pool wants those servers, and each frps knows its own.
fn holders(fleet: Fleet<'_>, claimants: &[Arc<Tunnel>]) -> Vec<Holder> {
    let mut holders: Vec<Holder> = Vec::new();
    for (number, frps) in (0..).zip(&fleet.config.frps) {
        let mut locations: Vec<Box<str>> = claimants
            .iter()
            .filter(|tunnel| matches!(tunnel.way, Way::Vhost | Way::VhostTls) && *tunnel.frps == *frps.name)
            .flat_map(|tunnel| tunnel.locations())
            .map(|location| location.as_str().into())
            .collect();
        locations.sort();
        locations.dedup();
        if !locations.is_empty() {
            holders.push(Holder { frps: number, locations });
        }
    }
    holders
}

#[cfg(test)]
mod tests;
