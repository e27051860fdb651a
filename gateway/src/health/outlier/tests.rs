//! Looks at a pool at made-up times; only the tests of [`watch`] itself have a runtime, and its clock is paused.

use std::sync::Arc;

use frp_gateway_config::model::{self, AdaptiveLimit, Config};

use super::*;
use crate::{
    control::{
        compile::{Identities, compile_bare},
        testing::{config_with, frps, outlier, pool},
    },
    snapshot::{MemberState, Outcome, Snapshot},
    telemetry::shard::WorkerId,
};

const DECAY: Duration = Duration::from_secs(2);
const MS: Duration = Duration::from_millis(1);

/// A pool of `members` with outlier rules, reloaded and looked at second by second.
struct Watched {
    members: usize,
    identities: Identities,
    snapshot: Snapshot,
    now: Tick,
}

impl Watched {
    fn new(members: usize, change: impl FnOnce(&mut model::Pool)) -> Self {
        let now = Tick::ZERO.saturating_add(Duration::from_secs(1000));
        let mut watched =
            Self { members, identities: Identities::new(2), snapshot: Snapshot::default(), now };
        watched.reload(change);
        watched.look();
        watched
    }

    fn reload(&mut self, change: impl FnOnce(&mut model::Pool)) {
        let config = self.config(change);
        let compiled = compile_bare(&config, 1, &self.identities, self.now).unwrap();
        compiled.settlement.apply(self.now);
        (self.snapshot, self.identities) = (compiled.snapshot, compiled.identities);
    }

    fn config(&self, change: impl FnOnce(&mut model::Pool)) -> Arc<Config> {
        let names: Vec<_> = (0..self.members).map(|n| format!("f{n}")).collect();
        config_with(|config| {
            config.frps = names.iter().map(|name| frps(name, 8000)).collect();
            let members: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
            config.pools = vec![pool("shop", &members)];
            config.pools[0].outlier = Some(outlier());
            change(&mut config.pools[0]);
        })
    }

    fn pool(&self) -> &Arc<Pool> {
        &self.snapshot.pools[0]
    }

    /// By name, so that the order of members may change.
    fn state(&self, number: usize) -> &Arc<MemberState> {
        let name = format!("f{number}");
        &self.pool().members.iter().find(|member| member.endpoint.label() == name).unwrap().state
    }

    fn fails(&self, number: usize, times: usize) {
        for _ in 0..times {
            self.state(number).record(WorkerId(0), Outcome::GatewayError, MS, self.now, DECAY);
        }
    }

    fn answers(&self, number: usize, times: usize, took: Duration) {
        for _ in 0..times {
            self.state(number).record(WorkerId(1), Outcome::Success, took, self.now, DECAY);
        }
    }

    fn look(&mut self) -> Duration {
        look(&Arc::clone(self.pool()), self.now)
    }

    /// One look each second.
    fn seconds(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.pass(Duration::from_secs(1));
            self.look();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
    }

    /// Numbers of those that are out now.
    fn out(&self) -> Vec<usize> {
        (0..self.members).filter(|number| self.state(*number).is_ejected(self.now)).collect()
    }

    fn causes(&self, number: usize) -> Vec<(Cause, u64)> {
        self.state(number).ejections().filter(|(_, count)| *count > 0).collect()
    }
}

#[test]
fn a_member_is_out_at_the_threshold_and_not_before() {
    let mut watched = Watched::new(3, |_| {});
    watched.fails(1, 2);
    assert!(!watched.state(1).is_alarming(watched.state(1).in_row()));
    watched.look();
    assert_eq!(watched.out(), [] as [usize; 0]);
    watched.fails(1, 1);
    assert!(watched.state(1).is_alarming(watched.state(1).in_row()), "the watch should look at once");
    watched.look();
    assert_eq!(watched.out(), [1]);
    assert_eq!(watched.causes(1), [(Cause::ConsecutiveGatewayErrors, 1)]);
}

#[test]
fn the_cap_leaves_members_in_whatever_they_do() {
    let mut watched = Watched::new(2, |_| {});
    (0..2).for_each(|number| watched.fails(number, 50));
    watched.look();
    assert_eq!(watched.out().len(), 1, "one of two, never the last");
    let mut watched = Watched::new(5, |_| {});
    (0..5).for_each(|number| watched.fails(number, 50));
    watched.seconds(3);
    assert_eq!(watched.out().len(), 2, "half of five");
}

