//! frps answers for a tunnel it does not have with a 404 that looks like an answer. No visitor ever sees it, and the
//! 404s of applications arrive untouched. Real frps and frpc; needs `frp-lab/build`.

#[path = "common/fleet.rs"]
mod fleet;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use fleet::{SOON, ask, bare, gateway, gist, metric, tunnel};
use frp_gateway_loadtest::{
    demo::{DemoApp, frps_404},
    http::{self, Connection, empty, full},
    lab::{Frpc, Frps, FrpsOptions, Proxy},
};

const ABSENT: &str = "frp_gateway_endpoint_absent_total";
const ONE_POOL: &str = "pools: [{ name: p, frps: all }]\nroutes: [{ pool: p }]";

/// Two frps; the only tunnel is on the second, so that whoever asks in file order begins with the wrong one.
struct Lopsided {
    a: Frps,
    b: Frps,
    app: DemoApp,
    frpc: Frpc,
}

impl Lopsided {
    async fn start(domains: &[&str]) -> Self {
        let app = DemoApp::start("shop").expect("an application");
        let a = Frps::start(FrpsOptions::new("a")).await.expect("frps starts");
        let mut b = Frps::start(FrpsOptions::new("b")).await.expect("frps starts");
        let frpc = tunnel(&mut b, Proxy::http("web", app.addr(), domains)).await;
        Self { a, b, app, frpc }
    }

    fn bare(&self) -> [String; 2] {
        [bare("a", &self.a), bare("b", &self.b)]
    }

    fn with_admin(&self) -> [String; 2] {
        [self.a.yaml(), self.b.yaml()]
    }
}

fn hosts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("h{n}.test")).collect()
}

fn as_str(hosts: &[String]) -> Vec<&str> {
    hosts.iter().map(String::as_str).collect()
}

/// What the visitors of one policy got.
#[derive(Debug, Default)]
struct Seen {
    hello: usize,
    own_404: usize,
    pages: usize,
    other: Vec<String>,
}

/// 550 requests on one connection, every eleventh for the application's own 404.
async fn visitor(address: SocketAddr, host: &'static str) -> Seen {
    let mut seen = Seen::default();
    let mut connection = Connection::open(address).await.expect("the gateway listens");
    for n in 0..550 {
        let own = n % 11 == 10;
        let path = if own { "/status/404" } else { "/" };
        match connection.send(http::request("GET", host, path).body(empty())).await {
            Ok(reply) if reply.text().contains("Faithfully yours, frp.") => seen.pages += 1,
            Ok(reply) if own && reply.text() == "shop says 404\n" && gist(&reply) == (404, "shop", "-") => {
                seen.own_404 += 1;
            }
            Ok(reply) if !own && gist(&reply) == (200, "shop", "-") => seen.hello += 1,
            Ok(reply) => seen.other.push(format!("{path} {:?} {}", gist(&reply), reply.text())),
            Err(error) => {
                seen.other.push(format!("{path} {error}"));
                connection = Connection::open(address).await.expect("the gateway listens");
            }
        }
    }
    seen
}

async fn twenty_visitors(address: SocketAddr, host: &'static str) -> (Seen, Duration) {
    let begun = Instant::now();
    let visitors: Vec<_> = (0..20).map(|_| tokio::spawn(visitor(address, host))).collect();
    let mut sum = Seen::default();
    for visitor in visitors {
        let seen = visitor.await.expect("a visitor does not panic");
        sum.hello += seen.hello;
        sum.own_404 += seen.own_404;
        sum.pages += seen.pages;
        sum.other.extend(seen.other);
    }
    (sum, begun.elapsed())
}

