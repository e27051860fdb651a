use std::time::{Duration, Instant};

use frp_gateway_config::model::{Config, Health, PathMatch, WeightedPool};

use frp_gateway_config::model::{Affinity, Balance};
use lb_algos::{PolicyKind, Prepared};

use super::{identities::MEMBERS_REMEMBERED, *};
use crate::{
    control::testing::{config_with, frps, health, listener, outlier, pool, route},
    snapshot::{MemberState, Outcome},
    telemetry::shard::WorkerId,
};

/// A chain of compiles, each with what the one before left.
struct Chain {
    identities: Identities,
    snapshot: Snapshot,
    seconds: u64,
}

impl Chain {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut chain = Self { identities: Identities::new(2), snapshot: Snapshot::default(), seconds: 0 };
        chain.next(change);
        chain
    }

    /// Compiles one second later.
    fn next(&mut self, change: impl FnOnce(&mut Config)) {
        self.seconds += 1;
        self.at(self.seconds, change);
    }

    fn at(&mut self, seconds: u64, change: impl FnOnce(&mut Config)) {
        self.seconds = seconds;
        let now = Tick::ZERO.saturating_add(Duration::from_secs(seconds));
        let compiled = compile_bare(&config_with(change), seconds, &self.identities, now).unwrap();
        compiled.settlement.apply(now);
        self.snapshot = compiled.snapshot;
        self.identities = compiled.identities;
    }

    fn pool(&self, name: &str) -> &Arc<Pool> {
        self.snapshot.pools.iter().find(|pool| &*pool.name == name).unwrap()
    }

    fn listener(&self, name: &str) -> &Arc<Listener> {
        self.snapshot.listeners.iter().flatten().find(|listener| &*listener.name == name).unwrap()
    }

    fn split(&self) -> &Split {
        &self.snapshot.routes[0].splits[0]
    }
}

const WORKER: WorkerId = WorkerId(0);

#[test]
fn a_reload_keeps_in_flight_counts_counters_and_verdicts() {
    let checked = |config: &mut Config| config.pools[0].health = Some(health());
    let mut chain = Chain::new(checked);
    let endpoint = Arc::clone(&chain.pool("shop").members[0].endpoint);
    let guard = endpoint.begin();
    chain.pool("shop").members[1].state.set_healthy(false, Tick::ZERO);
    chain.split().stats.latency.of(WORKER).observe_ns(5);
    chain.split().stats.requests[1].of(WORKER).by_class[1].inc();
    chain.listener("web").stats.of(WORKER).accepted.inc();
    chain.next(|config| {
        checked(config);
        // Everything else moves: order of frps and members, another pool, another listener first.
        config.frps.reverse();
        config.pools[0].frps.reverse();
        config.pools[0].health = Some(Health { fall: 7, ..health() });
        config.pools.insert(0, pool("new", &[("a", 1)]));
        config.listeners.insert(0, listener("other"));
    });
    let shop = chain.pool("shop");
    assert_eq!(shop.members[1].endpoint.in_flight(), 1, "a is second now");
    assert!(!shop.members[0].state.is_healthy(), "b is first now");
    assert_eq!(shop.members[0].frps, 0, "and first in the fleet");
    let stats = &chain.split().stats;
    assert_eq!(stats.requests[0].sum(|shard| &shard.by_class[1]), 1);
    let (mut buckets, mut sum) = ([0; 15], 0);
    stats.latency.iter().for_each(|shard| shard.add_to(&mut buckets, &mut sum));
    assert_eq!(sum, 5, "the histogram survives a change of members");
    assert_eq!(chain.listener("web").stats.sum(|shard| &shard.accepted), 1);
    drop(guard);
    assert_eq!(chain.pool("shop").members[1].endpoint.in_flight(), 0);
}

