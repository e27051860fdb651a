//! The outlier watch of one pool: looks at what the workers have counted, every second and at once when the pool's bell
//! rings; ejects, readmits and adapts limits.
//!
//! The watch itself holds nothing. Rules and members are those of the published snapshot, what is known of a member belongs
//! to the member ([`super::memory`]): neither a reload nor an end of the watch readmits anybody. Requests see the end of an
//! ejection by the clock, so a late watch keeps nobody out.

use std::{sync::MutexGuard, time::Duration};

use frp_gateway_config::model::Outlier;
use lb_algos::{
    Tick,
    outlier::{Cause, Change, Ejection, OutlierRules, Sample, judge},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::memory::{Adapting, Memory};
use crate::{
    clock,
    snapshot::{Member, Pool, Published},
};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The same where limits adapt: in-flight counts are sampled, and their peak counts.
const LOOK_ADAPTING: Duration = Duration::from_millis(100);
/// However often the bell rings, looks are this far apart: a pool that fails as a whole must not occupy the control plane.
const GAP: Duration = Duration::from_millis(10);

/// Watches the pool of that name until aborted.
pub async fn watch(pool: String, published: Published) {
    loop {
        let looked = Instant::now();
        let present = published.load().pools.iter().find(|present| *present.name == *pool).cloned();
        match present {
            Some(present) => {
                let wait = look(&present, clock::now());
                tokio::select! {
                    () = present.bell.notified() => {}
                    () = sleep(wait) => {}
                }
            }
            None => sleep(LOOK).await, // only for a moment: who removes a pool ends its watch
        }
        sleep_until(looked + GAP).await;
    }
}

/// One look at a pool; answers how long the next one may wait, unless the bell rings.
pub fn look(pool: &Pool, now: Tick) -> Duration {
    // A pool names each member once, so no lock is taken twice; and nobody else takes two.
    let mut memories: Vec<_> = pool.members.iter().map(|member| member.state.memory()).collect();
    let mut wait = if pool.limits.adaptive.is_some() { LOOK_ADAPTING } else { LOOK };
    if let Some(outlier) = &pool.outlier {
        let rules = rules(outlier);
        eject_and_readmit(pool, &rules, outlier.window, &mut memories, now);
        for (member, memory) in pool.members.iter().zip(&memories) {
            let (failures, gateway_errors) = memory.ejection.failures_that_eject(&rules, now);
            member.state.set_alarm(failures, gateway_errors);
            if let Some(until) = memory.ejection.until() {
                wait = wait.min(until.since(now));
            }
        }
    }
    if let Some(bounds) = pool.limits.adaptive {
        for (member, memory) in pool.members.iter().zip(&mut memories) {
            let totals = member.state.totals();
            let known = memory.adapting.take().filter(|adapting| adapting.bounds() == bounds);
            let adapting =
                memory.adapting.insert(known.unwrap_or_else(|| Adapting::new(bounds, totals, now)));
            member.state.set_limit(adapting.observe(member.endpoint.in_flight(), totals, now));
        }
    }
    wait
}

fn eject_and_readmit(
    pool: &Pool,
    rules: &OutlierRules,
    window: Duration,
    memories: &mut [MutexGuard<'_, Memory>],
    now: Tick,
) {
    let mut samples = Vec::with_capacity(memories.len());
    for (member, memory) in pool.members.iter().zip(&mut *memories) {
        let asked_back = member.state.take_asked_back();
        let over = memory.ejection.until().is_some_and(|until| until <= now);
        let early = !over && asked_back && memory.ejection.readmit_early(now);
        if over || early {
            // From here on its failures count from nothing.
            member.state.clear_in_row();
        }
        if early {
            readmit(pool, member, memory, now, "probe");
        }
        samples.push(sample(member, memory, window, now));
    }
    let mut ejections: Vec<Ejection> = memories.iter().map(|memory| memory.ejection).collect();
    let changes = judge(rules, &samples, &mut ejections, now);
    for (memory, ejection) in memories.iter_mut().zip(ejections) {
        memory.ejection = ejection;
    }
    for change in changes {
        match change {
            Change::Eject { index, until, cause } => eject(pool, &pool.members[index], until, cause, now),
            Change::Readmit { index } => {
                readmit(pool, &pool.members[index], &mut memories[index], now, "time");
            }
        }
    }
}

fn sample(member: &Member, memory: &mut Memory, window: Duration, now: Tick) -> Sample {
    let counted = memory.window.observe(member.state.totals(), window, now);
    let (failures_in_row, gateway_errors_in_row) = member.state.in_row();
    Sample {
        failures_in_row,
        gateway_errors_in_row,
        successes: counted.successes,
        failures: counted.failures,
        mean_latency: counted.mean_latency(),
        serves: member.weight > 0 && member.state.is_healthy(),
    }
}

fn eject(pool: &Pool, member: &Member, until: Tick, cause: Cause, now: Tick) {
    member.state.eject(until);
    member.state.count_ejection(cause);
    let (pool, endpoint, cause) = (&*pool.name, member.endpoint.label(), cause.label());
    let out = until.since(now);
    tracing::warn!(%pool, %endpoint, %cause, "for" = ?out, "endpoint ejected");
}

fn readmit(pool: &Pool, member: &Member, memory: &mut Memory, now: Tick, by: &'static str) {
    member.state.readmit(now);
    memory.window.restart(member.state.totals(), now);
    tracing::info!(pool = %pool.name, endpoint = %member.endpoint.label(), by, "endpoint readmitted");
}

/// The one place that maps the file's words to the decision's.
fn rules(outlier: &Outlier) -> OutlierRules {
    OutlierRules {
        consecutive_failures: outlier.consecutive_failures,
        consecutive_gateway_errors: outlier.consecutive_gateway_errors,
        success_ratio: outlier.success_ratio.map(|ratio| (ratio.minimum, ratio.min_requests)),
        latency_factor_percent: outlier.latency_factor,
        base_ejection: outlier.base_ejection,
        max_ejection: outlier.max_ejection,
        max_ejected_percent: outlier.max_ejected,
    }
}

#[cfg(test)]
mod tests;
