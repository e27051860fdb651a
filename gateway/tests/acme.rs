//! Certificates that renew themselves, against a real authority (pebble). Real frps and frpc; needs `frp-lab/build`.

#![expect(clippy::panic, reason = "a failed wait shows the log of the gateway")]

#[path = "common/raw.rs"]
mod raw;
#[path = "common/tls.rs"]
mod tls;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use frp_gateway_loadtest::{
    demo::DemoApp,
    http,
    lab::{
        FreePorts, Frpc, FrpcOptions, Frps, FrpsOptions, Gateway, GatewayOptions, Pebble, PebbleOptions,
        Proxy, until,
    },
};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tls::{Authority, dial};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        client::Resumption,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Longest wait for anything; only a failing test waits so long.
const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(90 * 24 * 3600);
/// Life of certificates that are renewed while a test looks on.
const SHORT: Duration = Duration::from_secs(20);

/// An authority, a folder, and the ports of a gateway to come.
struct World {
    own: Authority,
    pebble: Pebble,
    storage: tempfile::TempDir,
    http: u16,
    tls: u16,
    _held: FreePorts,
}

impl World {
    async fn start(life: Duration) -> Self {
        Self::with(life, &[], &[]).await
    }

    /// With profiles beside the default one, and for accounts of these alone.
    async fn with(life: Duration, profiles: &[(&str, Duration)], external: &[(&str, &str)]) -> Self {
        let own = Authority::new();
        own.issue("pebble", &["127.0.0.1"]);
        own.issue("default", &["default.test"]);
        let mut held = FreePorts::new();
        let (http, tls) = (held.take().expect("a port"), held.take().expect("a port"));
        let (certificate, key) = (own.path("pebble.pem"), own.path("pebble.key"));
        let profiles = profiles.iter().map(|(name, life)| ((*name).to_owned(), *life)).collect();
        let external = external.iter().map(|(id, key)| ((*id).to_owned(), (*key).to_owned())).collect();
        let options = PebbleOptions { certificate, key, http, tls, life, profiles, external };
        let pebble = Pebble::start(&options).await.expect("pebble starts");
        Self { own, pebble, storage: tempfile::tempdir().expect("a folder"), http, tls, _held: held }
    }

    /// A configuration with `acme`, listeners at this address, and one frps.
    fn yaml(&self, at: &str, acme: &str, frps: &str, rest: &str) -> String {
        let (own, show) = (&self.own, |path: PathBuf| path.display().to_string());
        let files =
            format!("{{ cert: {}, key: {} }}", show(own.path("default.pem")), show(own.path("default.key")));
        format!(
            "runtime: {{ workers: 2, drain_timeout: 1s }}\n\
             acme: {{ accept_terms: true, directory: \"{}\", trust: {}, storage: {}, {acme} }}\n\
             listeners:\n  - {{ name: web, bind: \"{at}:{}\" }}\n  \
             - {{ name: secure, bind: \"{at}:{}\", protocol: https, tls: {{ acme: true, certificates: [{files}] }} }}\n\
             frps: [ {frps} ]\n{rest}\n",
            self.pebble.directory(),
            show(own.path("ca.pem")),
            self.storage.path().display(),
            self.http,
            self.tls,
        )
    }

    async fn gateway(&self, yaml: &str) -> Gateway {
        self.gateway_with(yaml, "").await
    }

    /// With this in the environment.
    async fn gateway_with(&self, yaml: &str, key: &str) -> Gateway {
        let options = GatewayOptions::new(env!("CARGO_BIN_EXE_frp-gateway"), yaml).env("ACME_KEY", key);
        Gateway::start_with(options).await.unwrap_or_else(|error| panic!("{error}\n{yaml}"))
    }