#[test]
fn a_changed_address_is_another_endpoint() {
    let mut chain = Chain::new(|_| {});
    let before = Arc::clone(&chain.pool("shop").members[0].endpoint);
    chain.split().stats.requests[0].of(WORKER).by_class[1].inc();
    chain.next(|config| config.frps[0].vhost_http_port = Some(9999));
    let member = &chain.pool("shop").members[0];
    assert_ne!(member.endpoint.number, before.number);
    assert_eq!(
        chain.split().stats.requests[0].sum(|shard| &shard.by_class[1]),
        0,
        "its counters are its own"
    );
    assert_eq!(Arc::strong_count(&before), 1, "nothing holds on to the old one");
}

#[test]
fn a_revision_changes_with_members_weights_or_policy_and_with_nothing_else() {
    let mut chain = Chain::new(|_| {});
    let revision = |chain: &Chain| chain.pool("shop").revision;
    let first = revision(&chain);
    chain.next(|config| {
        config.pools[0].keepalive = Duration::from_secs(1);
        config.pools[0].health = Some(health());
        config.pools.push(pool("new", &[("a", 1)]));
    });
    assert_eq!(revision(&chain), first);
    assert_ne!(chain.pool("new").revision, first);
    let mut seen = vec![first, chain.pool("new").revision];
    let changes: [fn(&mut Config); 4] = [
        |config| config.pools[0].frps[0].weight = 7,
        |config| config.pools[0].frps.reverse(),
        |config| config.pools[0].balance = Balance::Random,
        |config| config.frps[0].host = "127.0.0.9".into(),
    ];
    for change in changes {
        chain.next(change);
        let revision = revision(&chain);
        assert!(!seen.contains(&revision), "{revision} is new among {seen:?}");
        seen.push(revision);
    }
}

#[test]
fn a_pool_keeps_its_slot_and_a_reused_slot_has_a_revision_of_its_own() {
    let mut chain = Chain::new(|config| config.pools.insert(0, pool("first", &[("a", 1)])));
    let (first, shop) = (chain.pool("first").slot, chain.pool("shop").slot);
    let revision = chain.pool("first").revision;
    chain.next(|config| config.pools.push(pool("late", &[("a", 1)])));
    assert_eq!(chain.pool("shop").slot, shop);
    assert_eq!(chain.pool("late").slot, first);
    assert_ne!(chain.pool("late").revision, revision, "workers must not take its state for their own");
}

#[test]
fn without_checks_an_unhealthy_verdict_does_not_stay() {
    let mut chain = Chain::new(|config| config.pools[0].health = Some(health()));
    chain.pool("shop").members[0].state.set_healthy(false, Tick::ZERO);
    chain.next(|_| {});
    assert!(chain.pool("shop").members[0].state.is_healthy());
}

#[test]
fn a_compile_whose_step_is_undone_leaves_shared_states_as_they_were() {
    let watched = |config: &mut Config| {
        config.pools[0].health = Some(health());
        config.pools[0].outlier = Some(outlier());
        config.pools[0].limits.adaptive = Some(model::AdaptiveLimit { min: 1, max: 9 });
    };
    let mut chain = Chain::new(watched);
    let state = Arc::clone(&chain.pool("shop").members[0].state);
    state.set_healthy(false, Tick::ZERO);
    state.eject(Tick::MAX);
    state.set_limit(3);
    let now = Tick::from_nanos(7_000_000_000);
    let undone = compile_bare(&config_with(|_| {}), 2, &chain.identities, now).unwrap();
    let seen =
        |state: &MemberState| (state.is_healthy(), state.is_ejected(now), state.limit(), state.since());
    assert_eq!(seen(&state), (false, true, 3, None), "a port may yet turn out to be taken");
    drop(undone);
    assert_eq!(seen(&state), (false, true, 3, None));
    chain.at(7, |_| {});
    assert_eq!(seen(&state), (true, false, u32::MAX, Some(now)), "nothing could set them right any more");
}