#[test]
fn an_ejection_ends_by_the_clock_and_the_return_is_slow_and_on_probation() {
    let mut watched = Watched::new(3, |_| {});
    watched.fails(0, 3);
    let wait = watched.look();
    assert_eq!(wait, LOOK, "its end is further off than the next look");
    watched.seconds(9);
    assert_eq!(watched.out(), [0]);
    watched.pass(Duration::from_millis(400));
    assert_eq!(watched.look(), Duration::from_millis(600), "the next look is when it ends");
    watched.pass(Duration::from_millis(600));
    assert_eq!(watched.out(), [] as [usize; 0], "requests see it before the watch does");
    watched.look();
    let state = watched.state(0);
    assert_eq!((state.since(), state.in_row()), (Some(watched.now), (0, 0)));
    assert_eq!(state.ejected_until(), None);
    assert!(state.is_alarming((1, 1)), "one failure is enough now");
    watched.seconds(1);
    watched.fails(0, 1);
    watched.look();
    assert_eq!(watched.out(), [0]);
    watched.seconds(19);
    assert_eq!(watched.out(), [0], "twice as long the second time");
    watched.seconds(1);
    assert_eq!(watched.out(), [] as [usize; 0]);
}

#[test]
fn a_successful_probe_ends_a_first_ejection_at_once_and_a_second_one_not_before_its_base_time() {
    let mut watched = Watched::new(3, |_| {});
    watched.fails(2, 3);
    watched.look();
    watched.seconds(1);
    watched.state(2).ask_back();
    watched.look();
    assert_eq!(watched.out(), [] as [usize; 0]);
    assert_eq!(watched.state(2).since(), Some(watched.now), "slowly");
    watched.fails(2, 1);
    watched.look();
    assert_eq!(watched.out(), [2], "its probes succeed, its requests don't");
    watched.seconds(9);
    watched.state(2).ask_back();
    watched.look();
    assert_eq!(watched.out(), [2]);
    watched.seconds(1);
    watched.state(2).ask_back();
    watched.look();
    assert_eq!(watched.out(), [] as [usize; 0]);
}

#[test]
fn an_unanswered_wish_to_come_back_does_not_end_a_later_ejection() {
    let mut watched = Watched::new(3, |_| {});
    watched.state(0).ask_back();
    watched.look();
    watched.fails(0, 3);
    watched.look();
    watched.seconds(1);
    assert_eq!(watched.out(), [0]);
}

#[test]
fn a_member_that_fails_every_second_request_is_out_by_its_ratio_and_its_past_is_past_on_return() {
    let mut watched = Watched::new(3, |_| {});
    for _ in 0..4 {
        for _ in 0..8 {
            watched.answers(0, 1, MS);
            watched.fails(0, 1);
        }
        watched.answers(1, 16, MS);
        watched.answers(2, 16, MS);
        watched.seconds(1);
    }
    assert_eq!(watched.out(), [0]);
    assert_eq!(watched.causes(0), [(Cause::SuccessRatio, 1)]);
    watched.state(0).ask_back();
    watched.look();
    (0..3).for_each(|number| watched.answers(number, 30, MS));
    watched.seconds(1);
    assert_eq!(watched.out(), [] as [usize; 0], "the bad seconds are still within the window's length");
}

#[test]
fn a_member_that_is_much_slower_is_out_where_the_rules_say_so() {
    for (factor, out) in [(Some(300), vec![1]), (None, vec![])] {
        let mut watched = Watched::new(3, |pool| {
            pool.outlier = Some(model::Outlier { latency_factor: factor, ..outlier() });
        });
        for _ in 0..2 {
            watched.answers(0, 20, 20 * MS);
            watched.answers(1, 20, 90 * MS);
            watched.answers(2, 20, 25 * MS);
            watched.seconds(1);
        }
        assert_eq!(watched.out(), out, "{factor:?} percent");
    }
}

#[test]
fn other_rules_other_weights_and_another_order_readmit_nobody_and_forget_no_ejection() {
    let mut watched = Watched::new(4, |_| {});
    watched.fails(3, 3);
    watched.look();
    let until = watched.state(3).ejected_until();
    for n in 0..200 {
        watched.reload(|pool| {
            pool.frps.rotate_left(n % 4);
            pool.frps[n % 4].weight = u32::try_from(n).unwrap() + 1;
            pool.outlier =
                Some(model::Outlier { base_ejection: Duration::from_secs(10 + n as u64), ..outlier() });
        });
        watched.look();
        assert_eq!((watched.out(), watched.state(3).ejected_until()), (vec![3], until), "reload {n}");
    }
    watched.reload(|_| {});
    watched.seconds(10);
    assert_eq!(watched.out(), [] as [usize; 0]);
    watched.fails(3, 1);
    watched.look();
    watched.seconds(19);
    assert_eq!(watched.out(), [3], "the first ejection still counts");
}