#[tokio::test]
async fn no_page_of_frps_reaches_a_visitor_under_any_policy_and_every_404_of_the_application_does() {
    const POLICIES: [(&str, &str); 3] =
        [("round_robin", "rr.test"), ("random", "random.test"), ("least_request", "least.test")];
    let fleet = Lopsided::start(&POLICIES.map(|(_, host)| host)).await;
    let direct = http::get(fleet.a.http(), "rr.test", "/").await.expect("frps answers");
    assert_eq!((direct.status, direct.text()), (404, frps_404()), "what half of the visitors would get");
    fleet.app.set_delay(Duration::from_millis(50));

    let mut rest = String::from("pools:\n");
    for (policy, _) in POLICIES {
        rest += &format!("  - {{ name: {policy}, frps: all, balance: {policy} }}\n");
    }
    rest += "routes:\n";
    for (policy, host) in POLICIES {
        rest += &format!("  - {{ match: {{ host: {host} }}, pool: {policy} }}\n");
    }
    let (gateway, address) = gateway(&fleet.bare(), &rest).await;
    let running = POLICIES.map(|(_, host)| tokio::spawn(twenty_visitors(address, host)));

    eprintln!("policy          app's 200  app's 404  frps's page  other  asked twice  seconds");
    for ((policy, _), running) in POLICIES.into_iter().zip(running) {
        let (seen, took) = running.await.expect("visitors do not panic");
        let twice =
            metric(&gateway, "frp_gateway_pool_retries_total", &[&format!("pool=\"{policy}\"")]).await;
        eprintln!(
            "{policy:15} {:9}  {:9}  {:11}  {:5}  {twice:11}  {:7.1}",
            seen.hello,
            seen.own_404,
            seen.pages,
            seen.other.len(),
            took.as_secs_f64()
        );
        assert_eq!((seen.pages, seen.other.len()), (0, 0), "{policy}: {:?}", seen.other.first());
        assert_eq!((seen.hello, seen.own_404), (10_000, 1_000), "{policy}");
        assert!((1.0..550.0).contains(&twice), "{policy}: {twice} of 11,000 requests went wrong first");
    }
    let absent = metric(&gateway, ABSENT, &["endpoint=\"b\""]).await;
    assert!(absent < 0.5, "frps b, which has the tunnel, was {absent} times taken for one without");
}

#[tokio::test]
async fn with_the_admin_api_the_very_first_request_goes_to_the_holder() {
    let hosts = hosts(30);
    let fleet = Lopsided::start(&as_str(&hosts)).await;
    let (gateway, address) = gateway(&fleet.with_admin(), ONE_POOL).await;
    for (n, host) in hosts.iter().enumerate() {
        let method = ["POST", "GET", "DELETE"][n % 3];
        let reply = ask(address, method, host, "/", empty()).await;
        assert_eq!(gist(&reply), (200, "shop", "-"), "{method} {host}: {}", reply.text());
    }
    let absent = metric(&gateway, ABSENT, &[]).await;
    assert!(absent < 0.5, "{absent} requests went to the frps without the tunnel");
    assert_eq!(fleet.app.requests(), 30);
}

#[tokio::test]
async fn without_it_a_post_with_a_body_finds_the_holder_and_runs_once() {
    let hosts = hosts(40);
    let fleet = Lopsided::start(&as_str(&hosts)).await;
    let (gateway, address) = gateway(&fleet.bare(), ONE_POOL).await;
    for (n, host) in hosts.iter().enumerate() {
        // A few bytes, more than the gateway's buffer, more than all socket buffers.
        for size in [5, 100_000, if n % 10 == 0 { 9_000_000 } else { 20 }] {
            let reply = ask(address, "POST", host, "/echo", full(vec![b'x'; size])).await;
            assert_eq!(gist(&reply), (200, "shop", "-"), "{host} {size}: {}", reply.text());
            assert_eq!(reply.json().expect("JSON")["body_length"], size, "{host}");
        }
    }
    assert_eq!(fleet.app.requests(), 120, "each ran once");
    let absent = metric(&gateway, ABSENT, &["endpoint=\"a\""]).await;
    assert!(absent >= 5.0, "the wrong frps was asked {absent} times: too few to prove anything");
}

