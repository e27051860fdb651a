//! Each member with what is known of it, and whether the pick could fall on it.
//!
//! The conditions are [`pick`](crate::data::pick)'s, told one by one; a test holds them against what is really picked.

use std::time::Duration;

use lb_algos::{
    Tick,
    slow_start::{FULL, slow_start},
};

use super::{pool::Runs, view::Candidate};
use crate::{
    data::pick::Knowledge,
    snapshot::{Gate, Member, Pool},
};

/// Which conditions hold where the pick comes to rest: the first of pick's steps that has anybody.
#[derive(Debug)]
pub(super) struct Stage {
    /// Health and ejections are ignored.
    pub(super) panic: bool,
    holders: bool,
    ejected: bool,
    down: bool,
    /// Members of higher priority numbers stand by.
    priority: Option<u32>,
}

impl Stage {
    /// Where a pick in `pool` comes to rest. O(members).
    pub(super) fn of(pool: &Pool, known: Knowledge<'_>, panic: bool) -> Self {
        let base = Self { panic, holders: false, ejected: panic, down: false, priority: None };
        let stages = [
            (!known.holders.is_empty()).then_some(Self { holders: true, ..base }),
            Some(Self { ..base }),
            Some(Self { ejected: true, ..base }),
        ];
        let last = Self { ejected: true, down: true, ..base };
        let serves = |stage: &Self| {
            pool.members.iter().any(|member| member.weight > 0 && stage.refuses(member, known).is_none())
        };
        let mut stage = stages.into_iter().flatten().find(serves).unwrap_or(last);
        if pool.tiered {
            let usable = |member: &&Member| {
                member.weight > 0 && base.refuses(member, known).is_none() && has_room(pool, member).is_none()
            };
            let first = pool.members.iter().filter(usable).map(|member| member.priority).min();
            // Tiers yield when none of the first could be picked here.
            stage.priority = first.filter(|first| {
                pool.members.iter().any(|member| {
                    member.priority == *first
                        && member.weight > 0
                        && stage.refuses(member, known).is_none()
                        && has_room(pool, member).is_none()
                })
            });
        }
        stage
    }

    /// Why `member` is left out here, limits, weight and tiers apart.
    fn refuses(&self, member: &Member, known: Knowledge<'_>) -> Option<String> {
        if !self.panic && !member.state.is_healthy() {
            return Some("unhealthy".to_owned());
        }
        if !self.ejected && member.state.is_ejected(known.now) {
            return Some("ejected".to_owned());
        }
        if !self.down && member.endpoint.is_down(known.now) {
            return Some("down".to_owned());
        }
        if self.holders && !known.holders.contains(&member.frps) {
            return Some("its frps lists no tunnel for the host".to_owned());
        }
        None
    }
}

/// All members in file order. Score and rank are left open.
pub(super) fn all(pool: &Pool, known: Knowledge<'_>, stage: &Stage, runs: &Runs) -> Vec<Candidate> {
    let mut all: Vec<_> = pool
        .members
        .iter()
        .zip(&runs.hits)
        .map(|(member, hits)| Candidate {
            share: tidy(f64::from(*hits) / f64::from(runs.total.max(1)) * 100.0),
            ..candidate(pool, member, known, stage)
        })
        .collect();
    // Which zone serves is drawn: a zone that never was, isn't looked at.
    let drawn = |local: bool| all.iter().any(|one| one.local == local && one.share > 0.0);
    let (own, others) = (drawn(true), drawn(false));
    if pool.tiered && matches!(pool.locality, frp_gateway_config::model::Locality::Prefer { .. }) {
        for one in all.iter_mut().filter(|one| one.eligible) {
            if (one.local && !own && others) || (!one.local && !others && own) {
                one.eligible = false;
                one.why_not = Some("other zone".to_owned());
            }
        }
    }
    all
}

