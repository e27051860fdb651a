//! Configuration → snapshot. What must outlive a snapshot is found by its identity, so a reload forgets nothing.
//!
//! [`compile`] is pure: it reads the old [`Identities`] and returns the new ones. What the new configuration doesn't
//! name isn't carried over (but for what was learnt about a member: some minutes), so nothing can leak; a compile whose
//! step is undone leaves no trace. What it wants changed in shared states waits in [`Compiled::settlement`].

mod identities;
mod settlement;

use std::{collections::HashMap, sync::Arc};

use frp_gateway_config::model::{self, Affinity, Balance, Config, Locality};
use lb_algos::{Place, PolicyKind, Prepared, Tick};

use self::identities::{Carry, PoolShape, Tables};
pub use self::{identities::Identities, settlement::Settlement};
use crate::{
    data::affinity::Sealer,
    http1::HeadLimits,
    snapshot::{EndpointId, Listener, Member, Pool, Route, Router, Snapshot, Split, Tunnels},
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
    /// A vhost pool names an frps without a vhost port.
    #[error("pools[{pool}].frps: {name:?} has no vhost_http_port")]
    NoVhostPort {
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

/// Compiles `config`; `now` decides which slots of removed listeners are free again.
///
/// O(routes × (pools + members)) plus the regular expressions.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(
    config: &Config,
    generation: u64,
    tunnels: Arc<Tunnels>,
    old: &Identities,
    now: Tick,
) -> Result<Compiled, CompileError> {
    let mut carry = Carry::new(old);
    let pools = pools(config, &mut carry, now)?;
    let routes = routes(config, &pools, &mut carry)?;
    let listeners = listeners(config, &routes, &mut carry, now);
    let snapshot = Snapshot { generation, listeners, routes, pools, tunnels };
    let (identities, settlement) = carry.finish(now);
    Ok(Compiled { snapshot, identities, settlement })
}

fn pools(config: &Config, carry: &mut Carry<'_>, now: Tick) -> Result<Vec<Arc<Pool>>, CompileError> {
    carry.keep_pool_slots(config.pools.iter().map(|pool| pool.name.as_str()));
    let by_name: HashMap<&str, (u32, &model::Frps)> =
        (0..).zip(&config.frps).map(|(index, frps)| (frps.name.as_str(), (index, frps))).collect();
    let compile = |(index, pool): (usize, &model::Pool)| {
        let members = pool
            .frps
            .iter()
            .map(|member| {
                let &(number, frps) = by_name.get(member.frps.as_str()).ok_or_else(|| {
                    CompileError::Unknown { key: format!("pools[{index}].frps"), name: member.frps.clone() }
                })?;
                let id = EndpointId::of(frps)
                    .ok_or_else(|| CompileError::NoVhostPort { pool: index, name: member.frps.clone() })?;
                Ok(Member {
                    state: carry.member_state(pool, &id, now),
                    priority: member.priority,
                    zone: frps.zone.as_deref().map(Into::into),
                    local: frps.zone.is_some() && frps.zone == config.zone,
                    key: id.key(),
                    endpoint: carry.endpoint(id),
                    weight: member.weight,
                    not_found_marker: frps.not_found_marker.as_ref().map(|marker| marker.as_bytes().into()),
                    frps: number,
                })
            })
            .collect::<Result<Vec<_>, CompileError>>()?;
        let tiered = members.iter().any(|member| member.priority > 0)
            || (pool.locality != Locality::Ignore
                && members.iter().any(|member| member.local)
                && members.iter().any(|member| !member.local));
        let policy = policy(pool);
        let shape = PoolShape {
            policy,
            keyed: keyed(pool),
            members: members.iter().map(|member| (member.endpoint.number, member.weight)).collect(),
        };
        let identity = carry.pool(&pool.name, shape, |shape| tables(shape, &members));
        Ok(Arc::new(Pool {
            name: pool.name.as_str().into(),
            slot: identity.slot,
            revision: identity.revision,
            policy,
            members,
            connect_timeout: pool.connect_timeout,
            keepalive: pool.keepalive,
            fail_timeout: pool.fail_timeout,
            absent_timeout: pool.absent_timeout,
            retry: pool.retry.clone(),
            slow_start: pool.slow_start,
            latency_decay: pool.latency_decay,
            locality: pool.locality,
            panic_threshold: pool.panic_threshold,
            outlier: pool.outlier,
            limits: pool.limits,
            affinity: pool.affinity.clone(),
            tiered,
            balance: pool.balance,
            sealer: match &pool.affinity {
                Some(model::Affinity::Cookie(cookie)) => Some(Arc::new(Sealer::new(cookie, &pool.name))),
                Some(_) | None => None,
            },
            workers: carry.workers(),
            prepared: identity.tables.prepared,
            keyed: identity.tables.keyed,
            bell: identity.bell,
            queue: identity.queue,
            limited: pool.limits.in_flight.is_some()
                || pool.limits.connections.is_some()
                || pool.limits.adaptive.is_some(),
            stats: identity.stats,
        }))
    };
    config.pools.iter().enumerate().map(compile).collect()
}

/// The one place that maps the file's word to the algorithm.
const fn policy(pool: &model::Pool) -> PolicyKind {
    match pool.balance {
        Balance::RoundRobin => PolicyKind::RoundRobin,
        Balance::Random => PolicyKind::Random,
        Balance::LeastRequest => PolicyKind::LeastRequest,
        Balance::PeakEwma => PolicyKind::PeakEwma,
        Balance::Maglev => PolicyKind::Maglev { bound: pool.hash_bound },
        Balance::RingHash => PolicyKind::RingHash { bound: pool.hash_bound },
    }
}

/// The rule for requests that carry a key, where the pool's own doesn't look at keys.
const fn keyed(pool: &model::Pool) -> Option<PolicyKind> {
    match (pool.balance, &pool.affinity) {
        (Balance::Maglev | Balance::RingHash, _) | (_, None | Some(Affinity::Cookie(_))) => None,
        (
            Balance::RoundRobin | Balance::Random | Balance::LeastRequest | Balance::PeakEwma,
            Some(Affinity::Header(_) | Affinity::Query(_) | Affinity::SourceIp { .. }),
        ) => Some(PolicyKind::Maglev { bound: pool.hash_bound }),
    }
}

fn tables(shape: &PoolShape, members: &[Member]) -> Tables {
    let places: Vec<_> = members
        .iter()
        .map(|member| Place {
            host: &member.endpoint.id.host,
            port: member.endpoint.id.port,
            key: member.key,
            weight: member.weight,
        })
        .collect();
    Tables {
        prepared: Prepared::build(shape.policy, &places),
        keyed: shape.keyed.map(|kind| (kind, Prepared::build(kind, &places))),
    }
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
        let route = Route::compile(route, splits).map_err(|source| CompileError::Regex { index, source })?;
        Ok(Arc::new(route))
    };
    config.routes.iter().enumerate().map(compile).collect()
}