#[test]
fn without_rules_nobody_stays_out_and_the_past_is_forgotten() {
    let mut watched = Watched::new(3, |_| {});
    watched.fails(0, 3);
    watched.look();
    watched.reload(|pool| pool.outlier = None);
    assert_eq!(watched.out(), [] as [usize; 0]);
    watched.reload(|_| {});
    watched.look();
    watched.fails(0, 1);
    watched.look();
    assert_eq!(watched.out(), [] as [usize; 0], "no probation");
}

#[test]
fn nobody_is_ejected_for_what_happened_before_there_were_rules() {
    let mut watched = Watched::new(3, |pool| pool.outlier = None);
    for _ in 0..50 {
        watched.fails(0, 1);
        watched.answers(0, 1, MS);
        watched.answers(1, 2, MS);
        watched.answers(2, 2, MS);
    }
    watched.reload(|_| {});
    watched.look();
    watched.seconds(1);
    assert_eq!(watched.out(), [] as [usize; 0]);
}

fn adaptive(pool: &mut model::Pool) {
    pool.limits.adaptive = Some(AdaptiveLimit { min: 4, max: 50 });
}

#[test]
fn an_adaptive_limit_follows_the_latency_within_its_bounds_and_a_reload_keeps_it() {
    let mut watched = Watched::new(2, adaptive);
    assert_eq!(watched.look(), LOOK_ADAPTING);
    for _ in 0..10 {
        // 20 s of work within a second: 20 at once, as fast as ever.
        watched.answers(0, 2000, 10 * MS);
        watched.seconds(1);
    }
    let grown = watched.state(0).limit();
    assert!((30..=50).contains(&grown), "{grown}");
    assert_eq!(watched.state(1).limit(), 20, "nothing is known of the idle one");
    watched.reload(|pool| {
        adaptive(pool);
        pool.frps.reverse();
        pool.outlier = None;
    });
    watched.look();
    assert_eq!(watched.state(0).limit(), grown);
    for _ in 0..30 {
        // From now on five fit in; what is beyond waits there.
        let waiting = (watched.state(0).limit() / 5).max(1);
        watched.answers(0, 500, 10 * MS * waiting);
        watched.seconds(1);
    }
    let shrunk = watched.state(0).limit();
    assert!(shrunk < grown / 2, "{shrunk} after {grown}");
    watched.reload(|_| {});
    assert_eq!(watched.state(0).limit(), u32::MAX, "no limit, no limit");
}

fn published(watched: &mut Watched) -> Published {
    Arc::new(arc_swap::ArcSwap::from_pointee(std::mem::take(&mut watched.snapshot)))
}

#[tokio::test(start_paused = true)]
async fn the_bell_ejects_without_waiting_for_the_next_look() {
    let mut watched = Watched::new(3, |_| {});
    watched.now = clock::now();
    let published = published(&mut watched);
    let pool = Arc::clone(&published.load().pools[0]);
    let watching = tokio::spawn(watch("shop".into(), published));
    // Past the first look, in the middle of a wait.
    sleep(Duration::from_millis(500)).await;
    let rung = Instant::now();
    for _ in 0..3 {
        pool.members[0].state.record(WorkerId(0), Outcome::GatewayError, MS, clock::now(), DECAY);
    }
    pool.bell.notify_one();
    while !pool.members[0].state.is_ejected(clock::now()) {
        sleep(MS).await;
    }
    assert!(rung.elapsed() <= GAP, "{:?}", rung.elapsed());
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn a_bell_that_never_stops_does_not_occupy_the_control_plane() {
    let mut watched = Watched::new(3, |_| {});
    let published = published(&mut watched);
    let pool = Arc::clone(&published.load().pools[0]);
    let watching = tokio::spawn(watch("shop".into(), published));
    let mut looks = 0;
    for _ in 0..1000 {
        pool.members[0].state.ask_back();
        pool.bell.notify_one();
        sleep(MS).await;
        // Each look takes the wish away.
        looks += u32::from(!pool.members[0].state.take_asked_back());
    }
    assert!((50..=101).contains(&looks), "{looks} looks in a second");
    watching.abort();
}
