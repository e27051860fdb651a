//! Configuration → snapshot. What must outlive a snapshot is found by its identity, so a reload forgets nothing.
//!
//! [`compile`] is pure: it reads the old [`Identities`] and returns the new ones. What the new configuration doesn't
//! name isn't carried over (but for what was learnt about a member: some minutes), so nothing can leak; a compile whose
//! step is undone leaves no trace. What it wants changed in shared states waits in [`Compiled::settlement`].

mod identities;
mod members;
mod settlement;
mod tunnels;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use frp_gateway_config::model::{self, Carries, Config, Protocol};
use lb_algos::Tick;

pub use self::{
    identities::Identities,
    settlement::Settlement,
    tunnels::{Fleet, TunnelIdentities, is_asked_for, shown},
};
use self::{
    identities::{Carry, PoolShape},
    members::{build_pool, keyed, policy, tables},
};
use super::directory::{Directory, Phase, Tunnel, carried_at, filed_under, selects, settle};
use crate::{
    http1::HeadLimits,
    snapshot::{
        EndpointId, FrpPart, FrpsHandle, Listener, Member, Pool, Route, Router, Snapshot, Split,
        pool::DRAINING, tunnels::key_of,
    },
};

/// A configuration that [`frp_gateway_config::load`] should have refused. Kept as an error so that a hole there costs
/// a reload, not the process.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A regular expression doesn't compile.
    #[error("routes[{index}].match: {source}")]
    Regex {
        /// Position of the route.
        index: usize,
        /// Why.
        source: regex::Error,
    },
    /// A name that nothing has.
    #[error("{key}: nothing is called {name:?} here")]
    Unknown {
        /// Where it is named.
        key: String,
        /// The name.
        name: String,
    },
    /// A pool names an frps without the port that it needs.
    #[error("pools[{pool}].frps: {name:?} has no port for what this pool carries")]
    NoPort {
        /// Position of the pool.
        pool: usize,
        /// Name of the frps.
        name: String,
    },
}

/// What comes of a compile.
#[derive(Debug)]
pub struct Compiled {
    /// To be published.
    pub snapshot: Snapshot,
    /// To be given to the next compile.
    pub identities: Identities,
    /// To be applied when the snapshot is published.
    pub settlement: Settlement,
}

/// Compiles a configuration; `now` decides which slots of removed listeners are free again. The tunnels' own routes are left
/// out: [`TunnelIdentities::all`] makes them.
///
/// O(routes × (pools + members)) plus the regular expressions.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(
    fleet: Fleet<'_>,
    generation: u64,
    tunnels: &mut TunnelIdentities,
    old: &Identities,
) -> Result<Compiled, CompileError> {
    let (config, now) = (fleet.config, fleet.now);
    let mut carry = Carry::new(old);
    let pools = pools(fleet, tunnels, &mut carry)?;
    let routes = routes(config, &pools, &mut carry)?;
    let frps = fleet_handles(config, &mut carry);
    let listeners = listeners(config, &routes, (&pools, &frps), &mut carry, now);
    let relays = carry.relays();
    let snapshot = Snapshot { generation, listeners, routes, pools, frps, relays, ..Snapshot::default() };
    let (identities, settlement) = carry.finish(now);
    Ok(Compiled { snapshot, identities, settlement })
}

fn pools(
    fleet: Fleet<'_>,
    tunnels: &mut TunnelIdentities,
    carry: &mut Carry<'_>,
) -> Result<Vec<Arc<Pool>>, CompileError> {
    let (config, now) = (fleet.config, fleet.now);
    carry.keep_pool_slots(config.pools.iter().map(|pool| pool.name.as_str()));
    let by_name: HashMap<&str, (u32, &model::Frps)> =
        (0..).zip(&config.frps).map(|(index, frps)| (frps.name.as_str(), (index, frps))).collect();
    let compile = |(index, pool): (usize, &model::Pool)| {
        let members = match &pool.tunnels {
            Some(selector) => {
                let chosen = chosen(fleet.directory, pool.carries, selector, &config.claims);
                let chosen: Vec<&Tunnel> = chosen.iter().map(|tunnel| &**tunnel).collect();
                tunnels.members(fleet, &chosen, |_, id| carry.member_state(pool, id, now))
            }
            None => configured(config, (index, pool), &by_name, tunnels, carry, now)?,
        };
        let shape = PoolShape {
            policy: policy(pool),
            keyed: keyed(pool),
            members: members.iter().map(|member| (member.endpoint.number, member.weight)).collect(),
        };
        let identity = carry.pool(&pool.name, shape, |shape| tables(shape, &members));
        Ok(Arc::new(build_pool(pool, members, identity, carry.workers())))
    };
    config.pools.iter().enumerate().map(compile).collect()
}

