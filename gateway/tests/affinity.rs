//! Visitors stay where they are: by cookie through weights, reloads, deaths and restarts, by hashed key while the pool
//! stays as it is.

#[path = "common/apps.rs"]
mod apps;
mod common;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use apps::{
    App, Reply, apply, ask, ask_once, connect_from, frps, get_with, metric, named, reply, setup, start,
    with_cookie,
};
use common::{Endpoint, Wire, eventually, field, get, ok};
use frp_gateway::{
    data::affinity::{Sealer, Session},
    snapshot::EndpointId,
};
use frp_gateway_config::{
    model::{AffinityCookie, SameSite, Secure},
    secret::Secret,
};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const NEXT_KEY: &str = "fedcba9876543210fedcba9876543210";

/// `, affinity: …` with the first key; `more` is `, key: value`.
fn cookie(more: &str) -> String {
    format!(", affinity: {{ cookie: {{ key: {KEY}{more} }} }}")
}

fn two(one: SocketAddr, two: SocketAddr) -> [String; 2] {
    [frps("e0", one, ""), frps("e1", two, "")]
}

/// A new visitor's session at the endpoint that answers `name`.
async fn session_at(address: SocketAddr, name: &str) -> String {
    let mut session = None;
    eventually(&format!("a new visitor comes to {name}"), async || {
        let reply = ask_once(address, &get("/")).await;
        session = reply.session().filter(|_| reply.body == name);
        session.is_some()
    })
    .await;
    session.expect("just seen")
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A cookie for `frps` at `address`, as a gateway with this key and pool would have sealed it.
fn sealed(key: &str, pool: &str, name: &str, address: SocketAddr, issued: u64) -> String {
    let config = AffinityCookie {
        name: "gw".into(),
        key: Secret::new(key),
        old_key: None,
        ttl: None,
        idle: None,
        path: "/".into(),
        domain: None,
        secure: Secure::Auto,
        http_only: true,
        same_site: SameSite::Lax,
        strict: false,
    };
    let id = EndpointId {
        frps: name.into(),
        host: "127.0.0.1".into(),
        port: address.port(),
        tunnel: None,
        tls: None,
    };
    let session = Session { member: id.key(), issued, used: issued };
    let mut value = b"gw=".to_vec();
    Sealer::new(&config, pool).seal(session, [9; 24], &mut value);
    String::from_utf8(value).expect("base64")
}

#[tokio::test]
async fn the_first_answer_sets_the_cookie_and_no_later_one_does() {
    let (one, two_) = (named("one").await, named("two").await);
    let (_gateway, address) =
        start(&setup(2, &two(one.address, two_.address), "", &cookie(", ttl: 1h"), "")).await;
    let mut visitor = Wire::connect(address).await;
    let first = ask(&mut visitor, &get("/")).await;
    let session = first.session().expect("a cookie");
    for n in 0..20 {
        let reply = ask(&mut visitor, &with_cookie(&session)).await;
        assert_eq!((&reply.body, reply.set_cookies()), (&first.body, vec![]), "request {n}");
    }
}

#[tokio::test]
async fn a_session_stays_for_200_requests_though_another_member_weighs_100_times_as_much() {
    let (one, two_) = (named("one").await, named("two").await);
    let members = ", frps: [{ name: e0, weight: 1 }, { name: e1, weight: 100 }]";
    let text = setup(2, &two(one.address, two_.address), "", &format!("{members}{}", cookie("")), "");
    let (_gateway, address) = start(&text).await;
    let session = session_at(address, "one").await;
    for n in 0..200 {
        let reply = ask_once(address, &with_cookie(&session)).await;
        assert_eq!((reply.body.as_str(), reply.session()), ("one", None), "request {n}");
    }
}

#[tokio::test]
async fn a_session_wins_over_weight_0_and_nobody_new_comes() {
    let (one, two_) = (named("one").await, named("two").await);
    let text = |weight: u32| {
        let members = format!(", frps: [{{ name: e0, weight: {weight} }}, e1]");
        setup(2, &two(one.address, two_.address), "", &format!("{members}{}", cookie(", strict: true")), "")
    };
    let (gateway, address) = start(&text(1)).await;
    let session = session_at(address, "one").await;
    apply(&gateway, &text(0)).await;
    for n in 0..20 {
        assert_eq!(
            ask_once(address, &with_cookie(&session)).await.body,
            "one",
            "request {n} of the old session"
        );
        assert_eq!(ask_once(address, &get("/")).await.body, "two", "new visitor {n}");
    }
}

#[tokio::test]
async fn a_soft_session_moves_when_its_endpoint_dies_and_stays_where_it_went() {
    let (mut one, mut two_) = (App::start("one").await, App::start("two").await);
    let text =
        setup(1, &two(one.address, two_.address), "", &format!("{}, fail_timeout: 100ms", cookie("")), "");
    let (_gateway, address) = start(&text).await;
    let session = session_at(address, "one").await;
    one.die().await;
    let moved = ask_once(address, &with_cookie(&session)).await;
    assert_eq!((moved.status, moved.body.as_str()), (200, "two"));
    let session = moved.session().expect("a new cookie");
    one.come_back().await;
    eventually("a new visitor comes to the one that is back", async || {
        ask_once(address, &get("/")).await.body == "one"
    })
    .await;
    for n in 0..20 {
        let reply = ask_once(address, &with_cookie(&session)).await;
        assert_eq!((reply.body.as_str(), reply.session()), ("two", None), "request {n}");
    }
    two_.die().await;
    assert_eq!(ask_once(address, &with_cookie(&session)).await.body, "one", "it can move again");
}

#[tokio::test]
async fn a_strict_session_is_refused_while_its_endpoint_is_away_and_served_when_it_is_back() {
    let (mut one, two_) = (App::start("one").await, App::start("two").await);
    let pool = format!("{}, fail_timeout: 100ms", cookie(", strict: true"));
    let (_gateway, address) = start(&setup(1, &two(one.address, two_.address), "", &pool, "")).await;
    let session = session_at(address, "one").await;
    one.die().await;
    let before = two_.seen().len();
    for n in 0..10 {
        let reply = ask_once(address, &with_cookie(&session)).await;
        assert_eq!(
            (reply.status, reply.class(), reply.session()),
            (503, "session_away", None),
            "request {n}"
        );
        assert!(field(&reply.head, "retry-after").is_some(), "{}", reply.head);
    }
    assert_eq!(two_.seen().len(), before, "nobody else is touched");
    one.come_back().await;
    eventually("the session is served again", async || {
        ask_once(address, &with_cookie(&session)).await.body == "one"
    })
    .await;
}

#[tokio::test]
async fn in_a_panic_sessions_stay_with_unhealthy_members_too() {
    let sick = |name: &'static str| {
        App::answering(name, move |request| async move {
            if request.starts_with("GET /healthz") {
                "HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n".to_owned()
            } else {
                ok(name)
            }
        })
    };
    let (one, two_) = (sick("one").await, sick("two").await);
    let check = "http: { host: app.test, path: /healthz }, interval: 50ms, fast_interval: 50ms, fall: 1";
    let pool = |panic: &str| format!("{}{panic}, health: {{ {check} }}", cookie(", strict: true"));
    let text = |panic: &str| setup(1, &two(one.address, two_.address), "", &pool(panic), "");
    let (gateway, address) = start(&text(", panic_threshold: 50%")).await;
    eventually("both are found unhealthy", async || {
        metric(&gateway, "endpoint_up", &[]).await.to_string() == "0"
    })
    .await;
    let session = session_at(address, "one").await;
    for n in 0..10 {
        let reply = ask_once(address, &with_cookie(&session)).await;
        assert_eq!((reply.body.as_str(), reply.session()), ("one", None), "request {n}");
    }
    apply(&gateway, &text("")).await;
    assert_eq!(ask_once(address, &with_cookie(&session)).await.class(), "session_away", "without a panic");
}

