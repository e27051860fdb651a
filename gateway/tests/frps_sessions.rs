//! Sessions by cookie over the death and return of an frps and of the gateway. Real frps and frpc; needs `frp-lab/build`.

#[path = "common/fleet.rs"]
mod fleet;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use fleet::{SOON, Site, bare, gateway};
use frp_gateway_loadtest::{
    http::{self, Reply},
    lab::{FreePorts, Gateway, Version, until},
};

const SESSIONS: usize = 30;
const HOST: &str = "app.test";

fn pools(strict: bool) -> String {
    format!(
        "pools:\n  - name: p\n    frps: all\n    fail_timeout: 100ms\n    absent_timeout: 100ms\n    affinity: {{ cookie: {{ \
         name: gw, key: \"0123456789abcdef0123456789abcdef\", strict: {strict} }} }}\nroutes: [{{ pool: p }}]"
    )
}

async fn sites() -> Vec<Site> {
    let mut sites = Vec::new();
    for name in ["a", "b", "c"] {
        sites.push(Site::start(name, Version::V071, &[HOST]).await);
    }
    sites
}

fn entries(sites: &[Site]) -> Vec<String> {
    sites.iter().map(|site| bare(site.name, &site.frps)).collect()
}

/// A browser: keeps the cookie it was given last.
struct Visitor {
    cookie: Option<String>,
    app: String,
}

impl Visitor {
    async fn ask(&mut self, address: SocketAddr) -> Reply {
        let mut request = http::request("GET", HOST, "/");
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", format!("gw={cookie}"));
        }
        let reply = http::send(address, request.body(http::empty())).await.expect("an answer");
        let set = reply.header("set-cookie").and_then(|line| line.strip_prefix("gw=")?.split(';').next());
        if let Some(value) = set {
            self.cookie = Some(value.to_owned());
        }
        reply
    }
}

/// So many visitors with a session each, at all three applications.
async fn visitors(address: SocketAddr) -> Vec<Visitor> {
    let mut all = Vec::new();
    for _ in 0..SESSIONS {
        let mut visitor = Visitor { cookie: None, app: String::new() };
        let reply = visitor.ask(address).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        visitor.app = reply.app().expect("an application answered").to_owned();
        assert!(visitor.cookie.is_some(), "the first answer sets a cookie");
        all.push(visitor);
    }
    let apps: BTreeSet<_> = all.iter().map(|visitor| visitor.app.as_str()).collect();
    assert_eq!(apps.len(), 3, "round robin gives all three sessions");
    all
}

/// What everybody gets now: status and application, by session.
async fn round(visitors: &mut [Visitor], address: SocketAddr) -> Vec<(u16, String)> {
    let mut got = Vec::new();
    for visitor in visitors {
        let reply = visitor.ask(address).await;
        got.push((reply.status, reply.app().or(reply.header("x-frp-gateway")).unwrap_or("-").to_owned()));
    }
    got
}

#[tokio::test]
async fn sessions_of_a_dead_frps_move_once_and_no_other_ever_does() {
    let mut sites = sites().await;
    let (_gateway, address) = gateway(&entries(&sites), &pools(false)).await;
    let mut visitors = visitors(address).await;
    sites[0].frps.kill9();
    let mut moved = BTreeMap::new();
    for repetition in 0..5 {
        for (at, (status, app)) in round(&mut visitors, address).await.into_iter().enumerate() {
            assert_eq!(status, 200, "session {at}, round {repetition}");
            if visitors[at].app != "a" {
                assert_eq!(app, visitors[at].app, "session {at} had no reason to move, round {repetition}");
            } else {
                let first: &mut String = moved.entry(at).or_insert_with(|| app.clone());
                assert!(app != "a" && app == *first, "session {at} moved again: {first} → {app}");
            }
        }
    }
    assert!(!moved.is_empty(), "some sessions were at the dead frps");
    sites[0].frps.restart().await.expect("frps starts again");
    sites[0].frps.wait_online(&["web"], SOON).await.expect("frpc finds it again");
    // New visitors reach it again; from then on nothing but the cookie keeps the old ones away.
    let back = async || {
        let reply = Visitor { cookie: None, app: String::new() }.ask(address).await;
        (reply.app() == Some("a")).then_some(())
    };
    until("new sessions at the frps that is back", SOON, back).await.expect("it is used again");
    for (at, (status, app)) in round(&mut visitors, address).await.into_iter().enumerate() {
        let home = moved.get(&at).unwrap_or(&visitors[at].app);
        assert_eq!((status, &app), (200, home), "session {at} stays where it is");
    }
}

#[tokio::test]
async fn strict_sessions_wait_for_their_frps_and_find_the_same_application_again() {
    let mut sites = sites().await;
    let (_gateway, address) = gateway(&entries(&sites), &pools(true)).await;
    let mut visitors = visitors(address).await;
    sites[0].frps.kill9();
    let served_before = (sites[1].app.requests(), sites[2].app.requests());
    let got = round(&mut visitors, address).await;
    let others = visitors.iter().filter(|visitor| visitor.app != "a").count() as u64;
    for (at, (status, who)) in got.into_iter().enumerate() {
        let expected =
            if visitors[at].app == "a" { (503, "session_away") } else { (200, &*visitors[at].app) };
        assert_eq!((status, &*who), expected, "session {at}");
    }
    let served = sites[1].app.requests() + sites[2].app.requests() - served_before.0 - served_before.1;
    assert_eq!(served, others, "nobody else got a request of the dead frps's sessions");
    sites[0].frps.restart().await.expect("frps starts again");
    sites[0].frps.wait_online(&["web"], SOON).await.expect("frpc finds it again");
    let mut all_back = async || {
        let got = round(&mut visitors, address).await;
        got.iter().all(|(status, _)| *status == 200).then_some(got)
    };
    let got = until("every session to be served", SOON, &mut all_back).await.expect("all are back");
    for (at, (_, app)) in got.into_iter().enumerate() {
        assert_eq!(app, visitors[at].app, "session {at} is where it was");
    }
}

#[tokio::test]
async fn a_killed_gateway_that_starts_again_finds_every_session() {
    let sites = sites().await;
    let mut ports = FreePorts::new();
    let address = SocketAddr::from(([127, 0, 0, 1], ports.take().expect("a free port")));
    let yaml = format!(
        "listeners:\n  - {{ name: web, bind: \"{address}\" }}\nfrps:\n  - {}\n{}\n",
        entries(&sites).join("\n  - "),
        pools(false)
    );
    let binary = env!("CARGO_BIN_EXE_frp-gateway");
    let mut gateway = Gateway::start(binary, &yaml).await.expect("the gateway starts");
    let mut visitors = visitors(address).await;
    gateway.kill9();
    drop(gateway);
    let _again = Gateway::start(binary, &yaml).await.expect("the gateway starts again");
    for (at, (status, app)) in round(&mut visitors, address).await.into_iter().enumerate() {
        assert_eq!((status, &app), (200, &visitors[at].app), "session {at}");
    }
}
