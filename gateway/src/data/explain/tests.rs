use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use frp_gateway_config::{
    model::{Affinity, AffinityCookie, Balance, Locality, SameSite, Secure, WeightedPool},
    secret::Secret,
};

use super::{
    testing::{World, second},
    view::Candidate,
};
use crate::{
    control::testing::{frps, pool},
    data::affinity::Session,
    snapshot::Tunnels,
    snapshot::tunnels::Holder,
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// frps `a` to `e`.
fn fleet() -> Vec<frp_gateway_config::model::Frps> {
    [("a", 8001), ("b", 8002), ("c", 8003), ("d", 8004), ("e", 8005)]
        .map(|(name, port)| frps(name, port))
        .into()
}

/// A pool of `a` to `e`.
fn five(balance: Balance) -> World {
    five_with(balance, |_| {})
}

fn five_with(balance: Balance, change: impl FnOnce(&mut frp_gateway_config::model::Pool)) -> World {
    World::new(|config| {
        config.frps = fleet();
        config.pools = vec![pool("shop", &[("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1)])];
        config.pools[0].balance = balance;
        change(&mut config.pools[0]);
    })
}

fn picked(told: &Explanation) -> (&str, &str, &str, bool) {
    match &told.ending {
        Ending::Picked { endpoint, reason, among, certain, .. } => (endpoint, reason, among, *certain),
        other => panic!("{other:?}"),
    }
}

fn refused(told: &Explanation) -> (u16, &str) {
    match &told.ending {
        Ending::Refused { status, class, .. } => (status.expect("of a request"), class),
        other => panic!("{other:?}"),
    }
}

fn candidate<'a>(told: &'a Explanation, name: &str) -> &'a Candidate {
    told.pools[0].candidates.iter().find(|one| one.endpoint == name).unwrap()
}

fn why_not<'a>(told: &'a Explanation, name: &str) -> &'a str {
    candidate(told, name).why_not.as_deref().unwrap_or("eligible")
}

#[test]
fn each_reason_to_leave_a_member_out_is_told() {
    let world = five_with(Balance::LeastRequest, |pool| {
        pool.limits.in_flight = Some(2);
        pool.frps[4].weight = 0;
    });
    world.member("a").state.set_healthy(false, second(99));
    world.member("b").state.eject(second(130));
    world.member("c").endpoint.connect_failed(second(99), 5 * SECOND);
    let _busy: Vec<_> = (0..2).map(|_| world.member("d").endpoint.begin()).collect();
    let told = world.get("/", "");
    let reasons = ["a", "b", "c", "d", "e"].map(|name| why_not(&told, name));
    assert_eq!(reasons, ["unhealthy", "ejected", "down", "at its limit (2 of 2 in flight)", "weight 0"]);
    assert_eq!(candidate(&told, "b").verdicts, ["ejected for 30.0 s"]);
    assert_eq!(candidate(&told, "c").verdicts, ["down for 4.0 s"]);
    assert_eq!(told.ending, Ending::Waits { waiting: 0 }, "d could serve, but has no room");
    world.member("a").state.set_healthy(true, second(100));
    let told = world.get("/", "");
    assert_eq!(picked(&told), ("a", "least_loaded", "all", true));
}

#[test]
fn when_nobody_else_is_left_the_ejected_and_then_those_that_are_down_are_eligible() {
    let world = five(Balance::Random);
    for name in ["a", "b", "c", "d"] {
        world.member(name).endpoint.connect_failed(second(99), 5 * SECOND);
    }
    world.member("e").state.eject(second(130));
    let told = world.get("/", "");
    assert_eq!(picked(&told), ("e", "chance", "ejected", true));
    assert_eq!((why_not(&told, "a"), why_not(&told, "e")), ("down", "eligible"));
    world.member("e").endpoint.connect_failed(second(99), 5 * SECOND);
    let told = world.get("/", "");
    assert_eq!((picked(&told).2, why_not(&told, "a")), ("down", "eligible"));
    assert!(!picked(&told).3, "any of five: {told:#?}");
    for name in ["a", "b", "c", "d", "e"] {
        world.member(name).state.set_healthy(false, second(99));
    }
    assert_eq!(refused(&world.get("/", "")), (503, "no_endpoint"));
}

#[test]
fn the_least_loaded_and_the_cheapest_are_told_with_their_scores() {
    let world = five(Balance::LeastRequest);
    let busy = |name: &str| world.member(name).endpoint.begin();
    let _guards = [busy("a"), busy("a"), busy("b"), busy("d"), busy("e")];
    let told = world.get("/", "");
    assert_eq!(picked(&told), ("c", "least_loaded", "all", true));
    let scores: Vec<_> = told.pools[0].candidates.iter().filter_map(|one| one.score).collect();
    assert_eq!(scores, [2.0, 1.0, 0.0, 1.0, 1.0]);

    let world = five(Balance::PeakEwma);
    for (name, ms) in [("a", 80), ("b", 50), ("c", 20), ("d", 50), ("e", 50)] {
        world.member(name).state.latency.observe(Duration::from_millis(ms), second(99), SECOND);
    }
    let _guards: Vec<_> = (0..3).map(|_| world.member("c").endpoint.begin()).collect();
    let told = world.get("/", "");
    let scores: Vec<_> = told.pools[0].candidates.iter().filter_map(|one| one.score).collect();
    assert_eq!(
        scores,
        [85.0, 55.0, 100.0, 55.0, 55.0],
        "(latency + 5 ms) × (in flight + 1), as weights are equal"
    );
    let (endpoint, reason, _, certain) = picked(&told);
    assert!(["b", "d", "e"].contains(&endpoint) && reason == "cheapest" && !certain, "{told:#?}");
}

#[test]
fn a_key_has_an_owner_and_who_stands_in_for_it_is_the_next_in_rank() {
    for balance in [Balance::Maglev, Balance::RingHash] {
        let world = five_with(balance, |pool| pool.affinity = Some(Affinity::Header("x-user".into())));
        let told = world.get("/", "X-User: 17\r\n");
        let (owner, reason, _, certain) = picked(&told);
        assert!(reason == "hash" && certain, "{balance:?} {told:#?}");
        assert_eq!(told.pools[0].key.as_deref(), Some("header x-user"));
        let at_rank = |rank: u32| {
            let found = told.pools[0].candidates.iter().find(|one| one.rank == Some(rank));
            found.map(|one| one.endpoint.clone()).unwrap()
        };
        assert_eq!(owner, at_rank(0), "{balance:?}");
        world.member(owner).state.eject(second(130));
        let after = world.get("/", "X-User: 17\r\n");
        assert_eq!(picked(&after).0, at_rank(1), "{balance:?}");
        assert_eq!(candidate(&after, owner).rank, Some(0), "{balance:?}: it owns the key all the same");
        let without = world.get("/", "");
        assert!(!picked(&without).3 && without.pools[0].key.is_none(), "{balance:?}: no key, no owner");
    }
}

#[test]
fn a_policy_that_does_not_hash_takes_turns_but_for_requests_with_a_key() {
    let world = five_with(Balance::RoundRobin, |pool| pool.affinity = Some(Affinity::Query("u".into())));
    let told = world.get("/?u=1", "");
    assert_eq!((picked(&told).1, picked(&told).3), ("hash", true));
    let told = world.get("/", "");
    assert_eq!((picked(&told).1, picked(&told).3), ("turn", false));
    let shares: Vec<_> = told.pools[0].candidates.iter().map(|one| one.share).collect();
    assert_eq!(shares, [20.0; 5], "turns are fair");
    assert!(told.pools[0].notes.iter().any(|note| note.contains("takes turns by itself")), "{told:#?}");
}

fn with_cookie(strict: bool) -> World {
    five_with(Balance::LeastRequest, |pool| {
        pool.affinity = Some(Affinity::Cookie(AffinityCookie {
            name: "gw".into(),
            key: Secret::new("0123456789abcdef0123456789abcdef"),
            old_key: None,
            ttl: None,
            idle: None,
            path: "/".into(),
            domain: None,
            secure: Secure::Auto,
            http_only: true,
            same_site: SameSite::Lax,
            strict,
        }));
    })
}

/// The header line of a session at `name`.
fn cookie(world: &World, name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let session = Session { member: world.member(name).key, issued: now, used: now };
    let mut value = Vec::new();
    world.pool().sealer.as_ref().unwrap().seal(session, [7; 24], &mut value);
    format!("Cookie: gw={}\r\n", String::from_utf8(value).unwrap())
}

#[test]
fn a_session_wins_until_its_endpoint_is_gone_and_a_strict_one_is_refused_then() {
    for strict in [false, true] {
        let world = with_cookie(strict);
        let _busy = world.member("b").endpoint.begin();
        let line = cookie(&world, "b");
        assert_eq!(picked(&world.get("/", &line)), ("b", "session", "all", true), "strict: {strict}");
        world.member("b").state.set_healthy(false, second(99));
        let told = world.get("/", &line);
        if strict {
            assert_eq!(refused(&told), (503, "session_away"));
        } else {
            assert_eq!(picked(&told).1, "least_loaded");
        }
        assert!(told.pools[0].notes.iter().any(|note| note.contains("was at b")), "{told:#?}");
        let forged = world.get("/", "Cookie: gw=abc\r\n");
        assert_eq!(picked(&forged).1, "least_loaded", "strict: {strict}");
    }
}

#[test]
fn a_dry_run_leaves_no_trace() {
    let world = five(Balance::PeakEwma);
    let latencies = || world.pool().members.iter().map(|member| &member.state.latency);
    latencies().for_each(|latency| latency.observe(Duration::from_millis(50), second(1), SECOND));
    for _ask in 0..50 {
        world.get("/", "");
    }
    assert!(world.pool().members.iter().all(|member| member.endpoint.in_flight() == 0));
    let due: Vec<_> = latencies().map(|latency| latency.claim_probe(world.now, SECOND)).collect();
    assert_eq!(due, [true; 5], "probes are the workers' to claim");
    let picks = world.pool().stats.sum(|shard| &shard.picks.by_reason[3][0]);
    assert_eq!(picks, 0, "nothing is counted");
}

#[test]
fn zones_and_standby_are_told() {
    let world = World::new(|config| {
        config.zone = Some("here".into());
        config.frps = fleet();
        config.frps[0].zone = Some("here".into());
        config.frps[1].zone = Some("there".into());
        config.pools = vec![pool("shop", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)])];
        config.pools[0].locality = Locality::Prefer { spill: 140 };
        config.pools[0].frps[3].priority = 1;
    });
    let told = world.get("/", "");
    assert_eq!((picked(&told).0, picked(&told).2, picked(&told).3), ("a", "local", true));
    let reasons = ["a", "b", "c", "d"].map(|name| why_not(&told, name));
    assert_eq!(reasons, ["eligible", "other zone", "other zone", "stands by"]);
    world.member("a").state.eject(second(130));
    let told = world.get("/", "");
    assert_eq!((picked(&told).2, why_not(&told, "b")), ("remote", "eligible"));
    world.member("b").state.eject(second(130));
    world.member("c").state.eject(second(130));
    assert_eq!((picked(&world.get("/", "")).0, picked(&world.get("/", "")).2), ("d", "standby"));
}

