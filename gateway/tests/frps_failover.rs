//! What becomes of visitors while frps and frpc die and come back, and who gets how much. Real frps and frpc; needs
//! `frp-lab/build`.

#[path = "common/fleet.rs"]
mod fleet;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use fleet::{Load, SOON, Site, ask, bare, gateway, gist, metric};
use frp_gateway_loadtest::{
    demo::DemoApp,
    http::full,
    lab::{Gateway, Version, until},
};

const ONE_POOL: &str = "pools: [{ name: p, frps: all }]\nroutes: [{ pool: p }]";

async fn sites<const N: usize>(names: [&'static str; N]) -> Vec<Site> {
    let mut sites = Vec::new();
    for name in names {
        let site = Site::start(name, Version::V071, &["app.test"]).await;
        // Long enough that a death always hits requests under way.
        site.app.set_delay(Duration::from_millis(5));
        sites.push(site);
    }
    sites
}

fn entries(sites: &[Site], with_admin: bool) -> Vec<String> {
    sites.iter().map(|site| if with_admin { site.frps.yaml() } else { bare(site.name, &site.frps) }).collect()
}

async fn killed_frps(with_admin: bool) {
    let mut sites = sites(["a", "b", "c"]).await;
    let (gateway, address) = gateway(&entries(&sites, with_admin), ONE_POOL).await;
    let load = Load::start(address, "app.test", "/", 8);
    load.more(500).await;
    sites[0].frps.kill9();
    load.more(1500).await;
    sites[0].frps.restart().await.expect("frps starts again");
    sites[0].frps.wait_online(&["web"], SOON).await.expect("frpc finds it again");
    let took = load.more_by("a", 20).await;
    load.more(300).await;
    let retries = metric(&gateway, "frp_gateway_pool_retries_total", &[]).await;
    let tally = load.stop().await;
    eprintln!(
        "frps killed, admin API {with_admin}: {} GETs, {} failed, {retries} sent again, traffic {took:.1?} after the tunnel",
        tally.total(),
        tally.failed.len()
    );
    assert!(tally.failed.is_empty(), "{} failed: {:?}", tally.failed.len(), tally.failed);
    assert!(retries >= 1.0, "nothing was sent again: the death hit nobody");
    assert!(took < Duration::from_secs(15), "traffic came back only after {took:?}");
}

#[tokio::test]
async fn a_killed_frps_costs_no_get_and_serves_again_after_its_restart() {
    killed_frps(false).await;
}

#[tokio::test]
async fn a_killed_frps_costs_no_get_either_when_its_admin_api_was_asked() {
    killed_frps(true).await;
}

async fn killed_frpc(with_admin: bool) {
    let mut sites = sites(["a", "b", "c"]).await;
    let (gateway, address) = gateway(&entries(&sites, with_admin), ONE_POOL).await;
    let load = Load::start(address, "app.test", "/", 8);
    load.more(500).await;
    sites[0].frpc.kill9();
    sites[0].frps.wait_offline(&["web"], SOON).await.expect("frps notices");
    load.more(1500).await;
    sites[0].frpc.restart().await.expect("frpc starts again");
    let took = load.more_by("a", 20).await;
    let absent = metric(&gateway, "frp_gateway_endpoint_absent_total", &["endpoint=\"a\""]).await;
    let tally = load.stop().await;
    eprintln!(
        "frpc killed, admin API {with_admin}: {} GETs, {} failed, {absent} pages caught, traffic {took:.1?} after the tunnel",
        tally.total(),
        tally.failed.len()
    );
    assert!(tally.failed.is_empty(), "{} failed: {:?}", tally.failed.len(), tally.failed);
    assert!(absent >= 1.0, "no page of frps came: the death hit nobody");
    assert!(took < Duration::from_secs(10), "traffic came back only after {took:?}");
}

#[tokio::test]
async fn a_killed_frpc_costs_no_get_and_serves_again_after_its_restart() {
    killed_frpc(false).await;
}

#[tokio::test]
async fn a_killed_frpc_costs_no_get_either_when_the_admin_api_was_asked() {
    killed_frpc(true).await;
}

/// 300 POSTs, one after the other: how many were answered 200, and what the others got.
async fn posts(address: SocketAddr, answered: Arc<AtomicUsize>) -> Vec<(u16, String)> {
    let mut refused = Vec::new();
    for _ in 0..300 {
        let reply = ask(address, "POST", "app.test", "/echo", full("once only")).await;
        match gist(&reply) {
            (200, _, "-") => drop(answered.fetch_add(1, SeqCst)),
            (status, _, class) => refused.push((status, class.to_owned())),
        }
    }
    refused
}

#[tokio::test]
async fn a_death_lets_no_post_run_twice_and_shows_no_page() {
    let mut sites = sites(["a", "b", "c"]).await;
    let (_gateway, address) = gateway(&entries(&sites, false), ONE_POOL).await;
    let answered = Arc::<AtomicUsize>::default();
    let visitors: Vec<_> = (0..8).map(|_| tokio::spawn(posts(address, Arc::clone(&answered)))).collect();
    let reached = async |count| {
        let enough = async || (answered.load(SeqCst) >= count).then_some(());
        until(&format!("{count} answers"), SOON, enough).await.expect("POSTs go on");
    };
    reached(400).await;
    sites[0].frps.kill9();
    reached(1200).await;
    sites[1].frpc.kill9();
    let mut refused = Vec::new();
    for visitor in visitors {
        refused.extend(visitor.await.expect("a visitor does not panic"));
    }
    let answered = answered.load(SeqCst);
    let ran: u64 = sites.iter().map(|site| site.app.requests()).sum();
    eprintln!("2400 POSTs over two deaths: {answered} answered 200, {ran} ran, refused: {refused:?}");
    assert_eq!(answered + refused.len(), 2400);
    assert!(refused.iter().all(|(status, _)| *status == 502), "{refused:?}");
    assert!(refused.len() <= 16, "only what was under way may be lost: {refused:?}");
    let ran = usize::try_from(ran).expect("a small number");
    assert!((answered..=2400).contains(&ran), "{ran} ran of 2400 sent, {answered} of them answered");
}

#[tokio::test]
async fn weights_are_kept_and_weight_0_gets_nothing() {
    let sites = sites(["a", "b", "c"]).await;
    let weights = "{ name: a, weight: 3 }, { name: b, weight: 1 }, { name: c, weight: 0 }";
    let rest = format!("pools: [{{ name: p, frps: [{weights}] }}]\nroutes: [{{ pool: p }}]");
    let (_gateway, address) = gateway(&entries(&sites, false), &rest).await;
    let load = Load::start(address, "app.test", "/", 8);
    load.more(2000).await;
    let tally = load.stop().await;
    assert!(tally.failed.is_empty(), "{:?}", tally.failed);
    let share = tally.of("a") as f64 / tally.total() as f64;
    eprintln!("weights 3:1:0 gave {:?}", tally.served);
    assert!((0.73..=0.77).contains(&share), "weights 3:1 gave {:?}", tally.served);
    assert_eq!((tally.of("c"), sites[2].app.requests()), (0, 0), "weight 0");
}

async fn wait_up(gateway: &Gateway, up: bool) {
    let wanted = f64::from(u8::from(up));
    let labels = ["pool=\"p\"", "endpoint=\"a\""];
    until(&format!("endpoint a to be up={up}"), SOON, async || {
        let seen = metric(gateway, "frp_gateway_endpoint_up", &labels).await;
        ((seen - wanted).abs() < 0.5).then_some(())
    })
    .await
    .expect("the health checks notice");
}

/// Traffic while `a` is out: none for it.
async fn stays_out(load: &Load, app: &DemoApp) {
    load.more(50).await; // what was under way has ended
    let before = load.served_by("a");
    load.more(300).await;
    assert_eq!(load.served_by("a"), before, "an unhealthy endpoint got requests; app saw {}", app.requests());
}

#[tokio::test]
async fn health_checks_through_the_tunnel_take_an_frps_out_and_bring_it_back() {
    let mut sites = sites(["a", "b"]).await;
    let check =
        "{ http: { host: app.test, path: /healthz, expect: 200 }, interval: 100ms, rise: 2, fall: 2 }";
    let rest = format!("pools: [{{ name: p, frps: all, health: {check} }}]\nroutes: [{{ pool: p }}]");
    let (gateway, address): (_, SocketAddr) = gateway(&entries(&sites, false), &rest).await;
    let load = Load::start(address, "app.test", "/", 4);
    load.more_by("a", 50).await;

    // The application says so itself.
    sites[0].app.set_healthy(false);
    wait_up(&gateway, false).await;
    stays_out(&load, &sites[0].app).await;
    sites[0].app.set_healthy(true);
    wait_up(&gateway, true).await;
    load.more_by("a", 50).await;

    // The application is dead; frps and frpc live.
    let at = sites[0].app.addr();
    let dead = std::mem::replace(&mut sites[0].app, DemoApp::start("nobody").expect("an app"));
    dead.stop();
    wait_up(&gateway, false).await;
    stays_out(&load, &sites[1].app).await;
    let log = gateway.log();
    assert!(log.contains("endpoint unhealthy") && log.contains("status 404"), "{log}");
    sites[0].app = DemoApp::start_on(at, "a").expect("its port is free again");
    wait_up(&gateway, true).await;
    let took = load.more_by("a", 50).await;
    let tally = load.stop().await;
    eprintln!("app back: traffic after {took:.1?}; {:?}, {} failed", tally.served, tally.failed.len());
    assert!(tally.failed.is_empty(), "{} failed: {:?}", tally.failed.len(), tally.failed);
}