#[test]
fn only_who_joins_a_pool_that_serves_already_starts_slowly() {
    let mut chain = Chain::new(|_| {});
    let since = |chain: &Chain, pool: &str| -> Vec<_> {
        chain.pool(pool).members.iter().map(|member| member.state.since().map(Tick::as_nanos)).collect()
    };
    assert_eq!(since(&chain, "shop"), [None, None], "never at process start");
    chain.at(9, |config| {
        config.frps.push(frps("c", 8003));
        config.pools[0].frps = pool("shop", &[("c", 1), ("a", 1), ("b", 1)]).frps;
        config.pools.push(pool("new", &[("a", 1), ("c", 1)]));
    });
    assert_eq!(since(&chain, "shop"), [Some(9_000_000_000), None, None]);
    assert_eq!(since(&chain, "new"), [None, None], "all of them are new: nobody is to be spared");
}

/// Pool `shop` with checks and rules, without `b`.
fn without_b(config: &mut Config) {
    with_both(config);
    config.pools[0].frps.pop();
}

fn with_both(config: &mut Config) {
    config.pools[0].health = Some(health());
    config.pools[0].outlier = Some(outlier());
}

#[test]
fn a_member_that_leaves_and_comes_back_soon_is_still_known_to_be_down() {
    let mut chain = Chain::new(with_both);
    let state = Arc::clone(&chain.pool("shop").members[1].state);
    state.set_healthy(false, Tick::ZERO);
    state.eject(Tick::MAX);
    chain.at(10, without_b);
    chain.at(20, without_b);
    chain.at(309, with_both);
    let back = &chain.pool("shop").members[1].state;
    assert!(Arc::ptr_eq(back, &state) && !back.is_healthy());
    assert_eq!(back.since(), Some(Tick::from_nanos(309_000_000_000)), "and it starts slowly when it may");
    chain.at(310, without_b);
    chain.at(610, with_both);
    let back = &chain.pool("shop").members[1].state;
    assert!(!Arc::ptr_eq(back, &state) && back.is_healthy(), "after five minutes nothing holds any more");
    assert_eq!(chain.identities.departed(), 0);
}

#[test]
fn a_reload_storm_sends_no_request_to_a_member_known_to_be_down() {
    let decay = Duration::from_secs(2);
    let mut chain = Chain::new(with_both);
    let known = [0, 1].map(|at| Arc::clone(&chain.pool("shop").members[at].state));
    let [a, b] = &known;
    a.latency.observe(Duration::from_millis(70), Tick::from_nanos(1_000_000_000), decay);
    a.eject(Tick::from_nanos(150_000_000_000));
    a.rejoin(Tick::from_nanos(5));
    a.record(WORKER, Outcome::GatewayError, Duration::from_millis(1), Tick::from_nanos(1_000_000_000), decay);
    b.set_healthy(false, Tick::ZERO);
    b.set_limit(7);
    for n in 2..=200_u64 {
        let weight = u32::try_from(n).unwrap();
        let now = Tick::ZERO.saturating_add(Duration::from_secs(n));
        let before = (a.latency.estimate(now), a.in_row(), a.totals());
        chain.at(n, |config| {
            with_both(config);
            config.pools[0].limits.adaptive = Some(model::AdaptiveLimit { min: 1, max: weight });
            config.pools[0].retry.attempts = weight % 5;
            config.pools[0].health = Some(Health { fall: weight, ..health() });
            for member in &mut config.pools[0].frps {
                member.weight = weight;
            }
            if n % 2 == 0 {
                config.frps.reverse();
                config.pools[0].frps.reverse();
            }
            if n % 3 == 0 {
                config.pools.insert(0, pool("other", &[("a", 1), ("b", 1)]));
            }
        });
        for member in &chain.pool("shop").members {
            let state = &known[usize::from(member.endpoint.label() == "b")];
            assert!(
                Arc::ptr_eq(&member.state, state),
                "reload {n}: {} is somebody else",
                member.endpoint.label()
            );
        }
        assert!(!b.is_healthy() && a.is_healthy(), "reload {n}: verdicts");
        assert_eq!(a.is_ejected(now), n < 150, "reload {n}: the ejection runs on");
        assert_eq!((a.since(), b.since()), (Some(Tick::from_nanos(5)), None), "reload {n}: slow start");
        assert_eq!((a.latency.estimate(now), a.in_row(), a.totals()), before, "reload {n}: what was learnt");
        assert_eq!(b.limit(), 7, "reload {n}: the limit");
    }
}