    fn secure(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.tls))
    }

    fn web(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.http))
    }

    /// A visitor that trusts the authority's root alone, and resumes nothing.
    async fn visitor(&self) -> Arc<ClientConfig> {
        let asked = until("the root of the authority", SOON, async || self.root().await.ok()).await;
        let mut roots = RootCertStore::empty();
        roots.add(asked.expect("a root")).expect("a root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    async fn root(&self) -> io::Result<CertificateDer<'static>> {
        let stream = dial(self.pebble.management(), "127.0.0.1", &self.own.visitor(&[])).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let request = Request::get("/roots/0").header("host", "pebble").body(Empty::<Bytes>::new());
        let reply = sender.send_request(request.expect("a request")).await.map_err(io::Error::other)?;
        let body = reply.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        CertificateDer::from_pem_slice(&body).map_err(io::Error::other)
    }

    /// Waits until a visitor of this name is shown a certificate that it trusts; its serial number.
    async fn until_trusted(&self, name: &str, gateway: &Gateway) -> String {
        let visitor = self.visitor().await;
        until(&format!("a certificate for {name}"), SOON, async || {
            serial(self.secure(), name, &visitor).await.ok()
        })
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()))
    }
}

/// Shakes hands; the serial number that was shown.
async fn serial(at: SocketAddr, name: &str, visitor: &Arc<ClientConfig>) -> io::Result<String> {
    let stream = dial(at, name, visitor).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let shown = shown.ok_or_else(|| io::Error::other("no certificate"))?;
    let (_, leaf) = X509Certificate::from_der(shown).map_err(io::Error::other)?;
    Ok(leaf.raw_serial_as_string())
}

async fn orders(gateway: &Gateway, result: &str) -> usize {
    let labels = [format!("result=\"{result}\"")];
    let labels: Vec<_> = labels.iter().map(String::as_str).collect();
    let count = gateway.metric("frp_gateway_acme_orders_total", &labels).await.expect("metrics");
    format!("{}", count.unwrap_or_default()).parse().expect("a whole number")
}