/// Members that the file names: vhost ports, or remote ports.
fn configured(
    config: &Config,
    (index, pool): (usize, &model::Pool),
    by_name: &HashMap<&str, (u32, &model::Frps)>,
    tunnels: &mut TunnelIdentities,
    carry: &mut Carry<'_>,
    now: Tick,
) -> Result<Vec<Member>, CompileError> {
    let member = |member: &model::PoolMember| {
        let &(number, frps) = by_name.get(member.frps.as_str()).ok_or_else(|| CompileError::Unknown {
            key: format!("pools[{index}].frps"),
            name: member.frps.clone(),
        })?;
        let id = EndpointId::of(frps, pool.carries, member.port)
            .ok_or_else(|| CompileError::NoPort { pool: index, name: member.frps.clone() })?
            .spoken_to_by(pool);
        Ok(Member {
            state: carry.member_state(pool, &id, now),
            priority: member.priority + if frps.drain { DRAINING } else { 0 },
            zone: frps.zone.as_deref().map(Into::into),
            local: frps.zone.is_some() && frps.zone == config.zone,
            key: id.key(),
            endpoint: carry.endpoint(id),
            weight: member.weight,
            not_found_marker: frps.not_found_marker.as_ref().map(|marker| marker.as_bytes().into()),
            frps: number,
            tunnel: None,
            proxy_protocol: None,
            protocol: None,
            gate: tunnels.gate(frps),
            connections: tunnels.connections(frps),
        })
    };
    pool.frps.iter().map(member).collect()
}

/// The tunnels that a pool selects, each once, of the type that it carries; who lost a claim isn't among them.
pub fn chosen(
    directory: &Directory,
    carries: Carries,
    selector: &model::TunnelSelector,
    claims: &model::Claims,
) -> Vec<Arc<Tunnel>> {
    let selects = |tunnel: &Tunnel| tunnel.way.carries() == Some(carries) && selects(selector, tunnel);
    if matches!(carries, Carries::Tcp | Carries::Udp) {
        return ports(directory, carries, selects);
    }
    let mut chosen: BTreeMap<(Arc<str>, String), Arc<Tunnel>> = BTreeMap::new();
    let mut look = |key: &str| {
        let claimants = directory.claimants(key);
        if !claimants.iter().any(|tunnel| selects(tunnel)) {
            return;
        }
        for tunnel in settle(claimants, claims).into_iter().flat_map(|group| group.tunnels) {
            if selects(tunnel) {
                let name = (Arc::clone(&tunnel.frps), tunnel.proxy.name.clone());
                chosen.entry(name).or_insert_with(|| Arc::clone(tunnel));
            }
        }
    };
    if selector.domains.is_empty() {
        directory.keys().filter(|key| carried_at(key) == carries).for_each(|key| look(key));
    } else {
        selector.domains.iter().for_each(|domain| look(&filed_under(carries, key_of(domain))));
    }
    chosen.into_values().collect()
}

/// Tunnels of ports of their own: frps itself settles who has which. Suspect ones count where no live one is left.
fn ports(directory: &Directory, carries: Carries, selects: impl Fn(&Tunnel) -> bool) -> Vec<Arc<Tunnel>> {
    let keys = directory.keys().filter(|key| carried_at(key) == carries);
    let mut chosen: Vec<_> = keys
        .flat_map(|key| directory.claimants(key))
        .filter(|tunnel| selects(tunnel))
        .map(Arc::clone)
        .collect();
    if chosen.iter().any(|tunnel| tunnel.phase == Phase::Live) {
        chosen.retain(|tunnel| tunnel.phase == Phase::Live);
    }
    chosen.sort_by(|one, other| (&one.frps, &one.proxy.name).cmp(&(&other.frps, &other.proxy.name)));
    chosen
}

fn routes(
    config: &Config,
    pools: &[Arc<Pool>],
    carry: &mut Carry<'_>,
) -> Result<Vec<Arc<Route>>, CompileError> {
    let by_name: HashMap<&str, &Arc<Pool>> = pools.iter().map(|pool| (&*pool.name, pool)).collect();
    let compile = |(index, route): (usize, &model::Route)| {
        let splits = route
            .pools
            .iter()
            .map(|share| {
                let pool = by_name.get(share.name.as_str()).ok_or_else(|| CompileError::Unknown {
                    key: format!("routes[{index}].pools"),
                    name: share.name.clone(),
                })?;
                let stats = carry.split(&route.name, pool);
                Ok(Split { pool: Arc::clone(pool), weight: share.weight, stats })
            })
            .collect::<Result<Vec<_>, CompileError>>()?;
        let gate = carry.gate("route", &route.name, route.in_flight);
        let route =
            Route::compile(route, splits, gate).map_err(|source| CompileError::Regex { index, source })?;
        Ok(Arc::new(route))
    };
    config.routes.iter().enumerate().map(compile).collect()
}