/// By slot: what is configured, and what was removed a moment ago and still answers.
fn listeners(
    config: &Config,
    routes: &[Arc<Route>],
    carry: &mut Carry<'_>,
    now: Tick,
) -> Vec<Option<Arc<Listener>>> {
    carry.retire_listeners(config.listeners.iter().map(|listener| listener.name.as_str()), now);
    let mut routers: HashMap<Vec<usize>, Arc<Router>> = HashMap::new();
    for listener in &config.listeners {
        let served: Vec<usize> = (0..config.routes.len())
            .filter(|index| {
                let names = &config.routes[*index].listeners;
                names.is_empty() || names.contains(&listener.name)
            })
            .collect();
        let router = routers.entry(served).or_insert_with_key(|served| {
            let chosen = served
                .iter()
                .map(|index| (config.routes[*index].matches.hosts.clone(), Arc::clone(&routes[*index])));
            Arc::new(Router::new(chosen))
        });
        let (slot, stats) = carry.listener_identity(&listener.name);
        carry.set_listener(Arc::new(Listener {
            name: listener.name.as_str().into(),
            slot,
            router: Arc::clone(router),
            trusted_proxies: listener.trusted_proxies.clone(),
            timeouts: listener.timeouts.clone(),
            head_limits: HeadLimits {
                head_bytes: listener.limits.head_bytes,
                line_bytes: listener.limits.request_line_bytes,
                fields: listener.limits.headers,
            },
            limits: listener.limits.clone(),
            stats,
        }));
    }
    carry.listeners_by_slot()
}

#[cfg(test)]
mod tests;