#[tokio::test]
async fn the_answer_of_a_strict_sessions_endpoint_is_its_visitors_even_if_others_retry_it() {
    let one = App::answering("one", |request| async move {
        if request.starts_with("GET /fail") {
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nown".to_owned()
        } else {
            ok("one")
        }
    })
    .await;
    let two_ = App::start("two").await;
    let pool = format!("{}, retry: {{ on: [503] }}", cookie(", strict: true"));
    let (_gateway, address) = start(&setup(1, &two(one.address, two_.address), "", &pool, "")).await;
    let session = session_at(address, "one").await;
    let reply = ask_once(address, &get_with("/fail", &format!("Cookie: {session}\r\n"))).await;
    assert_eq!((reply.status, reply.class(), reply.body.as_str()), (503, "", "own"), "{}", reply.head);
}

#[tokio::test]
async fn cookies_that_are_forged_expired_or_of_another_key_or_pool_count_as_none() {
    let (one, two_) = (named("one").await, named("two").await);
    let members = ", frps: [{ name: e0, weight: 0 }, e1]";
    let text =
        setup(1, &two(one.address, two_.address), "", &format!("{members}{}", cookie(", ttl: 1s")), "");
    let (_gateway, address) = start(&text).await;
    let now = unix_now();
    // A little ahead, as another replica's clock may be: it lasts long enough for this test.
    let good = sealed(KEY, "p", "e0", one.address, now + 30);
    let reply = ask_once(address, &with_cookie(&good)).await;
    assert_eq!((reply.body.as_str(), reply.session()), ("one", None), "the good one");
    let forged = good.replace(&good[40..44], if &good[40..44] == "AAAA" { "BBBB" } else { "AAAA" });
    for (what, cookie) in [
        ("forged", forged),
        ("truncated", good[..good.len() - 1].to_owned()),
        ("longer", format!("{good}A")),
        ("empty", "gw=".to_owned()),
        ("garbage", "gw=%00;;;gw".to_owned()),
        ("expired", sealed(KEY, "p", "e0", one.address, now - 5)),
        ("from the far future", sealed(KEY, "p", "e0", one.address, now + 3600)),
        ("of another key", sealed(NEXT_KEY, "p", "e0", one.address, now)),
        ("of another pool", sealed(KEY, "other", "e0", one.address, now)),
        ("of an endpoint that never was", sealed(KEY, "p", "e7", one.address, now)),
    ] {
        let reply = ask_once(address, &with_cookie(&cookie)).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "two"), "{what}: {}", reply.head);
        assert!(reply.session().is_some_and(|new| new != cookie), "{what}: a new cookie is set");
    }
}

