//! Every frpc is balanced for itself: shares, latency, hashing and sessions act per tunnel. Real frps and frpc; needs
//! `frp-lab/build`.

#[path = "common/takeover.rs"]
mod takeover;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use frp_gateway_loadtest::{
    demo::DemoApp,
    http,
    lab::{Frpc, Proxy, until},
};
use takeover::{SOON, World, app};

const HOST: &str = "app.test";

/// Nine frpc, three at each of three frps, all in one FRP group; weights 1, 2, 3 at each.
async fn nine(rest: &str) -> (World, Vec<DemoApp>, Vec<Frpc>) {
    let world = World::start(&["a", "b", "c"], rest).await;
    let (mut apps, mut clients) = (Vec::new(), Vec::new());
    for (at, frps) in ["a", "b", "c"].into_iter().enumerate() {
        for weight in 1..=3 {
            let name = format!("{frps}{weight}");
            let app = app(&name);
            let proxy = Proxy::http(&name, app.addr(), &[HOST])
                .group("all", "group-key")
                .metadata("gw_weight", &weight.to_string());
            clients.push(world.frpc(at, "team", vec![proxy]).await);
            apps.push(app);
        }
    }
    (world, apps, clients)
}

#[tokio::test]
async fn three_frpc_of_one_group_on_one_frps_get_exactly_their_weights() {
    let world = World::start(&["a"], "").await;
    let (mut apps, mut clients) = (Vec::new(), Vec::new());
    for weight in 1..=3 {
        let name = format!("app{weight}");
        apps.push(app(&name));
        let proxy = Proxy::http(&name, apps[weight - 1].addr(), &[HOST])
            .group("all", "group-key")
            .metadata("gw_weight", &weight.to_string());
        clients.push(world.frpc(0, "team", vec![proxy]).await);
    }
    let shares = world.shares(HOST, 600).await;
    let expected = BTreeMap::from([("app1".into(), 100), ("app2".into(), 200), ("app3".into(), 300)]);
    assert_eq!(shares, expected, "one connection is one worker: its turns are exact");
}

#[tokio::test]
async fn nine_frpc_over_three_frps_get_exactly_their_weights_and_a_reload_of_one_is_followed() {
    let (world, apps, mut clients) = nine("").await;
    let shares = world.shares(HOST, 180).await;
    for (name, count) in &shares {
        let weight = name[1..].parse::<usize>().expect("a digit");
        assert_eq!(*count, weight * 10, "{name}: {shares:?}");
    }
    assert_eq!(shares.len(), 9, "{shares:?}");
    // a1 says 10 instead of 1: 10 of 27.
    let proxy =
        Proxy::http("a1", apps[0].addr(), &[HOST]).group("all", "group-key").metadata("gw_weight", "10");
    let begun = Instant::now();
    clients[0].reload(vec![proxy]).await.expect("frpc reloads");
    until("the shares to follow", SOON, async || {
        (world.shares(HOST, 27).await.get("a1") == Some(&10)).then_some(())
    })
    .await
    .expect("they follow");
    let took = begun.elapsed();
    println!("shares followed an edited frpc.toml after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_slow_application_gets_less_than_a_tenth_under_peak_ewma() {
    let rest = "tunnels: { pool: { balance: peak_ewma } }";
    let world = World::start(&["a"], rest).await;
    let (mut apps, mut clients) = (Vec::new(), Vec::new());
    for name in ["one", "two", "slow"] {
        let app = app(name);
        app.set_delay(Duration::from_millis(if name == "slow" { 200 } else { 20 }));
        clients
            .push(world.frpc(0, name, vec![Proxy::http("web", app.addr(), &[HOST]).group("g", "k")]).await);
        apps.push(app);
    }
    let visitors = |seconds: u64| {
        let web = world.web;
        async move {
            let end = Instant::now() + Duration::from_secs(seconds);
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    tokio::spawn(async move {
                        let mut served = Vec::new();
                        let mut connection = http::Connection::open(web).await.expect("it listens");
                        while Instant::now() < end {
                            let request = http::request("GET", HOST, "/").body(http::empty());
                            let reply = connection.send(request).await.expect("an answer");
                            served.push(reply.app().expect("an application").to_owned());
                        }
                        served
                    })
                })
                .collect();
            let mut all = Vec::new();
            for task in tasks {
                all.extend(task.await.expect("a visitor"));
            }
            all
        }
    };
    visitors(2).await;
    let after = visitors(2).await;
    let slow = after.iter().filter(|name| *name == "slow").count();
    println!("slow application after two seconds: {slow} of {}", after.len());
    assert!(slow * 10 < after.len(), "{slow} of {}", after.len());
}

