//! Which application answers which host, path and user: for every combination of a set, the one that frps's own vhost would have chosen.
//! Real frps and frpc of both versions; needs `frp-lab/build`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

#[path = "common/takeover.rs"]
mod takeover;

use std::net::SocketAddr;

use frp_gateway_loadtest::{
    demo::DemoApp,
    http::{self, Connection},
    lab::{Frpc, FrpcOptions, Frps, FrpsOptions, Proxy, Version},
};
use takeover::{SOON, World, app};

/// Hosts as visitors write them: exact, wildcards of several depths, subdomains, and near misses of each.
const HOSTS: [&str; 20] = [
    "app.test",
    "APP.test",
    "app.test:8080",
    "app.test.",
    "xapp.test",
    "sub.app.test",
    "one.wild.test",
    "a.b.wild.test",
    "wild.test",
    "x.deep.wild.test",
    "y.x.deep.wild.test",
    "deep.wild.test",
    "named.wild.test",
    "user.test",
    "mixed.test",
    "shop.lab.test",
    "lab.test",
    "other.lab.test",
    "nobody.test",
    "localhost",
];

/// Paths around the locations: exact, as a prefix without a boundary, deeper, and none of them.
const PATHS: [&str; 11] = [
    "/",
    "/api",
    "/api/",
    "/apix",
    "/api/v1/x",
    "/api/v2",
    "/API",
    "/ap",
    "/img?a=/api",
    "/other//api",
    "/new",
];

/// The same paths as some client may write them: frps compares what they mean.
const ENCODED: [&str; 8] = [
    "/%61pi",
    "/%61%70%69/",
    "/api%2Fv1%2Fx",
    "/api/%76%31",
    "/%2561pi",
    "/api/%2e%2e/other",
    "/img%3Fa",
    "/ap%69%00",
];

/// No user, one of each route, and one that no route knows (`user:x` in base64).
const USERS: [Option<&str>; 4] =
    [None, Some("Basic YWxpY2U6eA=="), Some("Basic Ym9iOng="), Some("Basic ZXZlOng=")];

fn proxies(apps: &[DemoApp]) -> Vec<Proxy> {
    let at = |n: usize| apps[n].addr();
    let http = |n: usize, name: &str, domain: &str| Proxy::http(name, at(n), &[domain]);
    vec![
        http(0, "exact", "app.test"),
        http(1, "exact-api", "app.test").locations(&["/api"]),
        http(2, "exact-v1", "app.test").locations(&["/api/v1", "/img"]),
        http(3, "wild", "*.wild.test"),
        http(4, "deep", "*.deep.wild.test"),
        // One location alone: what doesn't fit falls through to the wildcard.
        http(5, "named", "named.wild.test").locations(&["/api"]),
        http(6, "alice", "user.test").line("routeByHTTPUser = \"alice\""),
        http(7, "bob", "user.test").line("routeByHTTPUser = \"bob\"").locations(&["/api"]),
        http(8, "mixed", "mixed.test"),
        http(9, "mixed-alice", "mixed.test").line("routeByHTTPUser = \"alice\"").locations(&["/api"]),
        Proxy::new("shop", "http", at(10)).line("subdomain = \"shop\""),
        // A user's own route at a wildcard, below everybody's at the exact name.
        http(11, "wild-alice", "*.wild.test").line("routeByHTTPUser = \"alice\"").locations(&["/new"]),
    ]
}

/// Who answers: an application, or the status of somebody who is none.
async fn who(connection: &mut Connection, host: &str, path: &str, user: Option<&str>) -> String {
    let mut request = http::request("GET", host, path);
    if let Some(user) = user {
        request = request.header("authorization", user);
    }
    let reply = connection.send(request.body(http::empty())).await.expect("an answer");
    reply.app().map_or_else(|| reply.status.to_string(), ToOwned::to_owned)
}

/// Every difference between two ways over all hosts, paths and users, and how many answers came from applications.
async fn compare(plain: SocketAddr, ours: SocketAddr, paths: &[&str]) -> (Vec<String>, usize) {
    let mut theirs = Connection::open(plain).await.expect("frps listens");
    let mut gateway = Connection::open(ours).await.expect("the gateway listens");
    let (mut different, mut served) = (Vec::new(), 0);
    for host in HOSTS {
        for path in paths {
            for user in USERS {
                let expected = who(&mut theirs, host, path, user).await;
                let got = who(&mut gateway, host, path, user).await;
                served += usize::from(expected.starts_with("app"));
                if got != expected {
                    different.push(format!("{host}{path} as {user:?}: frps {expected}, gateway {got}"));
                }
            }
        }
    }
    (different, served)
}

async fn alike(version: Version, with_star: bool, paths: &[&str]) {
    let apps: Vec<_> = (0..13).map(|n| app(&format!("app{n}"))).collect();
    let mut all = proxies(&apps);
    if with_star {
        all.push(Proxy::http("star", apps[12].addr(), &["*"]).locations(&["/api"]));
    }
    let options = FrpsOptions::new("plain").version(version).line("subDomainHost = \"lab.test\"");
    let mut plain = Frps::start(options).await.expect("frps starts");
    let world = World::with(&["a"], "", |options| options.version(version)).await;
    let client = |frps: &Frps| all.iter().cloned().fold(FrpcOptions::new(frps).user("u"), FrpcOptions::proxy);
    let one = Frpc::start(client(&plain)).await.expect("frpc starts");
    let two = Frpc::start(client(&world.frps[0])).await.expect("frpc starts");
    let names = one.proxy_names();
    plain.wait_online(&names.iter().map(String::as_str).collect::<Vec<_>>(), SOON).await.expect("live");
    world.until_known(0, &two.proxy_names()).await;
    let (different, served) = compare(plain.http(), world.web, paths).await;
    let asked = HOSTS.len() * paths.len() * USERS.len();
    println!("{version:?}, star {with_star}: {served} of {asked} answers came from applications");
    assert!(served > asked / 4, "{served} of {asked}");
    assert_eq!(different, Vec::<String>::new(), "{} of {asked} differ", different.len());
}

#[tokio::test]
async fn the_same_application_answers_every_host_path_and_user_with_frp_0_71() {
    alike(Version::V071, false, &PATHS).await;
}

#[tokio::test]
async fn the_same_application_answers_every_host_path_and_user_with_frp_0_61() {
    alike(Version::V061, false, &PATHS).await;
}

#[tokio::test]
async fn the_same_holds_with_a_route_for_every_host() {
    alike(Version::V071, true, &PATHS).await;
}

#[tokio::test]
async fn an_encoded_path_finds_the_location_that_it_means() {
    alike(Version::V071, false, &ENCODED).await;
}
