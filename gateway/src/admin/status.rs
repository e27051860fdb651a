//! `GET /api/v1/status`: how every pool stands. Counters since the start; rates come from two readings.

use std::{net::SocketAddr, sync::Arc};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use super::{App, certificates::CertificatesStatus};
use crate::{
    clock,
    control::state::State as ControlState,
    data::{explain, tiers::Outlook},
    snapshot::{Member, Pool, Snapshot},
    telemetry::{shard::Counter, stats::PoolShard},
};

/// One reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Time of the reading: milliseconds since the gateway started.
    pub at_ms: u64,
    /// Number of the configuration in force.
    pub generation: u64,
    /// Whether the last reload was refused.
    pub reload_refused: bool,
    /// Why no new visitors should come; absent when they may.
    pub not_ready: Option<String>,
    /// In file order.
    pub listeners: Vec<ListenerStatus>,
    /// Those with an admin API, by name.
    pub frps: Vec<FrpsStatus>,
    /// In file order.
    pub pools: Vec<PoolStatus>,
    /// Of listeners that end TLS.
    #[serde(default)]
    pub certificates: CertificatesStatus,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub listener: String,
    /// The address that is really bound.
    pub address: Option<SocketAddr>,
    /// Visitors' connections.
    pub open: u64,
}

/// What is known from one frps's admin API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrpsStatus {
    /// Its name.
    pub frps: String,
    /// The listing in use is not what it said last.
    pub stale: bool,
    /// Why the last try gave no listing.
    pub fault: Option<String>,
    /// Tunnels in the listing in use.
    pub tunnels: usize,
}

/// One pool. What isn't said to be now is counted since the pool exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub pool: String,
    /// The rule that picks, as in the file.
    pub balance: String,
    /// Health is ignored now, because too few members are healthy.
    pub panic: bool,
    /// Requests in line now.
    pub waiting: u32,
    /// Attempts after the first.
    pub retries: u64,
    /// Retries not made because the budget was empty.
    pub budget_exhausted: u64,
    /// Second attempts beside a slow one.
    pub hedges: u64,
    /// Requests refused because the queue was full or the wait too long.
    pub overflowed: u64,
    /// Requests whose attempts or endpoints ran out.
    pub exhausted: u64,
    /// In file order.
    pub members: Vec<MemberStatus>,
}

/// One member. What isn't said to be counted is as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub endpoint: String,
    /// Zone of its frps.
    pub zone: Option<String>,
    /// One word: `up`, `down`, `unhealthy`, `ejected`, `full`, `drained` (weight 0), `slow_start` or `standby`.
    pub state: String,
    /// All that is known against it, or `up`.
    pub verdicts: Vec<String>,
    /// 0 is used first.
    pub priority: u32,
    /// As configured.
    pub weight: u32,
    /// After slow start.
    pub effective_weight: f64,
    /// Requests sent there and not ended.
    pub in_flight: u32,
    /// Most of them; the adaptive limit where there is one.
    pub limit: Option<u32>,
    /// Open connections, idle ones included.
    pub connections: u32,
    /// Expected time to the response head; absent = nothing was heard yet.
    pub latency_ms: Option<f64>,
    /// Time that its ejection still lasts; absent = it isn't ejected.
    pub ejected_for_ms: Option<u64>,
    /// Attempts that ended, counted.
    pub requests: u64,
    /// Those of them that speak against it, counted.
    pub failures: u64,
}

/// Most pools of tunnels without a configuration of their own that are shown.
const MOST_AUTO: usize = 20;

/// How everything stands. O(pools × members × workers).
pub async fn status(State(app): State<App>) -> Json<Status> {
    let certificates = CertificatesStatus::read(app.control.certificates());
    Json(Status { certificates, ..read(&app.control.state(), &app.published.load()) })
}