fn candidate(pool: &Pool, member: &Member, known: Knowledge<'_>, stage: &Stage) -> Candidate {
    let limit = Some(pool.in_flight_limit(member)).filter(|limit| *limit < u32::MAX);
    let why_not = (member.weight == 0)
        .then(|| "weight 0".to_owned())
        .or_else(|| stage.refuses(member, known))
        .or_else(|| has_room(pool, member))
        .or_else(|| stage.priority.filter(|first| member.priority != *first).map(|_| "stands by".to_owned()));
    Candidate {
        endpoint: member.endpoint.label().to_owned(),
        address: address(member),
        zone: member.zone.as_deref().map(ToOwned::to_owned),
        local: member.local,
        priority: member.priority,
        weight: member.weight,
        effective_weight: effective_weight(pool, member, known.now),
        in_flight: member.endpoint.in_flight(),
        limit,
        connections: member.endpoint.connections(),
        connection_limit: pool.limits.connections,
        latency_ms: latency_ms(member, known.now),
        score: None,
        rank: None,
        verdicts: verdicts(pool, member, known.now),
        eligible: why_not.is_none(),
        why_not,
        share: 0.0,
        picked: false,
    }
}

fn address(member: &Member) -> String {
    let id = &member.endpoint.id;
    if id.host.contains(':') {
        format!("[{}]:{}", id.host, id.port)
    } else {
        format!("{}:{}", id.host, id.port)
    }
}

/// The weight that picks go by, in units of the configured one.
pub(crate) fn effective_weight(pool: &Pool, member: &Member, now: Tick) -> f64 {
    let Some((window, since)) = pool.slow_start.zip(member.state.since()) else {
        return f64::from(member.weight);
    };
    tidy(f64::from(slow_start(member.weight, now.since(since), window)) / f64::from(FULL))
}

/// Expected time to the response head; `None` = nothing was heard yet.
pub(crate) fn latency_ms(member: &Member, now: Tick) -> Option<f64> {
    member.state.latency.estimate(now).map(|latency| tidy(latency.as_secs_f64() * 1e3))
}

/// To three places: more would only look exact.
pub(super) fn tidy(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// Everything known against `member` at `now`, in words; `up` when there is nothing.
pub(crate) fn verdicts(pool: &Pool, member: &Member, now: Tick) -> Vec<String> {
    let left = |until: Option<Tick>| seconds(until.map_or(Duration::ZERO, |until| until.since(now)));
    let mut all = Vec::new();
    if !member.state.is_healthy() {
        all.push("unhealthy".to_owned());
    }
    if member.state.is_ejected(now) {
        all.push(format!("ejected for {}", left(member.state.ejected_until())));
    }
    if member.endpoint.is_down(now) {
        all.push(format!("down for {}", left(member.endpoint.down_until())));
    }
    if member.weight == 0 {
        all.push("weight 0".to_owned());
    }
    all.extend(has_room(pool, member));
    if member.state.latency.backs_off(now) {
        all.push("asked to be left alone".to_owned());
    }
    let effective = effective_weight(pool, member, now);
    if effective < f64::from(member.weight) {
        all.push(format!("slow start at {:.0} %", effective / f64::from(member.weight) * 100.0));
    }
    if all.is_empty() {
        all.push("up".to_owned());
    }
    all
}

/// `None` when it has room; else which limit is reached.
pub(crate) fn has_room(pool: &Pool, member: &Member) -> Option<String> {
    if !pool.limited {
        return None;
    }
    let (in_flight, limit) = (member.endpoint.in_flight(), pool.in_flight_limit(member));
    if in_flight >= limit {
        return Some(format!("at its limit ({in_flight} of {limit} in flight)"));
    }
    let full = |gate: Option<&Gate>, what: &str| {
        let gate = gate.filter(|gate| !gate.has_room())?;
        Some(format!("its frps is at its limit ({} of {} {what})", gate.load(), gate.limit()))
    };
    if let Some(why) = full(member.gate.as_ref(), "in flight") {
        return Some(why);
    }
    let open = member.endpoint.connections();
    // An idle connection is as good as a new one, for the worker that has it.
    if open > in_flight {
        return None;
    }
    match pool.limits.connections {
        Some(most) if open >= most => Some(format!("at its limit ({open} of {most} connections)")),
        Some(_) | None => full(member.connections.as_ref(), "connections"),
    }
}

/// Rounded up to tenths, so that what isn't over isn't called 0.
fn seconds(left: Duration) -> String {
    format!("{:.1} s", (left.as_secs_f64() * 10.0).ceil() / 10.0)
}