#[tokio::test]
async fn a_good_cookie_is_found_behind_bad_ones_of_the_same_name() {
    let (one, two_) = (named("one").await, named("two").await);
    let members = ", frps: [{ name: e0, weight: 0 }, e1]";
    let text = setup(1, &two(one.address, two_.address), "", &format!("{members}{}", cookie("")), "");
    let (_gateway, address) = start(&text).await;
    let good = sealed(KEY, "p", "e0", one.address, unix_now());
    let bad = sealed(NEXT_KEY, "p", "e1", two_.address, unix_now());
    assert_eq!(ask_once(address, &with_cookie(&format!("gw=x; {bad}; {good}"))).await.body, "one");
}

#[tokio::test]
async fn keys_rotate_without_a_session_lost() {
    let (one, two_) = (named("one").await, named("two").await);
    let text = |keys: &str| {
        let affinity = format!(", affinity: {{ cookie: {{ {keys} }} }}");
        setup(2, &two(one.address, two_.address), "", &affinity, "")
    };
    let (gateway, address) = start(&text(&format!("key: {KEY}"))).await;
    let old = session_at(address, "one").await;
    apply(&gateway, &text(&format!("key: {NEXT_KEY}, old_key: {KEY}"))).await;
    let mut renewed = String::new();
    for n in 0..10 {
        let reply = ask_once(address, &with_cookie(&old)).await;
        assert_eq!(reply.body, "one", "request {n}");
        renewed = reply.session().expect("a cookie of the old key is sealed anew");
    }
    apply(&gateway, &text(&format!("key: {NEXT_KEY}"))).await;
    for n in 0..10 {
        let reply = ask_once(address, &with_cookie(&renewed)).await;
        assert_eq!((reply.body.as_str(), reply.session()), ("one", None), "request {n}, new key alone");
    }
    assert!(ask_once(address, &with_cookie(&old)).await.session().is_some(), "the old one counts as none");
}

