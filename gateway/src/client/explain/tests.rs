use std::time::Duration;

use frp_gateway_config::model::{Balance, HostMatch, Locality, PathMatch, WeightedPool};

use super::*;
use crate::{
    control::testing::{frps, pool, route},
    data::explain::testing::{World, second},
    golden,
};

const SECOND: Duration = Duration::from_secs(1);

/// Two zones, a canary, routes of every kind.
fn fleet() -> World {
    let world = World::new(|config| {
        config.zone = Some("seoul".into());
        config.frps =
            [("seoul-1", 8001), ("seoul-2", 8002), ("seoul-3", 8003), ("tokyo-1", 8004), ("spare-1", 8005)]
                .map(|(name, port)| frps(name, port))
                .into();
        for (one, zone) in config.frps.iter_mut().zip(["seoul", "seoul", "seoul", "tokyo", "seoul"]) {
            one.zone = Some(zone.into());
        }
        let mut shop =
            pool("shop", &[("seoul-1", 2), ("seoul-2", 1), ("seoul-3", 1), ("tokyo-1", 1), ("spare-1", 1)]);
        shop.balance = Balance::PeakEwma;
        shop.locality = Locality::Prefer { spill: 200 };
        shop.limits.in_flight = Some(20);
        shop.slow_start = Some(30 * SECOND);
        shop.frps[4].priority = 1;
        let mut canary = pool("canary", &[("tokyo-1", 1)]);
        canary.balance = Balance::Maglev;
        config.pools = vec![shop, canary];
        let mut api = route("api", "shop.test", "shop");
        api.matches.path = PathMatch::Prefix("/api".into());
        api.pools = vec![
            WeightedPool { name: "shop".into(), weight: 95 },
            WeightedPool { name: "canary".into(), weight: 5 },
        ];
        let mut writes = route("writes", "shop.test", "shop");
        (writes.matches.path, writes.matches.methods) =
            (PathMatch::Prefix("/api".into()), vec!["POST".into()]);
        let mut wild = route("wild", "", "shop");
        wild.matches.hosts = vec![HostMatch::Wildcard("other.test".into())];
        config.routes = vec![route("shop", "shop.test", "shop"), api, writes, wild];
    });
    for (name, ms) in [("seoul-1", 40), ("seoul-2", 90), ("seoul-3", 30), ("tokyo-1", 12)] {
        world.member(name).state.latency.observe(Duration::from_millis(ms), second(99), SECOND);
    }
    world.member("seoul-3").state.eject(second(112));
    world.member("seoul-2").state.rejoin(second(85));
    std::mem::forget(world.member("seoul-1").endpoint.begin());
    world
}

fn shown(told: &Explanation) -> String {
    text(told, Colour::OFF)
}

#[test]
fn the_text_of_a_fixed_fleet_is_the_golden_one() {
    let told = fleet().get("/api/cart", "");
    let text = shown(&told);
    let answer =
        "GET http://shop.test/api/cart → route api → pool shop → seoul-1 (cheapest of 2, local zone)";
    assert_eq!(text.lines().next(), Some(answer), "the answer comes first\n{text}");
    golden::check("src/client/explain/fleet.txt", &text);
    assert!(is_served(&told));
}

#[test]
fn the_manual_shows_what_is_printed() {
    let text = shown(&fleet().get("/api/cart", ""));
    let (example, _) = text.split_once("\n\npool canary").unwrap();
    let manual = include_str!("../../../../docs/explain.md");
    assert!(manual.contains(example), "docs/explain.md lacks\n{example}");
}

#[test]
fn the_text_of_a_request_that_no_route_serves_is_the_golden_one() {
    let told = fleet().ask("GET", "GET /api HTTP/1.1\r\nHost: nobody.test\r\n\r\n");
    golden::check("src/client/explain/no_route.txt", &shown(&told));
    assert!(!is_served(&told));
}

#[test]
fn the_text_of_a_fleet_that_is_full_is_the_golden_one() {
    let world = World::new(|config| config.pools[0].limits.in_flight = Some(1));
    let _guards = [world.member("a").endpoint.begin(), world.member("b").endpoint.begin()];
    let told = world.get("/", "");
    golden::check("src/client/explain/full.txt", &shown(&told));
    assert!(!is_served(&told));
}

#[test]
fn what_is_sent_is_what_is_read() {
    let told = fleet().get("/api/cart", "");
    let sent = serde_json::to_string(&told).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&sent).unwrap(), told, "{sent}");
}