#[tokio::test]
async fn least_request_sends_to_the_frpc_with_the_fewest_in_flight() {
    let rest = "tunnels: { pool: { balance: least_request } }";
    let world = World::start(&["a", "b"], rest).await;
    let (mut apps, mut clients) = (Vec::new(), Vec::new());
    // Two of one group on one frps, the third on another; the third counts double.
    for (at, name, weight) in [(0, "one", 1), (0, "two", 1), (1, "heavy", 2)] {
        let app = app(name);
        let proxy = Proxy::http("web", app.addr(), &[HOST]).group("g", "k");
        clients.push(world.frpc(at, name, vec![proxy.metadata("gw_weight", &weight.to_string())]).await);
        apps.push(app);
    }
    // Forty requests that nobody answers, one after the other: each goes where the fewest are, by weight.
    let arrived = async || apps.iter().map(DemoApp::requests).sum::<u64>();
    let before: Vec<_> = apps.iter().map(DemoApp::requests).collect();
    let mut hanging = Vec::new();
    for n in 1..=40 {
        let web = world.web;
        hanging.push(tokio::spawn(async move { http::get(web, HOST, "/hang").await }));
        let wanted = before.iter().sum::<u64>() + n;
        until("the request to arrive", SOON, async || (arrived().await >= wanted).then_some(()))
            .await
            .expect("it arrives");
    }
    let shares: Vec<_> = apps.iter().zip(&before).map(|(app, before)| app.requests() - before).collect();
    assert_eq!(shares, [10, 10, 20], "in flight at each");
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_key_stays_with_its_tunnel_and_moves_only_when_that_leaves() {
    let rest = "tunnels: { pool: { balance: maglev, affinity: { header: x-user } } }";
    let (world, _apps, mut clients) = nine(rest).await;
    let owners = async || {
        let mut connection = http::Connection::open(world.web).await.expect("it listens");
        let mut owners = Vec::new();
        for key in 0..60 {
            let request = http::request("GET", HOST, "/").header("x-user", format!("user-{key}"));
            let reply = connection.send(request.body(http::empty())).await.expect("an answer");
            owners.push(reply.app().expect("an application").to_owned());
        }
        owners
    };
    let before = owners().await;
    assert_eq!(owners().await, before);
    assert!(before.iter().collect::<BTreeSet<_>>().len() >= 6, "{before:?}");
    clients[8].kill9();
    until("the tunnel to be gone", SOON, async || {
        (!world.tunnels(2).await.contains(&"team.c3".to_owned())).then_some(())
    })
    .await
    .expect("it goes");
    let after = owners().await;
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    let others = moved.clone().filter(|(before, _)| *before != "c3").count();
    assert!(!after.contains(&"c3".to_owned()), "{after:?}");
    assert!(others <= 3, "{others} keys moved that were not its own");
    assert!(moved.count() > 0);
}

#[tokio::test]
async fn a_session_stays_with_one_frpc_through_reload_and_restart() {
    let rest =
        "tunnels: { pool: { affinity: { cookie: { name: gw, key: 0123456789abcdef0123456789abcdef } } } }";
    let (mut world, _apps, _clients) = nine(rest).await;
    let ask = async |world: &World, cookie: Option<&str>| {
        let mut request = http::request("GET", HOST, "/");
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        let reply = http::send(world.web, request.body(http::empty())).await.expect("an answer");
        let set = reply.header("set-cookie").and_then(|line| line.split(';').next()).map(ToOwned::to_owned);
        (reply.app().expect("an application").to_owned(), set)
    };
    let mut visitors = Vec::new();
    for _ in 0..12 {
        let (app, cookie) = ask(&world, None).await;
        visitors.push((app, cookie.expect("a cookie")));
    }
    let distinct: BTreeSet<_> = visitors.iter().map(|(app, _)| app).collect();
    assert!(distinct.len() >= 4, "{distinct:?}");
    let stay = async |world: &World, when: &str| {
        for (app, cookie) in &visitors {
            assert_eq!(ask(world, Some(cookie)).await.0, *app, "{when}");
        }
    };
    stay(&world, "at once").await;
    let edited = world.yaml().replace("workers: 2 }", "workers: 2, drain_timeout: 9s }");
    world.gateway().edit(&edited).expect("the file is written");
    world.until_logged("reloaded").await;
    stay(&world, "after a reload").await;
    world.gateway.take();
    world.start_gateway().await;
    stay(&world, "after kill -9 and restart").await;
}