#[tokio::test]
async fn without_it_a_post_without_a_body_goes_right_or_is_told_502_and_then_goes_right() {
    let hosts = hosts(40);
    let fleet = Lopsided::start(&as_str(&hosts)).await;
    let (_gateway, address) = gateway(&fleet.bare(), ONE_POOL).await;
    let mut wrong = 0;
    for host in &hosts {
        // Each worker learns by itself; a kept connection stays with one of them.
        let mut connection = Connection::open(address).await.expect("the gateway listens");
        let mut post = async || {
            let request = http::request("POST", host, "/").header("content-length", "0").body(empty());
            connection.send(request).await.expect("an answer")
        };
        let first = post().await;
        if gist(&first) != (200, "shop", "-") {
            assert_eq!(gist(&first), (502, "-", "may_have_run"), "{host}: {}", first.text());
            wrong += 1;
            let second = post().await;
            assert_eq!(gist(&second), (200, "shop", "-"), "{host}, after a 502: {}", second.text());
        }
    }
    assert!(wrong > 0, "no request went to the wrong frps: nothing is proved");
    assert_eq!(fleet.app.requests(), 40, "each answered request ran once, no other did");
}

#[tokio::test]
async fn a_host_that_nobody_has_gets_our_own_404() {
    let fleet = Lopsided::start(&["app.test"]).await;
    for entries in [fleet.bare(), fleet.with_admin()] {
        let (_gateway, address) = gateway(&entries, ONE_POOL).await;
        for (method, size) in [("GET", 0), ("PUT", 10), ("POST", 10), ("POST", 100_000), ("HEAD", 0)] {
            let body = if size == 0 { empty() } else { full(vec![b'x'; size]) };
            let reply = ask(address, method, "nobody.test", "/", body).await;
            assert_eq!(gist(&reply), (404, "-", "no_tunnel"), "{method} {size}: {}", reply.text());
        }
    }
    assert_eq!(fleet.app.requests(), 0);
}

#[tokio::test]
async fn a_known_host_whose_frpc_is_gone_gets_503_and_is_back_with_it() {
    let mut fleet = Lopsided::start(&["app.test"]).await;
    // One listing only: what the gateway knows is older than the death.
    let entries =
        fleet.with_admin().map(|entry| entry.replace("password: lab", "password: lab, interval: 1h"));
    let (_gateway, address) = gateway(&entries, ONE_POOL).await;
    assert_eq!(gist(&ask(address, "GET", "app.test", "/", empty()).await), (200, "shop", "-"));
    fleet.frpc.kill9();
    fleet.b.wait_offline(&["web"], SOON).await.expect("frps notices");
    for (method, body) in [("GET", empty()), ("PUT", full("hi")), ("GET", empty())] {
        let reply = ask(address, method, "app.test", "/", body).await;
        assert_eq!(gist(&reply), (503, "-", "tunnel_away"), "{method}: {}", reply.text());
        assert!(reply.header("retry-after").is_some(), "{:?}", reply.headers);
    }
    let stranger = ask(address, "GET", "nobody.test", "/", empty()).await;
    assert_eq!(gist(&stranger), (404, "-", "no_tunnel"), "an unknown host is not away");
    fleet.frpc.restart().await.expect("frpc starts again");
    fleet.b.wait_online(&["web"], SOON).await.expect("the tunnel is live");
    let back = ask(address, "GET", "app.test", "/", empty()).await;
    assert_eq!(gist(&back), (200, "shop", "-"), "left out is not forgotten: {}", back.text());
}

#[tokio::test]
async fn an_imitation_of_the_page_arrives_intact_where_frps_has_a_page_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("404.html");
    std::fs::write(&page, "<title>gone</title><!-- frps-marker-7 -->").expect("written");
    let app = DemoApp::start("shop").expect("an application");
    let options = |name| FrpsOptions::new(name).line(&format!("custom404Page = {page:?}"));
    let a = Frps::start(options("a")).await.expect("frps starts");
    let mut b = Frps::start(options("b")).await.expect("frps starts");
    let _frpc = tunnel(&mut b, Proxy::http("web", app.addr(), &["app.test"])).await;
    let marked = |name, frps: &Frps| bare(name, frps).replace(" }", ", not_found_marker: frps-marker-7 }");
    let (gateway, address) = gateway(&[marked("a", &a), marked("b", &b)], ONE_POOL).await;
    for n in 0..100 {
        let reply = ask(address, "GET", "app.test", "/fake404", empty()).await;
        assert_eq!((gist(&reply), reply.text()), ((404, "-", "-"), frps_404()), "imitation {n}");
    }
    assert_eq!(app.requests(), 100, "each was asked for once");
    let absent = metric(&gateway, ABSENT, &["endpoint=\"a\""]).await;
    assert!(absent >= 1.0, "the page with the marker was seen {absent} times: nothing is proved");
    let reply = ask(address, "GET", "nobody.test", "/", empty()).await;
    assert_eq!(gist(&reply), (404, "-", "no_tunnel"), "the page with the marker: {}", reply.text());
}