/// 50 sessions, and the endpoint each is at.
async fn fifty(address: SocketAddr) -> Vec<(String, String)> {
    let mut sessions = Vec::new();
    for _ in 0..50 {
        let reply = ask_once(address, &get("/")).await;
        sessions.push((reply.session().expect("a cookie"), reply.body));
    }
    sessions
}

async fn all_stay(address: SocketAddr, sessions: &[(String, String)]) {
    for (n, (session, body)) in sessions.iter().enumerate() {
        let reply = ask_once(address, &with_cookie(session)).await;
        assert_eq!((&reply.body, reply.session()), (body, None), "session {n}");
    }
}

#[tokio::test]
async fn every_session_survives_kill_9_of_the_gateway() {
    let all = [named("one").await, named("two").await, named("three").await];
    let members: Vec<_> =
        all.iter().zip(["e0", "e1", "e2"]).map(|(e, name)| frps(name, e.address, "")).collect();
    let text = setup(2, &members, "", &format!(", balance: random{}", cookie(", ttl: 1h, idle: 1h")), "");
    let (mut gateway, address) = start(&text).await;
    let sessions = fifty(address).await;
    gateway.kill9();
    let (_gateway, address) = start(&text).await;
    all_stay(address, &sessions).await;
}

#[tokio::test]
async fn replicas_with_the_same_key_agree() {
    let all = [named("one").await, named("two").await, named("three").await];
    let members = |order: [usize; 3]| -> Vec<_> {
        order.iter().map(|n| frps(["e0", "e1", "e2"][*n], all[*n].address, "")).collect()
    };
    let pool = format!(", balance: random{}", cookie(""));
    let (_one, first) = start(&setup(1, &members([0, 1, 2]), "", &pool, "")).await;
    let (_two, second) = start(&setup(1, &members([2, 0, 1]), "", &pool, "")).await;
    all_stay(second, &fifty(first).await).await;
    all_stay(first, &fifty(second).await).await;
}

#[tokio::test]
async fn the_application_never_sees_the_cookie_and_its_own_pass_byte_for_byte() {
    let one = named("one").await;
    let text = setup(1, &[frps("e0", one.address, "")], "", &cookie(""), "");
    let (_gateway, address) = start(&text).await;
    let session = session_at(address, "one").await;
    let cookies = |request: &str| -> Vec<String> {
        let lines = request.lines().filter(|line| line.to_ascii_lowercase().starts_with("cookie:"));
        lines.map(str::to_owned).collect()
    };
    for (sent, want) in [
        (format!("Cookie: {session}\r\n"), vec![]),
        (
            format!("Cookie: a=1; {session}; b=\"x y\";c=; gwx=2\r\n"),
            vec!["Cookie: a=1; b=\"x y\";c=; gwx=2"],
        ),
        (format!("cookie: {session}; a=1\r\nCookie: b=2\r\n"), vec!["cookie: a=1", "Cookie: b=2"]),
        (format!("Cookie: a=1; gw=forged; b=2; {session}\r\n"), vec!["Cookie: a=1; b=2"]),
        ("Cookie: gw=forged\r\n".to_owned(), vec![]),
        ("Cookie: GW=other;  a  =  1 \r\n".to_owned(), vec!["Cookie: GW=other;  a  =  1"]),
    ] {
        ask_once(address, &get_with("/", &sent)).await;
        let seen = one.seen();
        assert_eq!(cookies(seen.last().expect("a request")), want, "of {sent:?}");
    }
    assert!(!one.seen().iter().any(|request| request.contains(&session[3..])), "the sealed value leaked");
}

