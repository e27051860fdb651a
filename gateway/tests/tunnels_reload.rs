//! An frpc changes what it serves while visitors ask: nobody gets another's answer, and nobody waits. Real frps and frpc; needs
//! `frp-lab/build`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/takeover.rs"]
mod takeover;
#[path = "common/watch.rs"]
mod watch;

use std::time::{Duration, Instant};

use frp_gateway_loadtest::lab::{Proxy, until};
use takeover::{SHORT_HOLD, SOON, World, app};
use watch::Watch;

#[tokio::test]
async fn two_proxies_that_trade_their_hosts_never_answer_for_each_other() {
    let world = World::with(&["a"], "", |options| options.tunnel_ports(2)).await;
    let apps = [app("app0"), app("app1")];
    // Proxy p has host h, and with it the application of h: names and ports stay, hosts go back and forth.
    let with = |first: usize| {
        [("p0", first), ("p1", 1 - first)]
            .map(|(name, n)| Proxy::http(name, apps[n].addr(), &[&format!("h{n}.test")]))
            .to_vec()
    };
    let mut frpc = world.frpc(0, "u", with(0)).await;
    let watch = Watch::start(world.web, 2);
    watch.more(200).await;
    for round in 0..8 {
        frpc.reload(with((round + 1) % 2)).await.expect("frpc reloads");
        let begun = Instant::now();
        for n in 0..2 {
            until("the host to be served again", SOON, async || {
                (world.get(&format!("h{n}.test"), "/").await.app() == Some(&*format!("app{n}"))).then_some(())
            })
            .await
            .unwrap_or_else(|error| panic!("round {round}: {error}\n{}", world.gateway().log()));
        }
        watch.more(100).await;
        watch.all_right(&format!("round {round}"));
        println!("round {round}: both served {:?} after the reload", begun.elapsed());
    }
    println!("{:?}", watch.end().await);
}

#[tokio::test]
async fn a_proxy_that_gets_another_host_by_reload_is_served_there_and_nowhere_else() {
    let world = World::start(&["a"], SHORT_HOLD).await;
    let ours = app("app");
    let with = |domains: &[&str]| vec![Proxy::http("web", ours.addr(), domains)];
    let mut frpc = world.frpc(0, "u", with(&["one.test", "two.test"])).await;
    let serves = async |host: &str| world.get(host, "/").await.app() == Some("app");
    for (domains, gone) in [
        (&["two.test", "three.test"][..], "one.test"),
        (&["*.four.test"][..], "three.test"),
        (&["one.test"][..], "x.four.test"),
    ] {
        frpc.reload(with(domains)).await.expect("frpc reloads");
        let begun = Instant::now();
        for domain in domains {
            let host = domain.replace('*', "x");
            until("the new host to serve", SOON, async || serves(&host).await.then_some(()))
                .await
                .expect("it does");
        }
        until("the old host to be nobody's", SOON, async || (!serves(gone).await).then_some(()))
            .await
            .expect("it is");
        let took = begun.elapsed();
        println!("{domains:?} instead of {gone}: {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        let reply = world.get(gone, "/").await;
        assert_eq!(
            (reply.status, reply.header("x-frp-gateway").is_some()),
            (503, true),
            "{gone}: it was there just now"
        );
    }
    let unknown = world.get("never.test", "/").await;
    let class = unknown.header("x-frp-gateway").map(ToOwned::to_owned);
    assert_eq!((unknown.status, class.as_deref()), (404, Some("no_tunnel")), "{}", unknown.text());
}

#[tokio::test]
async fn weight_zero_takes_no_new_request_and_loses_none() {
    let world = World::start(&["a", "b"], "").await;
    let (one, two) = (app("app0"), app("app0"));
    let with = |app: &frp_gateway_loadtest::demo::DemoApp, weight: &str| {
        vec![Proxy::http("web", app.addr(), &["h0.test"]).metadata("gw_weight", weight)]
    };
    let mut first = world.frpc(0, "u", with(&one, "1")).await;
    let _second = world.frpc(1, "u", with(&two, "1")).await;
    let watch = Watch::start(world.web, 1);
    watch.more(100).await;
    first.reload(with(&one, "0")).await.expect("frpc reloads");
    until("it to get nothing more", SOON, async || {
        let before = one.requests();
        watch.more(50).await;
        (one.requests() == before).then_some(())
    })
    .await
    .expect("weight 0 counts");
    let before = one.requests();
    watch.more(300).await;
    assert_eq!(one.requests(), before, "at weight 0");
    first.reload(with(&one, "1")).await.expect("frpc reloads");
    until("it to get requests again", SOON, async || (one.requests() > before).then_some(()))
        .await
        .expect("it does");
    let seen = watch.end().await;
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["served"], "no request failed: {seen:?}");
}
