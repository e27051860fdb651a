use std::time::{Duration, Instant};

use frp_gateway_config::model::{Config, Health, PathMatch, WeightedPool};

use super::*;
use crate::{
    control::testing::{config_with, frps, health, listener, pool, route},
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
        let compiled = compile(&config_with(change), seconds, Arc::default(), &self.identities, now).unwrap();
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
    chain.pool("shop").members[1].verdict.set(false);
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
    assert!(!shop.members[0].verdict.is_healthy(), "b is first now");
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
    chain.pool("shop").members[0].verdict.set(false);
    chain.next(|_| {});
    assert!(chain.pool("shop").members[0].verdict.is_healthy());
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
        compile(&config, 1, Arc::default(), &Identities::new(1), Tick::ZERO).unwrap_err().to_string()
    };
    assert_eq!(
        error(|config| config.routes[0].pools[0].name = "shp".into()),
        "routes[0].pools: nothing is called \"shp\" here"
    );
    assert!(error(|config| config.pools[0].frps[0].frps = "x".into()).starts_with("pools[0].frps:"));
    assert!(error(|config| config.frps[0].vhost_http_port = None).contains("no vhost_http_port"));
    let regex = error(|config| config.routes[0].matches.path = PathMatch::Regex("(".into()));
    assert!(regex.starts_with("routes[0].match:"), "{regex}");
}

#[test]
fn five_hundred_reloads_leave_nothing_behind() {
    let mut chain = Chain::new(|_| {});
    for n in 2..=500 {
        // Each with names of its own, so all that is old must go.
        chain.at(n * 10, |config| {
            config.frps[0] = frps(&format!("f{n}"), 8001);
            config.pools = vec![pool(&format!("p{n}"), &[(&format!("f{n}"), 1), ("b", 1)])];
            config.pools[0].health = Some(health());
            config.routes = vec![route(&format!("r{n}"), "x.test", &format!("p{n}"))];
            config.listeners = vec![listener(&format!("l{n}"))];
        });
    }
    let left = format!("{:?}", chain.identities);
    assert!(!left.contains("f498"), "only the last removed listener may still hold something");
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
    let first = compile(&config, 1, Arc::default(), &Identities::new(4), Tick::ZERO).unwrap();
    let begun = Instant::now();
    let second = compile(&config, 2, Arc::default(), &first.identities, Tick::ZERO).unwrap();
    let took = begun.elapsed();
    assert_eq!(second.snapshot.routes.len(), 1000);
    println!("a reload of 1,000 routes compiles in {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}: something is quadratic");
}