#[test]
fn every_word_of_balance_has_its_policy_and_keys_are_hashed_by_those_that_don_t() {
    let header = || Some(Affinity::Header("x-user".into()));
    let maglev = PolicyKind::Maglev { bound: Some(125) };
    for (balance, policy, keyed) in [
        (Balance::RoundRobin, PolicyKind::RoundRobin, Some(maglev)),
        (Balance::Random, PolicyKind::Random, Some(maglev)),
        (Balance::LeastRequest, PolicyKind::LeastRequest, Some(maglev)),
        (Balance::PeakEwma, PolicyKind::PeakEwma, Some(maglev)),
        (Balance::Maglev, maglev, None),
        (Balance::RingHash, PolicyKind::RingHash { bound: Some(125) }, None),
    ] {
        let mut chain = Chain::new(|config| config.pools[0].balance = balance);
        assert_eq!((chain.pool("shop").policy, chain.pool("shop").keyed.is_some()), (policy, false));
        chain.next(|config| {
            config.pools[0].balance = balance;
            config.pools[0].affinity = header();
        });
        assert_eq!(chain.pool("shop").keyed.as_ref().map(|(kind, _)| *kind), keyed, "{balance:?}");
    }
}

#[test]
fn tables_are_built_when_members_or_weights_change_and_only_then() {
    let hashing = |config: &mut Config| config.pools[0].balance = Balance::RingHash;
    let mut chain = Chain::new(hashing);
    let ring = |chain: &Chain| match &chain.pool("shop").prepared {
        Prepared::Ring(ring) => Arc::clone(ring),
        other => panic!("a ring is wanted, not {other:?}"),
    };
    let first = ring(&chain);
    chain.next(|config| {
        hashing(config);
        config.pools[0].retry.attempts = 9;
        config.pools[0].outlier = Some(outlier());
    });
    assert!(Arc::ptr_eq(&first, &ring(&chain)));
    chain.next(|config| {
        hashing(config);
        config.pools[0].frps[1].weight = 9;
    });
    assert!(!Arc::ptr_eq(&first, &ring(&chain)));
}

#[test]
fn a_removed_listener_answers_on_until_its_visitors_are_gone_and_then_frees_its_slot() {
    let mut chain = Chain::new(|_| {});
    let web = Arc::clone(chain.listener("web"));
    web.stats.of(WORKER).open.inc();
    let other = |config: &mut Config| config.listeners = vec![listener("other")];
    chain.at(10, other);
    assert_eq!(chain.listener("web").slot, web.slot, "its accept queue still needs it");
    assert_ne!(chain.listener("other").slot, web.slot);
    chain.at(100, other);
    assert_eq!(chain.snapshot.listeners.iter().flatten().count(), 2, "a visitor is still there");
    web.stats.of(WORKER).open.dec();
    chain.at(101, other);
    assert!(chain.snapshot.listeners[web.slot].is_none());
    assert!(!chain.identities.has_retired());
    chain.at(102, |config| config.listeners = vec![listener("other"), listener("third")]);
    assert_eq!(chain.listener("third").slot, web.slot);
}

#[test]
fn a_listener_that_comes_back_while_it_drains_takes_up_its_counters() {
    let mut chain = Chain::new(|_| {});
    let web = Arc::clone(chain.listener("web"));
    chain.at(10, |config| config.listeners = vec![listener("other")]);
    chain.at(11, |config| config.listeners = vec![listener("other"), listener("web")]);
    assert_eq!(chain.listener("web").slot, web.slot);
    assert!(Arc::ptr_eq(&chain.listener("web").stats, &web.stats));
}