#[test]
fn holders_of_the_host_go_first() {
    let mut world = five(Balance::Random);
    let mut tunnels = Tunnels::default();
    tunnels.insert("shop.test", Holder { frps: 2, locations: vec!["".into()] });
    world.snapshot.tunnels = Arc::new(tunnels);
    let told = world.get("/", "");
    assert_eq!(picked(&told), ("c", "chance", "holders", true));
    assert_eq!(why_not(&told, "a"), "its frps lists no tunnel for the host");
    assert!(told.pools[0].notes.contains(&"tunnels for this host and path are listed by c".to_owned()));
}

#[test]
fn at_its_connection_limit_an_endpoint_serves_on_while_a_connection_idles() {
    let world = five_with(Balance::LeastRequest, |pool| {
        pool.frps.truncate(1);
        pool.limits.connections = Some(1);
    });
    let endpoint = &world.member("a").endpoint;
    let _open = endpoint.open_connection(None).unwrap();
    assert_eq!(picked(&world.get("/", "")).0, "a", "the one connection idles");
    let _busy = endpoint.begin();
    let told = world.get("/", "");
    assert_eq!(told.ending, Ending::Waits { waiting: 0 });
    assert_eq!(why_not(&told, "a"), "at its limit (1 of 1 connections)");
}

