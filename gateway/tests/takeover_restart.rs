//! Restarts lose nothing, and no request ever reaches an application other than the one that claimed its host. Real frps and frpc;
//! needs `frp-lab/build`.

#[path = "common/takeover.rs"]
mod takeover;
#[path = "common/watch.rs"]
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use frp_gateway_loadtest::{
    demo::DemoApp,
    http::{self, Connection},
    lab::{Frpc, Proxy, until},
};
use takeover::{SOON, World, app};
use watch::Watch;

const HOSTS: usize = 8;

/// Eight hosts, each with an application and an frpc of its own, in ten ports of one frps.
async fn crowded() -> (World, Vec<DemoApp>, Vec<Frpc>) {
    let world = World::with(&["a"], "", |options| options.tunnel_ports(10)).await;
    let (mut apps, mut clients) = (Vec::new(), Vec::new());
    for n in 0..HOSTS {
        let app = app(&format!("app{n}"));
        clients.push(world.frpc(0, &format!("u{n}"), vec![tunnel(n, &app)]).await);
        apps.push(app);
    }
    (world, apps, clients)
}

fn tunnel(n: usize, app: &DemoApp) -> Proxy {
    Proxy::http("web", app.addr(), &[&format!("h{n}.test")])
}

#[tokio::test]
async fn no_request_reaches_another_application_when_ports_change_hands() {
    let (mut world, apps, mut clients) = crowded().await;
    let watch = Watch::start(world.web, HOSTS);
    watch.more(500).await;
    // frps is killed: every tunnel registers anew, on whatever port.
    for _ in 0..2 {
        world.frps[0].restart().await.expect("frps starts again");
        watch.more(500).await;
    }
    // Two frpc at a time trade their ports, if they can.
    for round in 0..4 {
        let (one, two) = (round, HOSTS - 1 - round);
        clients[one].kill9();
        clients[two].kill9();
        for n in [two, one] {
            clients[n] = world.frpc_unready(0, &format!("u{n}"), vec![tunnel(n, &apps[n])]);
        }
        watch.more(300).await;
    }
    // An frpc whose file gives another host to the same proxy.
    let moved = Proxy::http("web", apps[0].addr(), &["moved.test"]);
    clients[0].reload(vec![moved]).await.expect("frpc reloads");
    until("the new host to be served", SOON, async || {
        (world.get("moved.test", "/").await.app() == Some("app0")).then_some(())
    })
    .await
    .expect("it is");
    assert_eq!(world.get("h0.test", "/").await.app(), None, "the old host is nobody's");
    println!("{:?}", watch.end().await);
}

#[tokio::test]
async fn a_killed_gateway_knows_everything_before_it_is_ready() {
    let (mut world, _apps, _clients) = crowded().await;
    let watch = Watch::start(world.web, HOSTS);
    watch.more(300).await;
    world.gateway.as_mut().expect("it runs").kill9();
    let begun = Instant::now();
    world.gateway.take();
    world.start_gateway().await; // until /readyz is 200
    let ready = begun.elapsed();
    for n in 0..HOSTS {
        let reply = world.get(&format!("h{n}.test"), "/").await;
        assert_eq!(reply.app(), Some(&*format!("app{n}")), "at the first request: {}", reply.text());
    }
    println!("kill -9 under load, and all tunnels served again after {ready:?}");
    assert!(ready < Duration::from_secs(5), "{ready:?}");
    watch.more(300).await;
    let seen = watch.end().await;
    println!("{seen:?}");
    assert!(!seen.contains_key("no_route") && !seen.contains_key("no_tunnel"), "{seen:?}");
}

#[tokio::test]
async fn an_frps_that_is_killed_costs_no_request_where_a_twin_is() {
    let mut world = World::start(&["a", "b"], "").await;
    let (one, two) = (app("app0"), app("app0"));
    let _one = world.frpc(0, "u", vec![Proxy::http("web", one.addr(), &["h0.test"])]).await;
    let _two = world.frpc(1, "u", vec![Proxy::http("web", two.addr(), &["h0.test"])]).await;
    let web = world.web;
    let stop = Arc::new(AtomicBool::new(false));
    let visitor = {
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            let (mut served, mut failed) = (0, Vec::new());
            let mut connection = Connection::open(web).await.expect("it listens");
            while !stop.load(SeqCst) {
                let reply = connection.send(http::request("GET", "h0.test", "/").body(http::empty())).await;
                match reply {
                    Ok(reply) if reply.status == 200 => served += 1,
                    other => failed.push(format!("{other:?}")),
                }
            }
            (served, failed)
        })
    };
    let asked = |app: &DemoApp| app.requests();
    let more = async |app: &DemoApp, count| {
        let wanted = asked(app) + count;
        until("requests", SOON, async || (asked(app) >= wanted).then_some(()))
            .await
            .expect("they are served");
    };
    more(&one, 50).await;
    world.frps[0].kill9();
    more(&two, 200).await;
    world.frps[0].restart().await.expect("frps starts again");
    more(&one, 50).await;
    stop.store(true, SeqCst);
    let (served, failed) = visitor.await.expect("a visitor");
    assert_eq!(failed, Vec::<String>::new(), "of {served} requests");
}

#[tokio::test]
async fn a_frozen_frpc_with_a_twin_holds_up_only_what_it_has() {
    let rest = "tunnels: { pool: { retry: { per_try_timeout: 300ms, attempts: 2 }, balance: peak_ewma } }";
    let world = World::start(&["a"], rest).await;
    let (one, two) = (app("app0"), app("app0"));
    let mut one_frpc =
        world.frpc(0, "one", vec![Proxy::http("web", one.addr(), &["h0.test"]).group("g", "k")]).await;
    let _two = world.frpc(0, "two", vec![Proxy::http("web", two.addr(), &["h0.test"]).group("g", "k")]).await;
    for _ in 0..20 {
        assert_eq!(world.get("h0.test", "/").await.status, 200);
    }
    one_frpc.sigstop();
    let begun = Instant::now();
    for n in 0..50 {
        let reply = world.get("h0.test", "/").await;
        assert_eq!(reply.status, 200, "request {n}: {}", reply.text());
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    one_frpc.sigcont();
}