/// Every frps as a place for clients.
fn fleet_handles(config: &Config, carry: &mut Carry<'_>) -> Vec<Arc<FrpsHandle>> {
    let handle = |frps: &model::Frps| {
        Arc::new(FrpsHandle {
            live: carry.frps_live(frps),
            weight: frps.weight,
            zone: frps.zone.as_deref().map(Into::into),
            drain: frps.drain,
        })
    };
    config.frps.iter().map(handle).collect()
}

/// What an `frp` listener has beyond others.
fn frp_part(
    listener: &model::Listener,
    fleet: &[Arc<FrpsHandle>],
    carry: &Carry<'_>,
) -> Option<Arc<FrpPart>> {
    let frp = listener.frp.as_ref()?;
    let named = |name: &String| fleet.iter().find(|frps| *frps.live.name == **name).cloned();
    Some(Arc::new(FrpPart {
        frps: frp.frps.iter().filter_map(named).collect(),
        place: frp.place,
        together: frp.together,
        relays: carry.relays(),
    }))
}

/// By slot: what is configured, and what was removed a moment ago and still answers.
fn listeners(
    config: &Config,
    routes: &[Arc<Route>],
    (pools, fleet): (&[Arc<Pool>], &[Arc<FrpsHandle>]),
    carry: &mut Carry<'_>,
    now: Tick,
) -> Vec<Option<Arc<Listener>>> {
    carry.retire_listeners(config.listeners.iter().map(|listener| listener.name.as_str()), now);
    let mut routers: HashMap<(Vec<usize>, bool), Arc<Router>> = HashMap::new();
    // Before those that refer to them.
    let (first, then): (Vec<_>, Vec<_>) =
        config.listeners.iter().partition(|listener| listener.protocol == Protocol::TlsPassthrough);
    for listener in first.into_iter().chain(then) {
        let served: Vec<usize> = (0..config.routes.len())
            .filter(|index| {
                let names = &config.routes[*index].listeners;
                // A route for every listener is one of http, unless it leads to a pool of something else.
                let fits = |split: &Split| Some(split.pool.carries) == listener.protocol.carries();
                // One without pools sends visitors elsewhere, which takes a request.
                let carries = Some(Carries::Http) == listener.protocol.carries();
                (names.is_empty() || names.contains(&listener.name))
                    && (carries || !routes[*index].splits.is_empty())
                    && routes[*index].splits.iter().all(fits)
            })
            .collect();
        let names = &config.tunnels.listeners;
        let serves_tunnels = config.tunnels.serve && (names.is_empty() || names.contains(&listener.name));
        let router =
            routers.entry((served, serves_tunnels)).or_insert_with_key(|(served, serves_tunnels)| {
                let chosen = served
                    .iter()
                    .map(|index| (config.routes[*index].matches.hosts.clone(), Arc::clone(&routes[*index])));
                Arc::new(Router::new(chosen).serving_tunnels(*serves_tunnels))
            });
        let (slot, stats) = carry.listener_identity(&listener.name);
        let gate = carry.gate("listener", &listener.name, listener.limits.in_flight);
        carry.set_listener(Arc::new(Listener {
            name: listener.name.as_str().into(),
            protocol: listener.protocol,
            pool: listener
                .pool
                .as_ref()
                .and_then(|name| pools.iter().find(|pool| *pool.name == **name))
                .cloned(),
            slot,
            frp: frp_part(listener, fleet, carry),
            tls: listener.tls.as_ref().and_then(|_| carry.tls(&listener.name)),
            passthrough: config
                .passthrough_beside(listener)
                .map(|beside| carry.listener_identity(&beside.name).0),
            http2: listener.http2.clone(),
            router: Arc::clone(router),
            proxy_protocol: listener.proxy_protocol.clone(),
            trusted_proxies: listener.trusted_proxies.clone(),
            timeouts: listener.timeouts.clone(),
            head_limits: HeadLimits {
                head_bytes: listener.limits.head_bytes,
                line_bytes: listener.limits.request_line_bytes,
                fields: listener.limits.headers,
            },
            limits: listener.limits.clone(),
            gate,
            stats,
        }));
    }
    carry.listeners_by_slot()
}

/// Compiles a configuration as if no frps had a tunnel.
#[cfg(test)]
pub(crate) fn compile_bare(
    config: &Config,
    generation: u64,
    identities: &Identities,
    now: Tick,
) -> Result<Compiled, CompileError> {
    let directory = Directory::default();
    let fleet = Fleet { config, directory: &directory, now };
    compile(fleet, generation, &mut TunnelIdentities::new(2), identities)
}

#[cfg(test)]
mod tests;
