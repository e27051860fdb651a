//! The gateway replaces itself, and frpc that are attached through it notice nothing: their connections go on in the new process.
//! Those whose TLS ends at the gateway come back one by one. Real frps and frpc; needs `frp-lab/build`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/clients.rs"]
mod clients;
#[path = "common/control.rs"]
mod control;
#[path = "common/generations.rs"]
mod generations;
#[path = "common/ledger.rs"]
mod ledger;
#[path = "common/takeover.rs"]
mod takeover;

use std::time::{Duration, Instant};

use clients::{command, fleet_of, served};
use control::Site;
use frp_gateway_loadtest::{
    http,
    lab::{Proxy, until},
};
use generations::{Successors, runs, signal, started};
use ledger::{Ledger, visit};
use rustix::process::Signal;
use serde_json::Value;
use takeover::SOON;

const RATE: u32 = 200;
/// Where each request costs a connection, and perhaps a TLS handshake, between frpc and frps.
const RATE_WITHOUT_MUX: u32 = 40;
/// On a busy machine an frpc that logs in anew may be slower than its frps, which lists the tunnel already: a request that comes in
/// that moment is closed early. Where others are under way it is tried again.
const PATIENT: &str = "tunnels: { pool: { retry: { attempts: 6, budget: 100%, backoff: { base: 50ms } } } }";
const PLAIN: &str = "transport.tls.enable = false";

/// Load before, between and after what is done.
const PAUSE: Duration = Duration::from_millis(500);

/// A gateway and those that replaced it.
struct Generations {
    all: Successors,
    serving: u32,
}

impl Generations {
    fn of(site: &Site) -> Self {
        Self { all: Successors::default(), serving: site.world.gateway().pid() }
    }

    /// Replaces the process; the old one's id, which may still have clients.
    async fn next(&mut self, site: &Site) -> u32 {
        let old = self.serving;
        let count = self.all.0.len() + 1;
        assert!(signal(old, Signal::USR2));
        self.until(site, "the new process to serve", || {
            site.world.gateway().log().matches("this process serves now").count() == count
        })
        .await;
        self.all.0 = started(site.world.gateway());
        self.serving = *self.all.0.last().expect("it was started");
        old
    }

    /// Replaces the process and waits until the old one has ended.
    async fn replace(&mut self, site: &Site) {
        let old = self.next(site).await;
        self.until(site, "the old process to end", || !runs(old)).await;
    }

    async fn until(&mut self, site: &Site, what: &str, holds: impl Fn() -> bool) {
        let reached = until(what, SOON, async || holds().then_some(())).await;
        self.all.0 = started(site.world.gateway());
        assert!(reached.is_ok(), "never happened: {what}\n{}", site.world.gateway().log());
    }
}

/// Clients as the gateway lists them, without what is its own affair.
async fn listed(site: &Site) -> Vec<Value> {
    let all = site.world.gateway().api("/api/v1/clients").await.expect("the API answers");
    let mut all = all.as_array().cloned().expect("a list");
    for client in &mut all {
        client.as_object_mut().expect("an object").remove("id");
    }
    all.sort_by_key(Value::to_string);
    all
}

/// How often somebody has logged in at any frps.
fn logins(site: &Site) -> usize {
    site.world.frps.iter().map(|frps| frps.log().matches("client login info").count()).sum()
}

#[tokio::test]
async fn relayed_clients_pass_to_the_new_process_and_to_the_one_after_it_and_notice_nothing() {
    let site = Site::start(&["a", "b"], "place: least_clients", "").await;
    let ledger = Ledger::default();
    let v2 = "transport.wireProtocol = \"v2\"";
    let lines: [&[&str]; 6] = [&[], &[PLAIN], &[v2], &[PLAIN, v2], &[], &[PLAIN, "clientID = \"edge\""]];
    let clients = fleet_of(&site, &ledger, &lines).await;
    let (before, logged_in) = (listed(&site).await, logins(&site));
    assert_eq!((before.len(), logged_in), (6, 6), "{before:?}");
    let mut generations = Generations::of(&site);
    let (account, ()) = visit(site.world.web, 6, RATE, async {
        tokio::time::sleep(PAUSE).await;
        for generation in 1..=2 {
            generations.replace(&site).await;
            tokio::time::sleep(PAUSE).await;
            assert_eq!(listed(&site).await, before, "generation {generation}");
        }
        assert_eq!(logins(&site), logged_in, "{}", site.world.gateway().log());
    })
    .await;
    account.settle("upgraded twice", &ledger);
    assert!(account.failed.is_empty(), "{:#?}\n{}", account.failed, site.world.gateway().log());
    assert_eq!(account.told, 0, "nothing was cut\n{}", site.world.gateway().log());
    // They are the new process's in every respect.
    let (code, text) = command(&site, &["drain", "a", "--wait"]).await;
    assert_eq!(code, 0, "{text}\n{}", site.world.gateway().log());
    assert_eq!(site.spread().await.get("b"), Some(&6), "{:?}", site.clients().await);
    for n in 0..lines.len() {
        served(&site, &format!("h{n}.test")).await;
    }
    let counted = site.metric("", &["frps=\"b\""]).await;
    assert!((counted - 6.0).abs() < 0.1, "{counted} connections counted");
    for client in &clients {
        assert!(client.log().matches("login to server success").count() <= 2, "{}", client.log());
    }
}