#[tokio::test]
async fn the_applications_own_set_cookie_lines_pass_beside_ours() {
    let one = Endpoint::answering(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let (_gateway, address) = start(&setup(1, &[frps("e0", one.address, "")], "", &cookie(""), "")).await;
    let reply = ask_once(address, &get("/")).await;
    let lines = reply.set_cookies();
    assert_eq!((lines.len(), &lines[..2]), (3, &["a=1; Path=/", "b=2"][..]), "{}", reply.head);
}

#[tokio::test]
async fn the_cookie_is_secure_exactly_when_a_trusted_proxy_says_https() {
    let one = named("one").await;
    let trusted = ", trusted_proxies: [127.0.0.1]";
    let text = setup(1, &[frps("e0", one.address, "")], trusted, &cookie(", ttl: 1h"), "");
    let (_gateway, address) = start(&text).await;
    let attributes = |reply: &Reply| -> Vec<String> {
        let line = reply.set_cookies().into_iter().find(|line| line.starts_with("gw=")).expect("a cookie");
        line.split("; ").skip(1).map(str::to_owned).collect()
    };
    let https = "X-Forwarded-Proto: https\r\n";
    let plain = ["Path=/", "Max-Age=3600", "HttpOnly", "SameSite=Lax"];
    let secure = ["Path=/", "Max-Age=3600", "Secure", "HttpOnly", "SameSite=Lax"];
    assert_eq!(attributes(&ask_once(address, &get("/")).await), plain);
    assert_eq!(attributes(&ask_once(address, &get_with("/", https)).await), secure);
    let mut stranger = connect_from("127.0.0.9", address).await;
    assert_eq!(attributes(&ask(&mut stranger, &get_with("/", https)).await), plain, "anybody can say so");
}

#[tokio::test]
async fn an_upgrade_begins_and_keeps_a_session() {
    async fn chat(name: &'static str) -> Endpoint {
        Endpoint::scripted(move |mut wire, _, _| async move {
            wire.request().await;
            wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n")
                .await;
            wire.send(name).await;
            wire.all().await;
        })
        .await
    }
    let (one, two_) = (chat("one").await, chat("two").await);
    let (_gateway, address) = start(&setup(1, &two(one.address, two_.address), "", &cookie(""), "")).await;
    let upgrade = "Connection: upgrade\r\nUpgrade: chat\r\n";
    let mut visitor = Wire::connect(address).await;
    visitor.send(get_with("/", upgrade)).await;
    let first = reply(&mut visitor, true).await;
    let name = visitor.bytes(3).await;
    assert_eq!(first.status, 101, "{}", first.head);
    let session = first.session().expect("a cookie on the 101");
    for n in 0..6 {
        let mut visitor = Wire::connect(address).await;
        visitor.send(get_with("/", &format!("{upgrade}Cookie: {session}\r\n"))).await;
        let again = reply(&mut visitor, true).await;
        assert_eq!((again.status, again.session()), (101, None), "upgrade {n}");
        assert_eq!(visitor.bytes(3).await, name, "upgrade {n}");
    }
}

#[tokio::test]
async fn a_post_with_a_body_stays_with_its_session() {
    let (one, two_) = (named("one").await, named("two").await);
    let (_gateway, address) = start(&setup(1, &two(one.address, two_.address), "", &cookie(""), "")).await;
    let session = session_at(address, "two").await;
    let body = "x".repeat(100_000);
    for n in 0..10 {
        let post = format!(
            "POST / HTTP/1.1\r\nHost: app.test\r\nCookie: {session}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(ask_once(address, &post).await.body, "two", "POST {n}");
    }
    assert_eq!(two_.seen().iter().filter(|request| request.ends_with(&body)).count(), 10);
}

/// Four endpoints under `affinity`, and a gateway in front of them.
async fn hashed(
    affinity: &str,
    listener: &str,
) -> ([Endpoint; 4], frp_gateway_loadtest::lab::Gateway, SocketAddr) {
    let all = [named("one").await, named("two").await, named("three").await, named("four").await];
    let members: Vec<_> =
        all.iter().zip(["e0", "e1", "e2", "e3"]).map(|(e, name)| frps(name, e.address, "")).collect();
    let (gateway, address) =
        start(&setup(1, &members, listener, &format!(", affinity: {affinity}"), "")).await;
    (all, gateway, address)
}

/// Asks with each of 1,000 keys twice: the same member both times, and every member gets its share of the keys.
async fn keys_stay_and_spread(address: SocketAddr, request: impl Fn(usize) -> String) {
    let (mut one, mut other) = (Wire::connect(address).await, Wire::connect(address).await);
    let mut counts = BTreeMap::<String, usize>::new();
    for n in 0..1000 {
        let first = ask(&mut one, &request(n)).await;
        let again = ask(&mut other, &request(n)).await;
        assert_eq!((first.status, &first.body), (200, &again.body), "key {n}");
        *counts.entry(first.body).or_default() += 1;
    }
    assert_eq!(counts.len(), 4, "{counts:?}");
    assert!(counts.values().all(|count| (175..=325).contains(count)), "a fair share is 250: {counts:?}");
}

#[tokio::test]
async fn a_header_keeps_its_values_apart_and_each_in_its_place() {
    let (_all, _gateway, address) = hashed("{ header: X-User }", "").await;
    keys_stay_and_spread(address, |n| get_with("/", &format!("x-user: visitor-{n}\r\n"))).await;
}

#[tokio::test]
async fn a_query_parameter_keeps_its_values_apart_and_each_in_its_place() {
    let (_all, _gateway, address) = hashed("{ query: id }", "").await;
    keys_stay_and_spread(address, |n| get(&format!("/?a={}&id=v{n}", n % 7))).await;
}

#[tokio::test]
async fn who_sends_no_key_is_balanced() {
    let (_all, _gateway, address) = hashed("{ header: X-User }", "").await;
    assert_eq!(apps::shares(address, ["one", "two", "three", "four"], 40).await, [10; 4]);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_forwarded_address_counts() {
    let (_all, _gateway, address) = hashed("source_ip", ", trusted_proxies: [127.0.0.1]").await;
    keys_stay_and_spread(address, |n| {
        let ip = format!("203.0.{}.{}", n / 250, n % 250);
        // What stands before it was said by the visitor itself.
        get_with("/", &format!("X-Forwarded-For: 198.51.100.{}, {ip}\r\n", n % 9))
    })
    .await;
}

#[tokio::test]
async fn from_an_untrusted_peer_only_its_own_address_counts() {
    let (_all, _gateway, address) = hashed("source_ip", ", trusted_proxies: [127.0.0.1]").await;
    let mut places = BTreeMap::<String, usize>::new();
    for peer in 2..42 {
        let mut visitor = connect_from(&format!("127.0.0.{peer}"), address).await;
        let home = ask(&mut visitor, &get("/")).await.body;
        for n in 0..5 {
            let claim = get_with("/", &format!("X-Forwarded-For: 203.0.113.{n}\r\n"));
            assert_eq!(ask(&mut visitor, &claim).await.body, home, "peer {peer}, claim {n}");
        }
        *places.entry(home).or_default() += 1;
    }
    assert!(places.len() >= 3, "40 peers spread: {places:?}");
}

#[tokio::test]
async fn an_ipv6_site_counts_as_one_visitor() {
    let (_all, _gateway, address) = hashed("source_ip", ", trusted_proxies: [127.0.0.1]").await;
    let mut visitor = Wire::connect(address).await;
    let mut places = BTreeMap::<String, usize>::new();
    for site in 0..40 {
        let from = |host: u32| get_with("/", &format!("X-Forwarded-For: 2001:db8:0:{site:x}::{host:x}\r\n"));
        let home = ask(&mut visitor, &from(1)).await.body;
        for host in 2..6 {
            assert_eq!(ask(&mut visitor, &from(host * 7919)).await.body, home, "site {site}, host {host}");
        }
        *places.entry(home).or_default() += 1;
    }
    assert!(places.len() >= 3, "40 sites spread: {places:?}");
}