#[tokio::test]
async fn an_imitation_of_the_page_is_tried_elsewhere_without_a_marker() {
    let (one, two) = (DemoApp::start("one").expect("an app"), DemoApp::start("two").expect("an app"));
    let mut a = Frps::start(FrpsOptions::new("a")).await.expect("frps starts");
    let mut b = Frps::start(FrpsOptions::new("b")).await.expect("frps starts");
    let _one = tunnel(&mut a, Proxy::http("web", one.addr(), &["app.test"])).await;
    let _two = tunnel(&mut b, Proxy::http("web", two.addr(), &["app.test"])).await;
    let (_gateway, address) = gateway(&[bare("a", &a), bare("b", &b)], ONE_POOL).await;
    let reply = ask(address, "GET", "app.test", "/fake404", empty()).await;
    assert_eq!(gist(&reply), (404, "-", "no_tunnel"), "{}", reply.text());
    assert_eq!((one.requests(), two.requests()), (1, 1), "each application was asked once");
    let other = ask(address, "GET", "app.test", "/", empty()).await;
    assert_eq!(other.status, 200, "another path of the host is untouched: {}", other.text());
}

#[tokio::test]
async fn head_of_an_own_404_arrives_and_head_finds_the_holder() {
    let fleet = Lopsided::start(&["app.test"]).await;
    let (_gateway, address) = gateway(&fleet.bare(), ONE_POOL).await;
    for n in 0..20 {
        for (path, status) in [("/status/404", 404), ("/", 200), ("/none/such", 404)] {
            let reply = ask(address, "HEAD", "app.test", path, empty()).await;
            assert_eq!(gist(&reply), (status, "shop", "-"), "{path} {n}");
            assert!(reply.body.is_empty(), "{path}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn one_domain_with_different_locations_on_different_frps_is_reachable_as_a_whole() {
    let (one, two) = (DemoApp::start("one").expect("an app"), DemoApp::start("two").expect("an app"));
    let mut a = Frps::start(FrpsOptions::new("a")).await.expect("frps starts");
    let mut b = Frps::start(FrpsOptions::new("b")).await.expect("frps starts");
    let proxy =
        |app: &DemoApp, location| Proxy::http("web", app.addr(), &["app.test"]).locations(&[location]);
    let _one = tunnel(&mut a, proxy(&one, "/bytes")).await;
    let _two = tunnel(&mut b, proxy(&two, "/status")).await;
    for entries in [[bare("a", &a), bare("b", &b)], [a.yaml(), b.yaml()]] {
        let (gateway, address) = gateway(&entries, ONE_POOL).await;
        for n in 0..20 {
            for (path, app) in [("/bytes/3", "one"), ("/status/200", "two")] {
                let reply = ask(address, "GET", "app.test", path, empty()).await;
                assert_eq!(gist(&reply), (200, app, "-"), "{path} {n}: {}", reply.text());
                let reply = ask(address, "POST", "app.test", path, full("hi")).await;
                assert_eq!(gist(&reply), (200, app, "-"), "POST {path} {n}: {}", reply.text());
            }
        }
        let known = entries[0].contains("admin");
        let absent = metric(&gateway, ABSENT, &[]).await;
        assert_eq!(absent < 0.5, known, "{absent} pages, listing known: {known}");
        let nowhere = ask(address, "GET", "app.test", "/else", empty()).await;
        assert_eq!(gist(&nowhere), (404, "-", "no_tunnel"), "a path that no location covers is not away");
    }
}
