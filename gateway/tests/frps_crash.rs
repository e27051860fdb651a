//! An frps crashes, freezes, or all are restarted one by one, under 500 requests a second, with every frpc attached by one connection
//! through the gateway: no idempotent request fails, none is sent twice that may not be. Real frps and frpc; needs `frp-lab/build`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/clients.rs"]
mod clients;
#[path = "common/control.rs"]
mod control;
#[path = "common/ledger.rs"]
mod ledger;
#[path = "common/takeover.rs"]
mod takeover;

use std::time::Duration;

use control::Site;
use frp_gateway_loadtest::{
    http,
    lab::{Frpc, Proxy, until},
};
use ledger::{Ledger, app, visit};
use takeover::SOON;

const RATE: u32 = 500;
/// Clients, and hosts: each client has one.
const CLIENTS: usize = 6;

async fn fleet(site: &Site, ledger: &Ledger) -> Vec<Frpc> {
    let clients = clients::fleet(site, ledger, CLIENTS).await;
    assert!(site.spread().await.values().all(|count| *count == 2), "{:?}", site.spread().await);
    clients
}

async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await; // load before, and between, what is done
}

#[tokio::test]
async fn a_killed_frps_costs_a_pause_and_no_idempotent_request() {
    let mut site = Site::start(&["a", "b", "c"], "", "").await;
    let ledger = Ledger::default();
    let _clients = fleet(&site, &ledger).await;
    let (web, victim) = (site.world.web, &mut site.world.frps[0]);
    let (account, ()) = visit(web, CLIENTS, RATE, async {
        wait(1500).await;
        victim.kill9();
        wait(1500).await;
    })
    .await;
    account.settle("frps killed", &ledger);
    assert!(account.failed.is_empty(), "{:#?}\n{}", account.failed, site.world.gateway().log());
    assert!(account.served > 1500 && account.told < 20, "{} {}", account.served, account.told);
    // 0.5 s is what is aimed at; the machine has two cores for everything.
    assert!(account.quantile(0.999) < Duration::from_secs(1), "{:?}", account.quantile(0.999));
}

#[tokio::test]
async fn a_frozen_frps_is_noticed_and_its_clients_serve_from_elsewhere() {
    let mut site = Site::start(&["a", "b", "c"], "", "").await;
    let ledger = Ledger::default();
    let _clients = fleet(&site, &ledger).await;
    let web = site.world.web;
    let (account, ()) = visit(web, CLIENTS, RATE, async {
        wait(1000).await;
        site.world.frps[0].sigstop();
        site.world.until_logged("frps is frozen").await;
        wait(1500).await;
    })
    .await;
    site.world.frps[0].sigcont();
    account.settle("frps frozen", &ledger);
    assert!(account.failed.is_empty(), "{:#?}\n{}", account.failed, site.world.gateway().log());
    // 3 s is what is aimed at.
    assert!(account.quantile(1.0) < Duration::from_secs(4), "{:?}", account.quantile(1.0));
    site.world.until_logged("frps answers again").await;
}

#[tokio::test]
async fn all_frps_restarted_one_by_one_cost_no_idempotent_request() {
    let mut site = Site::start(&["a", "b", "c"], "", "").await;
    let ledger = Ledger::default();
    let _clients = fleet(&site, &ledger).await;
    let (web, frps) = (site.world.web, &mut site.world.frps);
    let (account, ()) = visit(web, CLIENTS, 200, async {
        for one in frps.iter_mut() {
            wait(700).await;
            one.kill9();
            wait(300).await;
            one.restart().await.expect("it is back");
            wait(700).await;
        }
    })
    .await;
    account.settle("frps restarted one by one", &ledger);
    assert!(account.failed.is_empty(), "{:#?}\n{}", account.failed, site.world.gateway().log());
}

#[tokio::test]
async fn a_killed_frpc_with_a_twin_elsewhere_costs_no_idempotent_request() {
    let site = Site::start(&["a", "b"], "", "").await;
    let ledger = Ledger::default();
    let mut twins = Vec::new();
    for _ in 0..2 {
        let proxy = Proxy::http("web", app("app", &ledger).await, &["h0.test"]);
        twins.push(site.frpc(site.options("u", vec![proxy])).await);
    }
    assert!(site.spread().await.values().all(|count| *count == 1), "{:?}", site.spread().await);
    until("its host to be served", SOON, async || {
        (http::get(site.world.web, "h0.test", "/").await.ok()?.status == 200).then_some(())
    })
    .await
    .expect("it is");
    let victim = &mut twins[0];
    let (account, ()) = visit(site.world.web, 1, RATE, async {
        wait(1000).await;
        victim.kill9();
        wait(500).await;
    })
    .await;
    account.settle("frpc killed", &ledger);
    assert!(account.failed.is_empty(), "{:#?}\n{}", account.failed, site.world.gateway().log());
    assert!(account.quantile(0.999) < Duration::from_millis(500), "{:?}", account.quantile(0.999));
}