#[test]
fn under_the_panic_threshold_health_is_ignored_and_that_is_said() {
    let world = five_with(Balance::Random, |pool| pool.panic_threshold = 50);
    for name in ["a", "b", "c"] {
        world.member(name).state.set_healthy(false, second(99));
    }
    let told = world.get("/", "");
    assert_eq!((picked(&told).2, why_not(&told, "a")), ("panic", "eligible"));
    assert!(told.pools[0].notes.iter().any(|note| note.contains("panic_threshold")), "{told:#?}");
}

#[test]
fn every_pool_of_a_route_is_explained_and_one_is_drawn_by_its_share() {
    let world = World::new(|config| {
        config.pools = vec![pool("shop", &[("a", 1)]), pool("canary", &[("b", 1)])];
        config.routes[0].pools = vec![
            WeightedPool { name: "shop".into(), weight: 3 },
            WeightedPool { name: "canary".into(), weight: 1 },
        ];
    });
    let told = world.get("/", "");
    let shares: Vec<_> = told.pools.iter().map(|pool| (pool.pool.as_str(), pool.percent)).collect();
    assert_eq!(shares, [("shop", 75.0), ("canary", 25.0)]);
    let drawn: Vec<_> = told.pools.iter().filter(|pool| pool.drawn).map(|pool| &pool.pool).collect();
    assert_eq!(drawn, [told.pool.as_ref().unwrap()]);
    let world = World::new(|config| {
        config.routes[0].pools = vec![WeightedPool { name: "shop".into(), weight: 0 }];
    });
    assert_eq!(refused(&world.get("/", "")), (503, "no_endpoint"));
}