fn read(state: &ControlState, snapshot: &Snapshot) -> Status {
    let now = clock::now();
    let listeners = state.config.iter().flat_map(|config| &config.listeners);
    let open = |name: &str| {
        let found = snapshot.listeners.iter().flatten().find(|listener| &*listener.name == name);
        found.map_or(0, |listener| listener.stats.sum(|shard| &shard.open))
    };
    Status {
        at_ms: now.as_nanos() / 1_000_000,
        generation: snapshot.generation,
        reload_refused: !state.reloads.faults.is_empty(),
        not_ready: state.readiness(now).err(),
        listeners: listeners
            .map(|listener| ListenerStatus {
                listener: listener.name.clone(),
                address: state.addresses.get(&listener.name).copied(),
                open: open(&listener.name),
            })
            .collect(),
        frps: state
            .frps
            .iter()
            .map(|(name, frps)| FrpsStatus {
                frps: name.clone(),
                stale: frps.is_stale(),
                fault: frps.fault.clone(),
                tunnels: frps.tunnels(),
            })
            .collect(),
        pools: snapshot
            .pools
            .iter()
            .map(Arc::as_ref)
            .chain(busiest(snapshot))
            .map(|pool| of_pool(pool, now))
            .collect(),
        certificates: CertificatesStatus::default(),
    }
}

/// Pools of tunnels without a configuration of their own: those with the most traffic, by name.
fn busiest(snapshot: &Snapshot) -> Vec<&Pool> {
    let attempts = |pool: &Pool| -> u64 {
        let totals = pool.members.iter().map(|member| member.state.totals());
        totals.map(|totals| totals.successes + totals.failures).sum()
    };
    let all = snapshot.tunnel_pools().map(|pool| &**pool);
    let mut all: Vec<_> = all.map(|pool| (std::cmp::Reverse(attempts(pool)), pool)).collect();
    all.sort_by(|one, other| (one.0, &one.1.name).cmp(&(other.0, &other.1.name)));
    all.truncate(MOST_AUTO);
    all.sort_by(|one, other| one.1.name.cmp(&other.1.name));
    all.into_iter().map(|(_, pool)| pool).collect()
}

fn of_pool(pool: &Pool, now: lb_algos::Tick) -> PoolStatus {
    let mut outlook = Outlook::default();
    outlook.recount(pool, now);
    // Tunnels' pools count together.
    let sum = |counter: fn(&PoolShard) -> &Counter| if pool.auto { 0 } else { pool.stats.sum(counter) };
    PoolStatus {
        pool: pool.name.to_string(),
        balance: explain::word(pool.balance).to_owned(),
        panic: outlook.is_panic(),
        waiting: pool.queue.len(),
        retries: sum(|shard| &shard.retries),
        budget_exhausted: sum(|shard| &shard.budget_exhausted),
        hedges: sum(|shard| &shard.hedges),
        overflowed: sum(|shard| &shard.overflowed),
        exhausted: sum(|shard| &shard.exhausted),
        members: pool.members.iter().map(|member| of_member(pool, member, now)).collect(),
    }
}

fn of_member(pool: &Pool, member: &Member, now: lb_algos::Tick) -> MemberStatus {
    let (endpoint, state) = (&member.endpoint, &member.state);
    let totals = state.totals();
    let limit = Some(pool.in_flight_limit(member)).filter(|limit| *limit < u32::MAX);
    let effective_weight = explain::effective_weight(pool, member, now);
    let left = state.ejected_until().filter(|until| *until > now).map(|until| until.since(now));
    let word = if endpoint.is_down(now) {
        "down"
    } else if !state.is_healthy() {
        "unhealthy"
    } else if left.is_some() {
        "ejected"
    } else if explain::has_room(pool, member).is_some() {
        "full"
    } else if member.weight == 0 {
        "drained"
    } else if member.priority > 0 {
        "standby"
    } else if effective_weight < f64::from(member.weight) {
        "slow_start"
    } else {
        "up"
    };
    MemberStatus {
        endpoint: endpoint.label().to_owned(),
        zone: member.zone.as_deref().map(ToOwned::to_owned),
        state: word.to_owned(),
        verdicts: explain::verdicts(pool, member, now),
        priority: member.priority,
        weight: member.weight,
        effective_weight,
        in_flight: endpoint.in_flight(),
        limit,
        connections: endpoint.connections(),
        latency_ms: explain::latency_ms(member, now),
        ejected_for_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        requests: totals.successes + totals.failures,
        failures: totals.failures,
    }
}

#[cfg(test)]
mod tests;