#[tokio::test]
async fn every_wire_passes_and_so_do_bytes_under_way() {
    let site = Site::start(&["a", "b"], "", "").await;
    let ledger = Ledger::default();
    let lines: [&[&str]; 4] = [
        &["transport.protocol = \"websocket\""],
        &["transport.tls.disableCustomTLSFirstByte = false"],
        &[PLAIN],
        &[],
    ];
    let _clients = fleet_of(&site, &ledger, &lines).await;
    let bulk = takeover::app("bulk");
    let client = site.frpc(site.options("bulk", vec![Proxy::tcp("raw", bulk.addr(), 0)])).await;
    let port = client.statuses().await.expect("frpc's admin API")[0].remote_address.clone();
    let port: u16 = port.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let direct = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let (logged_in, mut generations) = (logins(&site), Generations::of(&site));
    let whole = http::get(direct, "bulk.test", "/bytes/4000000").await.expect("an answer").body;
    // Through frps's own port: nothing but the passed connection can break it.
    let download = tokio::spawn(async move {
        let mut all = Vec::new();
        for _ in 0..25 {
            all.push(http::get(direct, "bulk.test", "/bytes/4000000").await.map(|reply| reply.body));
        }
        all
    });
    generations.replace(&site).await;
    generations.replace(&site).await;
    for body in download.await.expect("no panic") {
        let body = body.expect("an answer");
        assert!(body == whole, "{} bytes of {}, or others", body.len(), whole.len());
    }
    for n in 0..lines.len() {
        served(&site, &format!("h{n}.test")).await;
    }
    assert_eq!(logins(&site), logged_in, "{}", site.world.gateway().log());
}

#[tokio::test]
async fn without_mux_work_connections_find_their_login_in_the_new_process() {
    for tls in [&[][..], &[PLAIN]] {
        let line = "transport.tcpMux = false";
        let site = Site::with(&["a", "b"], "", "", line).await;
        let ledger = Ledger::default();
        let lines = [line].iter().chain(tls).copied().collect::<Vec<_>>();
        let clients = fleet_of(&site, &ledger, &[&lines[..]; 3]).await;
        let (logged_in, mut generations) = (logins(&site), Generations::of(&site));
        let (account, ()) = visit(site.world.web, 3, RATE_WITHOUT_MUX, async {
            generations.replace(&site).await;
            generations.replace(&site).await;
        })
        .await;
        account.settle("upgraded without mux", &ledger);
        assert!(account.failed.is_empty(), "{:#?}\n{}", account.failed, site.world.gateway().log());
        assert_eq!(logins(&site), logged_in, "{}", site.world.gateway().log());
        for client in &clients {
            assert!(!client.log().contains("no client control found"), "{}", client.log());
        }
    }
}

#[tokio::test]
async fn clients_whose_tls_ends_at_the_gateway_come_back_one_by_one_and_no_request_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(vec!["gate.test".to_owned()]).expect("a certificate");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let tls =
        format!("tls: {{ certificates: [{{ cert: \"{}\", key: \"{}\" }}] }}", cert.display(), key.display());
    let site = Site::start(&["a", "b"], &tls, PATIENT).await;
    let ledger = Ledger::default();
    let lines: [&[&str]; 4] = [&[], &[], &[PLAIN], &["clientID = \"edge\""]];
    let _clients = fleet_of(&site, &ledger, &lines).await;
    let logged_in = logins(&site);
    let mut generations = Generations::of(&site);
    let (account, took) = visit(site.world.web, 4, RATE, async {
        let begun = Instant::now();
        generations.replace(&site).await;
        begun.elapsed()
    })
    .await;
    account.settle("upgraded, TLS ends here", &ledger);
    println!("the old process ended after {took:?}");
    let log = site.world.gateway().log();
    assert!(account.failed.is_empty(), "{:#?}\n{log}", account.failed);
    assert!(
        account.told <= 3,
        "none was cut, each may have come a moment too early: {}\n{log}",
        account.told
    );
    assert_eq!(logins(&site), logged_in + 3, "all but the plain one\n{log}");
    assert_eq!(log.matches("client moved").count(), 3, "{log}");
    let listed = listed(&site).await;
    assert_eq!(listed.len(), 4, "{listed:?}\n{log}");
}

#[tokio::test]
async fn clients_come_back_when_the_new_process_is_killed_as_soon_as_it_serves() {
    let mut site = Site::start(&["a", "b"], "", "").await;
    let ledger = Ledger::default();
    let lines: [&[&str]; 4] = [&[], &[PLAIN], &[], &[PLAIN]];
    let _clients = fleet_of(&site, &ledger, &lines).await;
    let mut generations = Generations::of(&site);
    let old = generations.next(&site).await;
    assert!(signal(generations.serving, Signal::KILL));
    let new = generations.serving;
    generations.until(&site, "both processes to end", || !runs(old) && !runs(new)).await;
    site.world.start_gateway().await;
    let begun = Instant::now();
    for n in 0..lines.len() {
        served(&site, &format!("h{n}.test")).await;
    }
    println!("all came back within {:?}", begun.elapsed());
    assert_eq!(listed(&site).await.len(), lines.len());
    assert!(begun.elapsed() < SOON + Duration::from_secs(10));
}