#[test]
fn what_the_gateway_would_refuse_is_refused_here_with_the_same_class() {
    let world = five(Balance::Random);
    let head = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nHost: shop.test\r\n{more}\r\n");
    assert_eq!(refused(&world.ask("GET", "GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n")), (404, "no_route"));
    assert_eq!(refused(&world.ask("GET", &head("GET /", "Host: b.test\r\n"))), (400, "bad_request"));
    assert_eq!(
        refused(&world.ask("CONNECT", "CONNECT shop.test:80 HTTP/1.1\r\nHost: shop.test:80\r\n\r\n")),
        (405, "method_refused")
    );
}

#[test]
fn no_value_of_a_header_cookie_or_parameter_is_told() {
    let world = five_with(Balance::Maglev, |pool| pool.affinity = Some(Affinity::Header("x-user".into())));
    let told = world.get("/?token=hush-q", "X-User: hush-u\r\nCookie: a=hush-c\r\nAuthorization: hush-a\r\n");
    let text = serde_json::to_string(&told).unwrap();
    assert!(!text.contains("hush"), "{text}");
}

/// Whoever a dry run picks must be told to be eligible, and of a pool that draws by chance all that are told to be eligible
/// must be picked at times: this holds the told conditions against the real ones.
#[test]
fn who_is_told_to_be_eligible_is_who_is_picked() {
    let mut rng = Rng::seeded(4);
    for round in 0..2000 {
        let mut coin = |of: u32| rng.below(of);
        let (tiered, limit, panic) = (coin(2) == 0, coin(3) == 0, coin(3) * 40);
        let world = World::new(|config| {
            config.zone = Some("here".into());
            config.frps = fleet();
            config.frps.iter_mut().for_each(|one| {
                one.zone =
                    [Some("here".to_owned()), Some("there".to_owned()), None][coin(3) as usize].clone();
            });
            config.pools = vec![pool("shop", &[("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1)])];
            let pool = &mut config.pools[0];
            pool.balance = Balance::Random;
            pool.panic_threshold = panic;
            pool.frps.iter_mut().for_each(|member| {
                member.weight = u32::from(coin(5) > 0);
                member.priority = if tiered { coin(2) } else { 0 };
            });
            pool.locality = if coin(2) == 0 { Locality::Prefer { spill: 140 } } else { Locality::Ignore };
            pool.limits.in_flight = limit.then_some(1);
        });
        let mut world = world;
        let members = world.pool().members.clone();
        let mut guards = Vec::new();
        for member in &members {
            if coin(3) == 0 {
                member.state.set_healthy(false, second(99));
            }
            if coin(3) == 0 {
                member.state.eject(second(130));
            }
            if coin(3) == 0 {
                member.endpoint.connect_failed(second(99), 5 * SECOND);
            }
            if coin(3) == 0 {
                guards.push(member.endpoint.begin());
            }
        }
        if coin(3) == 0 {
            let mut tunnels = Tunnels::default();
            (0..2).for_each(|_| {
                tunnels.insert("shop.test", Holder { frps: coin(5), locations: vec!["".into()] });
            });
            world.snapshot.tunnels = Arc::new(tunnels);
        }
        let told = world.get("/", "");
        let names = |of: &dyn Fn(&Candidate) -> bool| -> BTreeSet<String> {
            let all = told.pools[0].candidates.iter();
            all.filter(|one| of(one)).map(|one| one.endpoint.clone()).collect()
        };
        let (eligible, hit) = (names(&|one| one.eligible), names(&|one| one.share > 0.0));
        assert_eq!(eligible, hit, "round {round}: {told:#?}");
        drop(guards);
    }
}

#[test]
fn the_bounds_of_a_whole_frps_are_told_as_the_pick_sees_them() {
    let world = World::new(|config| {
        config.frps = fleet();
        (config.frps[0].in_flight, config.frps[1].connections) = (Some(1), Some(1));
        config.pools = vec![pool("shop", &[("a", 1), ("b", 1), ("c", 1)])];
    });
    let worker = crate::telemetry::shard::WorkerId(0);
    let (a, b) = (world.member("a"), world.member("b"));
    let _request = a.gate.as_ref().unwrap().enter(worker);
    // Another tunnel of the frps has it: b itself has none.
    let _elsewhere = b.connections.as_ref().unwrap().hold(worker);
    let told = world.get("/", "");
    assert_eq!(why_not(&told, "a"), "its frps is at its limit (1 of 1 in flight)");
    assert_eq!(why_not(&told, "b"), "its frps is at its limit (1 of 1 connections)");
    assert_eq!((picked(&told).0, picked(&told).3), ("c", true));
    let _kept = b.endpoint.open_connection(None).unwrap();
    assert_eq!(why_not(&world.get("/", ""), "b"), "eligible", "by a kept connection");
}

#[test]
fn redirects_and_clients_are_told_as_the_request_path_treats_them() {
    use frp_gateway_config::model::{ClientRule, Identity, Pattern, Protocol, Redirect};
    let world = |https: bool| {
        World::new(|config| {
            if https {
                config.listeners[0].protocol = Protocol::Https;
            }
            let mut away = config.routes[0].clone();
            away.name = "away".into();
            away.redirect = Some(Redirect::Https { port: None, status: 308 });
            away.pools.clear();
            let robots = Identity::CommonName(Pattern("robot-*".into()));
            config.routes[0].client = Some(ClientRule { allow: vec![robots] });
            config.routes.insert(0, away);
        })
    };
    let told = world(false).get("/cart?token=secret", "");
    let location = "https://shop.test/cart".to_owned();
    assert_eq!(told.ending, Ending::Redirected { status: 308, location });
    assert_eq!((told.route.as_deref(), told.routes[0].verdict.as_str()), (Some("away"), "matched"));

    let world = world(true);
    let told = world.get("/cart", "");
    assert_eq!(refused(&told), (403, "client_refused"), "no certificate was shown");
    let verdicts: Vec<_> = told.routes.iter().map(|route| (&*route.route, &*route.verdict)).collect();
    assert_eq!(verdicts, [("away", "https"), ("shop", "matched")]);
    let wire = b"GET /cart HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let ask = |client: &str| {
        let client = ClientIdentity::supposed(client).expect("an identity");
        explain(&Asked {
            snapshot: &world.snapshot,
            listener: world.listener(),
            method: "GET",
            url: "https://shop.test/cart",
            wire,
            peer: IpAddr::from([192, 0, 2, 7]),
            client: Some(&client),
            now: world.now,
            seed: 7,
        })
    };
    assert_eq!(refused(&ask("cn:admin")), (403, "client_refused"));
    assert_eq!(ask("cn:robot-7").pool.as_deref(), Some("shop"));
}