async fn until_orders(gateway: &Gateway, result: &str, least: usize) {
    until(&format!("{least} orders {result}"), SOON, async || {
        (orders(gateway, result).await >= least).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
}

async fn until_logged(gateway: &Gateway, text: &str) {
    until(&format!("the log line {text:?}"), SOON, async || gateway.log().contains(text).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
}

/// An frps, and how the file names it.
async fn frps() -> (Frps, String) {
    let frps = Frps::start(FrpsOptions::new("a")).await.expect("frps starts");
    let entry = frps.yaml().replace("password: lab }", "password: lab, interval: 200ms }");
    (frps, entry)
}

async fn tunnels(frps: &Frps, user: &str, app: SocketAddr, hosts: &[&str]) -> Frpc {
    let mut options = FrpcOptions::new(frps).user(user);
    for host in hosts {
        options = options.proxy(Proxy::http(host, app, &[host]));
    }
    Frpc::start(options).await.expect("frpc starts")
}

const SERVE: &str = "tunnels: { serve: true }";
const NOWHERE: &str = "{ name: none, host: 127.0.0.1, vhost_http_port: 9 }";

#[tokio::test]
async fn names_of_the_file_and_hosts_of_tunnels_get_certificates_by_http_01_once() {
    let world = World::start(LONG).await;
    let app = DemoApp::start("one").expect("it starts");
    let (frps, entry) = frps().await;
    let acme = "challenges: http-01, names: [named.lab.test]";
    // Everybody is sent to https, but for the authority.
    let rest = format!(
        "{SERVE}\nroutes: [ {{ match: {{ host: named.lab.test }}, redirect: https, listeners: [web] }} ]"
    );
    let yaml = world.yaml("127.0.0.1", acme, &entry, &rest);
    let mut gateway = world.gateway(&yaml).await;
    let named = world.until_trusted("named.lab.test", &gateway).await;

    let _frpc = tunnels(&frps, "alice", app.addr(), &["app.lab.test"]).await;
    let tunnel = world.until_trusted("app.lab.test", &gateway).await;
    assert_eq!(orders(&gateway, "issued").await, 2, "{}", gateway.log());

    // A token that isn't ours is the application's affair.
    let path = "/.well-known/acme-challenge/somebody-elses-token";
    let reply = http::get(world.web(), "app.lab.test", path).await.expect("an answer");
    assert_eq!(reply.app(), Some("one"), "{} {}", reply.status, reply.text());

    // Nobody claims this one.
    let visitor = world.visitor().await;
    let refused = serial(world.secure(), "stranger.lab.test", &visitor).await;
    assert!(refused.is_err(), "{refused:?}");
    until_orders(&gateway, "refused", 1).await;
    until_logged(&gateway, "stranger.lab.test").await;
    assert_eq!(orders(&gateway, "issued").await, 2, "{}", gateway.log());

    let shown = gateway.api("/api/v1/certificates").await.expect("the API answers");
    let ours: Vec<_> = shown.as_array().into_iter().flatten().filter(|one| one["source"] == "acme").collect();
    let names: Vec<_> = ours.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["app.lab.test", "named.lab.test"], "{shown}");
    assert_eq!(ours[0]["listeners"][0], "secure", "{shown}");

    // What there is needs no new order after a restart.
    gateway.sigterm();
    gateway.wait_exit(SOON).await.expect("it ends");
    let gateway = world.gateway(&yaml).await;
    let again = (
        world.until_trusted("named.lab.test", &gateway).await,
        world.until_trusted("app.lab.test", &gateway).await,
    );
    assert_eq!(again, (named, tunnel), "{}", gateway.log());
    assert_eq!(orders(&gateway, "issued").await, 0, "{}", gateway.log());
}

#[tokio::test]
async fn a_host_of_a_route_gets_a_certificate_by_tls_alpn_01_when_somebody_asks_for_it() {
    let world = World::start(LONG).await;
    let rest = "routes: [ { match: { host: [shop.lab.test, other.lab.test] }, pool: default } ]";
    let gateway = world.gateway(&world.yaml("127.0.0.1", "challenges: tls-alpn-01", NOWHERE, rest)).await;
    // The first visitor gets the certificate of the file.
    let own = world.own.visitor(&[]);
    serial(world.secure(), "default.test", &own).await.expect("a handshake");
    assert_eq!(orders(&gateway, "issued").await, 0);
    world.until_trusted("shop.lab.test", &gateway).await;
    assert_eq!(orders(&gateway, "issued").await, 1, "nobody asked for the other one: {}", gateway.log());
}

#[tokio::test]
async fn the_tunnels_of_a_user_get_no_more_certificates_than_per_user() {
    let world = World::start(LONG).await;
    let app = DemoApp::start("one").expect("it starts");
    let (frps, entry) = frps().await;
    let gateway = world.gateway(&world.yaml("127.0.0.1", "per_user: 2", &entry, SERVE)).await;
    let hosts = ["a1.lab.test", "a2.lab.test", "a3.lab.test", "a4.lab.test"];
    let _alice = tunnels(&frps, "alice", app.addr(), &hosts).await;
    until_orders(&gateway, "issued", 2).await;
    until_orders(&gateway, "refused", 2).await;
    let _bob = tunnels(&frps, "bob", app.addr(), &["b1.lab.test"]).await;
    world.until_trusted("b1.lab.test", &gateway).await;
    assert_eq!(orders(&gateway, "issued").await, 3, "{}", gateway.log());
    assert!(gateway.log().contains("acme.per_user"), "{}", gateway.log());
}

#[tokio::test]
async fn certificates_that_live_for_seconds_are_renewed_while_every_handshake_succeeds() {
    let world = World::start(SHORT).await;
    let acme = "names: [n1.lab.test, n2.lab.test]";
    let gateway = world.gateway(&world.yaml("127.0.0.1", acme, NOWHERE, "")).await;
    world.until_trusted("n1.lab.test", &gateway).await;
    world.until_trusted("n2.lab.test", &gateway).await;
    let visitor = world.visitor().await;
    let (ended, serials) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<String>>>::default());
    let (shaken, failed) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
    let mut visitors = Vec::new();
    for at in 0..4 {
        let (ended, serials, shaken) = (Arc::clone(&ended), Arc::clone(&serials), Arc::clone(&shaken));
        let (failed, visitor, to) = (Arc::clone(&failed), Arc::clone(&visitor), world.secure());
        visitors.push(tokio::spawn(async move {
            let name = if at % 2 == 0 { "n1.lab.test" } else { "n2.lab.test" };
            while !ended.load(SeqCst) {
                match serial(to, name, &visitor).await {
                    Ok(serial) => {
                        shaken.fetch_add(1, SeqCst);
                        let mut serials = serials.lock().expect("not poisoned");
                        if !serials.contains(&serial) {
                            serials.push(serial);
                        }
                    }
                    Err(error) => failed.lock().expect("not poisoned").push(format!("{name}: {error}")),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }));
    }
    until_orders(&gateway, "renewed", 4).await;
    ended.store(true, SeqCst);
    for visitor in visitors {
        visitor.await.expect("a visitor doesn't panic");
    }
    let (failed, serials) = (failed.lock().expect("not poisoned"), serials.lock().expect("not poisoned"));
    assert!(failed.is_empty(), "{failed:?}\n{}", gateway.log());
    assert!(serials.len() >= 4, "{serials:?}");
    assert!(shaken.load(SeqCst) > 50, "{}", shaken.load(SeqCst));
}

#[tokio::test]
async fn an_authority_that_is_down_harms_nobody_and_is_asked_again_when_it_is_back() {
    let mut world = World::start(SHORT).await;
    let gateway = world.gateway(&world.yaml("127.0.0.1", "names: n.lab.test", NOWHERE, "")).await;
    let first = world.until_trusted("n.lab.test", &gateway).await;
    let visitor = world.visitor().await;
    world.pebble.kill9();
    until_orders(&gateway, "unreachable", 1).await;
    until_logged(&gateway, "the old one stays in force").await;
    // Others are served, and whoever asks for this name gets an answer.
    serial(world.secure(), "default.test", &world.own.visitor(&[])).await.expect("a handshake");
    if let Ok(shown) = serial(world.secure(), "n.lab.test", &visitor).await {
        assert_eq!(shown, first, "still the old one");
    }
    world.pebble.restart().await.expect("it starts again");
    let second = world.until_trusted("n.lab.test", &gateway).await;
    assert_ne!(first, second);
    assert!(gateway.log().contains("another one is made"), "the account was forgotten: {}", gateway.log());
}

#[tokio::test]
async fn two_gateways_with_one_folder_make_one_order_and_show_each_others_proofs() {
    let world = World::start(LONG).await;
    let acme = "challenges: http-01, names: [both.lab.test]";
    let there = Ipv4Addr::new(127, 0, 0, 2);
    let (one, two) = (world.yaml("127.0.0.1", acme, NOWHERE, ""), world.yaml("127.0.0.2", acme, NOWHERE, ""));
    let (one, two) = tokio::join!(world.gateway(&one), world.gateway(&two));
    let visitor = world.visitor().await;
    let first = world.until_trusted("both.lab.test", &one).await;
    let second = SocketAddr::new(IpAddr::V4(there), world.tls);
    let second = until("the certificate at the other gateway", SOON, async || {
        serial(second, "both.lab.test", &visitor).await.ok()
    });
    assert_eq!(first, second.await.unwrap_or_else(|error| panic!("{error}\n{}", two.log())));
    let issued = orders(&one, "issued").await + orders(&two, "issued").await;
    assert_eq!(issued, 1, "{}\n{}", one.log(), two.log());

    // These names lead to the second gateway, and the first one orders.
    for (challenge, name, count) in
        [("http-01", "theirs.lab.test", 2), ("tls-alpn-01", "theirs-too.lab.test", 3)]
    {
        world.pebble.point(name, there).await.expect("the DNS server answers");
        let acme = format!("challenges: {challenge}, names: [both.lab.test, {name}]");
        one.edit(&world.yaml("127.0.0.1", &acme, NOWHERE, "")).expect("written");
        world.until_trusted(name, &one).await;
        let issued = orders(&one, "issued").await;
        assert_eq!(issued + orders(&two, "issued").await, count, "{}\n{}", one.log(), two.log());
        assert!(issued >= count - 1, "the first one orders");
    }
}

/// An authority that wants no orders for an hour, and how often it was asked for an account.
async fn tired_authority(own: &Authority) -> (SocketAddr, Arc<AtomicUsize>) {
    let chain = vec![CertificateDer::from_pem_file(own.path("pebble.pem")).expect("PEM")];
    let key = PrivateKeyDer::from_pem_file(own.path("pebble.key")).expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, asked) = (listener.local_addr().expect("bound"), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                let mut wire = vec![0; 16 * 1024];
                let mut filled = 0;
                while let Ok(n @ 1..) = stream.read(&mut wire[filled..]).await {
                    filled += n;
                    let text = String::from_utf8_lossy(&wire[..filled]).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.to_ascii_lowercase();
                    let length = length
                        .split("content-length: ")
                        .nth(1)
                        .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
                    if body.len() < length.unwrap_or(0) {
                        continue;
                    }
                    filled = 0;
                    let at = |path: &str| format!("\"https://{address}/{path}\"");
                    let (status, extra, body) = if head.starts_with("GET /dir ") {
                        let urls = [("newNonce", "nonce"), ("newAccount", "account"), ("newOrder", "order")];
                        let urls = urls.map(|(key, path)| format!("\"{key}\": {}", at(path)));
                        ("200 OK", "", format!("{{ {} }}", urls.join(", ")))
                    } else if head.starts_with("POST /account ") {
                        counted.fetch_add(1, SeqCst);
                        let problem = "{ \"type\": \"urn:ietf:params:acme:error:rateLimited\", \
                                       \"detail\": \"come back in an hour\", \"status\": 429 }";
                        ("429 Too Many Requests", "Retry-After: 3600\r\n", problem.to_owned())
                    } else {
                        ("200 OK", "", String::new())
                    };
                    let reply = format!(
                        "HTTP/1.1 {status}\r\nReplay-Nonce: bm9uY2U\r\n{extra}Content-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if stream.write_all(reply.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn an_authority_that_says_it_is_too_much_is_left_alone_for_as_long_as_it_says() {
    let world = World::start(LONG).await;
    let (tired, asked) = tired_authority(&world.own).await;
    let yaml = world.yaml("127.0.0.1", "names: [n1.lab.test, n2.lab.test, n3.lab.test]", NOWHERE, "");
    let yaml = yaml.replace(&world.pebble.directory(), &format!("https://{tired}/dir"));
    let gateway = world.gateway(&yaml).await;
    until_orders(&gateway, "limited", 1).await;
    until_logged(&gateway, "come back in an hour").await;
    // Those that were under way together; none after that.
    until_orders(&gateway, "limited", 3).await;
    let before = asked.load(SeqCst);
    let log = gateway.log();
    let waits: Vec<u64> = log
        .split("again=")
        .skip(1)
        .filter_map(|rest| rest.trim_start_matches('"').split('s').next()?.parse().ok())
        .collect();
    assert!(!waits.is_empty() && waits.iter().all(|wait| (3500..=3600).contains(wait)), "{waits:?}\n{log}");
    // Handshakes that ask for the names change nothing.
    let visitor = world.visitor().await;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert!(serial(world.secure(), "n1.lab.test", &visitor).await.is_err(), "there is none");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(asked.load(SeqCst), before, "{}", gateway.log());
    assert!(before <= 3, "{before}");
}

#[tokio::test]
async fn an_account_is_bound_to_an_external_one_and_orders_go_by_the_profile() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    const OTHER: &str = "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH";
    let day = Duration::from_secs(24 * 3600);
    let world = World::with(LONG, &[("daily", day)], &[("kid-1", KEY)]).await;
    let external = "external_account: { key_id: kid-1, hmac_key: \"${ACME_KEY}\" }";
    let acme = format!("challenges: http-01, names: [named.lab.test], profile: daily, {external}");
    let yaml = world.yaml("127.0.0.1", &acme, NOWHERE, "");
    let mut gateway = world.gateway_with(&yaml, OTHER).await;
    until_orders(&gateway, "failed", 1).await;
    until_logged(&gateway, "no certificate").await;
    assert!(!gateway.log().contains(OTHER), "the key is told: {}", gateway.log());
    gateway.sigterm();
    gateway.wait_exit(SOON).await.expect("it ends");
    let gateway = world.gateway_with(&yaml, KEY).await;
    world.until_trusted("named.lab.test", &gateway).await;
    let shown = gateway.api("/api/v1/certificates").await.expect("the API answers");
    let left = shown.as_array().into_iter().flatten().find(|one| one["source"] == "acme");
    let left = left.and_then(|one| one["seconds_left"].as_u64()).unwrap_or_default();
    assert!((day.as_secs() - 3600..=day.as_secs()).contains(&left), "not by the profile: {shown}");
    // It is renewed after two thirds of its life, and the metric tells when.
    let next = until("the metric", SOON, async || {
        gateway.metric("frp_gateway_acme_next_renewal_seconds", &[]).await.ok()?
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
    assert!((0.5..0.7).contains(&(next / day.as_secs_f64())), "{next} s");
}
