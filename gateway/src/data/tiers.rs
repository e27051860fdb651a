//! Which part of a pool is used first: the lowest priority that has somebody, in it the gateway's own zone as far as it can
//! carry the traffic ([`lb_algos::local_share`]); and whether so few are healthy that health is ignored.
//!
//! The picture is O(n) to take, so a worker keeps it for some milliseconds, and takes it anew at once when it turned out
//! wrong.

use std::time::Duration;

use frp_gateway_config::model::Locality;
use lb_algos::{Rng, Tick, locality::local_share};

use super::reason::Among;
use crate::snapshot::{Gate, Member, Pool};

/// How long a picture is used.
const KEEP: Duration = Duration::from_millis(5);

/// A part of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// Only members of this priority.
    priority: u32,
    /// Only those in the gateway's zone, or only the others; `None` = both.
    local: Option<bool>,
}

impl Tier {
    /// Whether `member` belongs to it.
    #[must_use]
    pub fn has(self, member: &Member) -> bool {
        member.priority == self.priority && self.local.is_none_or(|local| member.local == local)
    }

    /// The word for it.
    #[must_use]
    pub const fn among(self) -> Among {
        match (self.priority, self.local) {
            (1.., _) => Among::Standby,
            (0, None) => Among::All,
            (0, Some(true)) => Among::Local,
            (0, Some(false)) => Among::Remote,
        }
    }
}

/// What a worker last saw of a pool.
#[derive(Debug, Default)]
pub struct Outlook {
    until: Option<Tick>,
    priority: Option<u32>,
    /// Share of requests that stay in the own zone; `None` = zones don't matter.
    local_share: Option<f64>,
    panic: bool,
}

impl Outlook {
    /// Looks again when the last look is too old.
    pub fn refresh(&mut self, pool: &Pool, now: Tick) {
        if self.until.is_none_or(|until| until <= now) {
            self.recount(pool, now);
        }
    }

    /// Looks again.
    pub fn recount(&mut self, pool: &Pool, now: Tick) {
        let counted = || pool.members.iter().filter(|member| member.weight > 0);
        let fit = |member: &&Member| member.state.is_healthy() && !member.state.is_ejected(now);
        self.panic = pool.panic_threshold > 0
            && counted().filter(fit).count() * 100 < counted().count() * pool.panic_threshold as usize;
        let usable = |member: &&Member| {
            (self.panic || fit(member))
                && !member.endpoint.is_down(now)
                && member.endpoint.is_open()
                && (!pool.limited
                    || member.endpoint.in_flight() < pool.in_flight_limit(member)
                        && !Gate::is_full(member.gate.as_ref()))
        };
        self.priority = counted().filter(usable).map(|member| member.priority).min();
        self.local_share = match (pool.locality, self.priority) {
            (Locality::Prefer { spill }, Some(priority)) => {
                let level = || counted().filter(move |member| member.priority == priority);
                let sum = |members: &mut dyn Iterator<Item = &Member>| {
                    members.map(|member| u64::from(member.weight)).sum::<u64>()
                };
                let total = sum(&mut level().filter(|member| member.local));
                let eligible = sum(&mut level().filter(|member| member.local).filter(usable));
                let others = sum(&mut level().filter(|member| !member.local).filter(usable));
                Some(local_share(eligible, total, spill, others))
            }
            (Locality::Ignore | Locality::Prefer { .. }, _) => None,
        };
        self.until = Some(now.saturating_add(KEEP));
    }

    /// Whether health is ignored.
    #[must_use]
    pub const fn is_panic(&self) -> bool {
        self.panic
    }

    /// The lowest priority that has somebody, in all zones.
    #[must_use]
    pub fn level(&self) -> Option<Tier> {
        Some(Tier { priority: self.priority?, local: None })
    }

    /// Draws the tier for one request; `None` when nobody is usable.
    pub fn draw(&self, rng: &mut Rng) -> Option<Tier> {
        let local = self.local_share.map(|share| rng.f64() < share);
        Some(Tier { priority: self.priority?, local })
    }
}
