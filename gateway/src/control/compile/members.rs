//! What all pools have in common, whoever their members are.

use std::{collections::HashMap, sync::Arc};

use frp_gateway_config::model::{self, Affinity, Balance};
use lb_algos::{Place, PolicyKind, Prepared};

use super::identities::{PoolIdentity, PoolShape, Tables};
use crate::{
    data::affinity::Sealer,
    snapshot::{Member, Pool},
};

/// A pool of `members` with these settings.
pub(super) fn build_pool(
    settings: &model::Pool,
    members: Vec<Member>,
    identity: PoolIdentity,
    workers: u32,
) -> Pool {
    let tiered = members.iter().any(|member| member.priority > 0)
        || (settings.locality != model::Locality::Ignore
            && members.iter().any(|member| member.local)
            && members.iter().any(|member| !member.local));
    let gated = members.iter().any(|member| member.gate.is_some() || member.connections.is_some());
    Pool {
        name: settings.name.as_str().into(),
        slot: identity.slot,
        revision: identity.revision,
        carries: settings.carries,
        proxy_protocol: settings.proxy_protocol,
        protocol: settings.protocol,
        policy: policy(settings),
        guarded: members.iter().any(|member| member.auth().is_some()),
        members,
        connect_timeout: settings.connect_timeout,
        keepalive: settings.keepalive,
        fail_timeout: settings.fail_timeout,
        absent_timeout: settings.absent_timeout,
        retry: settings.retry.clone(),
        hold: settings.hold,
        slow_start: settings.slow_start,
        latency_decay: settings.latency_decay,
        locality: settings.locality,
        panic_threshold: settings.panic_threshold,
        outlier: settings.outlier,
        limits: settings.limits,
        affinity: settings.affinity.clone(),
        tiered,
        balance: settings.balance,
        sealer: match &settings.affinity {
            Some(Affinity::Cookie(cookie)) => Some(Arc::new(Sealer::new(cookie, &settings.name))),
            Some(_) | None => None,
        },
        workers,
        prepared: identity.tables.prepared,
        keyed: identity.tables.keyed,
        bell: identity.bell,
        queue: identity.queue,
        limited: settings.limits.in_flight.is_some()
            || settings.limits.connections.is_some()
            || settings.limits.adaptive.is_some()
            || gated,
        stats: identity.stats,
        auto: false,
        of_tunnels: settings.tunnels.is_some(),
    }
}

/// The one place that maps the file's word to the algorithm.
pub(super) const fn policy(pool: &model::Pool) -> PolicyKind {
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
pub(super) const fn keyed(pool: &model::Pool) -> Option<PolicyKind> {
    match (pool.balance, &pool.affinity) {
        (Balance::Maglev | Balance::RingHash, _) | (_, None | Some(Affinity::Cookie(_))) => None,
        (
            Balance::RoundRobin | Balance::Random | Balance::LeastRequest | Balance::PeakEwma,
            Some(Affinity::Header(_) | Affinity::Query(_) | Affinity::SourceIp { .. }),
        ) => Some(PolicyKind::Maglev { bound: pool.hash_bound }),
    }
}

/// What the policies look keys up in. A tunnel hashes by its name, wherever it is, unless another of the pool has the same.
pub(super) fn tables(shape: &PoolShape, members: &[Member]) -> Tables {
    let mut namesakes: HashMap<&str, u32> = HashMap::new();
    for tunnel in members.iter().filter_map(|member| member.endpoint.id.tunnel.as_ref()) {
        *namesakes.entry(&tunnel.name).or_default() += 1;
    }
    let places: Vec<_> = members
        .iter()
        .map(|member| match &member.endpoint.id.tunnel {
            Some(tunnel) if namesakes.get(&*tunnel.name) == Some(&1) => Place {
                host: &tunnel.name,
                port: 0,
                key: member.key & !u64::from(u32::MAX),
                weight: member.weight,
            },
            Some(_) => {
                Place { host: member.endpoint.label(), port: 0, key: member.key, weight: member.weight }
            }
            None => Place {
                host: &member.endpoint.id.host,
                port: member.endpoint.id.port,
                key: member.key,
                weight: member.weight,
            },
        })
        .collect();
    Tables {
        prepared: Prepared::build(shape.policy, &places),
        keyed: shape.keyed.map(|kind| (kind, Prepared::build(kind, &places))),
    }
}