#[test]
fn listeners_with_the_same_routes_share_a_router() {
    let chain = Chain::new(|config| {
        config.listeners = vec![listener("x"), listener("y"), listener("z")];
        config.routes.push(only_on("z"));
    });
    let [x, y, z] = ["x", "y", "z"].map(|name| Arc::clone(&chain.listener(name).router));
    assert!(Arc::ptr_eq(&x, &y) && !Arc::ptr_eq(&x, &z));
    assert_eq!((x.hosts(), z.hosts()), (1, 2));
}

fn only_on(listener: &str) -> model::Route {
    model::Route { listeners: vec![listener.into()], ..route("own", "own.test", "shop") }
}

#[test]
fn what_should_have_been_refused_is_an_error_here_too() {
    let error = |change: fn(&mut Config)| {
        let config = config_with(change);
        compile_bare(&config, 1, &Identities::new(1), Tick::ZERO).unwrap_err().to_string()
    };
    assert_eq!(
        error(|config| config.routes[0].pools[0].name = "shp".into()),
        "routes[0].pools: nothing is called \"shp\" here"
    );
    assert!(error(|config| config.pools[0].frps[0].frps = "x".into()).starts_with("pools[0].frps:"));
    assert!(
        error(|config| config.frps[0].vhost_http_port = None).contains("no port for what this pool carries")
    );
    let regex = error(|config| config.routes[0].matches.path = PathMatch::Regex("(".into()));
    assert!(regex.starts_with("routes[0].match:"), "{regex}");
}

#[test]
fn five_hundred_reloads_leave_nothing_behind() {
    let mut chain = Chain::new(|_| {});
    for n in 2..=500 {
        // Each with names of its own, so all that is old must go, if not at once.
        chain.at(n * 10, |config| {
            config.frps[0] = frps(&format!("f{n}"), 8001);
            config.pools = vec![pool(&format!("p{n}"), &[(&format!("f{n}"), 1), ("b", 1)])];
            config.pools[0].health = Some(health());
            config.routes = vec![route(&format!("r{n}"), "x.test", &format!("p{n}"))];
            config.listeners = vec![listener(&format!("l{n}"))];
        });
    }
    let left = format!("{:?}", chain.identities);
    let remembered = MEMBERS_REMEMBERED.as_secs() / 10;
    assert!(!left.contains(&format!("f{}", 500 - remembered - 1)), "what left longer ago is forgotten");
    assert_eq!(chain.identities.departed(), usize::try_from(remembered).unwrap() * 2, "two members each");
    assert_eq!(chain.identities.endpoints(), 2, "their endpoints are gone at once");
    assert!(chain.snapshot.listeners.len() <= 2, "{} listener slots", chain.snapshot.listeners.len());
    assert_eq!(chain.pool("p500").slot, 0);
    assert_eq!(Arc::strong_count(&chain.split().stats), 2, "identities and snapshot");
}

#[test]
fn a_thousand_routes_compile_in_milliseconds() {
    let config = config_with(|config| {
        config.pools = (0..100).map(|n| pool(&format!("p{n}"), &[("a", 1), ("b", 1)])).collect();
        config.routes = (0..1000)
            .map(|n| {
                let mut route = route(&format!("r{n}"), &format!("h{n}.test"), &format!("p{}", n % 100));
                route.pools.push(WeightedPool { name: format!("p{}", (n + 1) % 100), weight: 1 });
                route
            })
            .collect();
    });
    let first = compile_bare(&config, 1, &Identities::new(4), Tick::ZERO).unwrap();
    let begun = Instant::now();
    let second = compile_bare(&config, 2, &first.identities, Tick::ZERO).unwrap();
    let took = begun.elapsed();
    assert_eq!(second.snapshot.routes.len(), 1000);
    println!("a reload of 1,000 routes compiles in {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}: something is quadratic");
}
