//! Clients by their certificates: who is let in, what the application knows of them, and how a revocation acts on those who are
//! inside. Real frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/certified.rs"]
mod certified;
#[path = "common/raw.rs"]
mod raw;
#[path = "common/tls.rs"]
mod tls;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use certified::{Client, ClientAuthority};
use frp_gateway_loadtest::{
    demo::DemoApp,
    lab::{Gateway, Proxy, until},
};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use raw::{SOON, Site, gateway};
use tls::{Authority, dial};
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

/// An application behind an http tunnel for `app.test`, and a gateway before it whose https listener judges clients.
struct World {
    authority: Authority,
    gateway: Gateway,
    address: SocketAddr,
    logs: tempfile::TempDir,
    _site: Site,
    _app: DemoApp,
}

type Sender = http1::SendRequest<Full<Bytes>>;

impl World {
    /// `client_auth` of the listener, and the routes.
    async fn start(client_auth: &str, routes: &str) -> Self {
        let authority = Authority::new();
        let pair = authority.issue("app", &["app.test", "*.app.test"]);
        let app = DemoApp::start("one").expect("it starts");
        let site = Site::start("a", vec![Proxy::http("web", app.addr(), &["app.test", "*.app.test"])]).await;
        let logs = tempfile::tempdir().expect("a folder");
        let listener = format!(
            "{{ name: secure, bind: \"127.0.0.1:0\", protocol: https, \
             tls: {{ certificates: [{pair}], client_auth: {client_auth} }} }}"
        );
        let plain = "{ name: plain, bind: \"127.0.0.1:0\", protocol: http }";
        let log = |name: &str| logs.path().join(name).display().to_string();
        let rest = format!(
            "access_log: {{ output: \"{}\" }}\naudit: {{ output: \"{}\" }}\n\
             pools:\n  - {{ name: web, frps: [a] }}\nroutes:\n{routes}",
            log("access"),
            log("audit"),
        );
        let gateway = gateway(
            &[site.entry(false).replace(" }", &format!(", vhost_http_port: {} }}", site.frps.http().port()))],
            &[&listener, plain],
            &rest,
        )
        .await;
        let address = gateway.listener("secure").await.expect("it listens");
        Self { authority, gateway, address, logs, _site: site, _app: app }
    }

    fn shows(&self, client: &Client) -> Arc<ClientConfig> {
        client.visitor(&self.authority.path("ca.pem"))
    }

    fn nobody(&self) -> Arc<ClientConfig> {
        self.authority.visitor(&["http/1.1"])
    }

    async fn connect(&self, visitor: &Arc<ClientConfig>) -> Sender {
        let stream = dial(self.address, "app.test", visitor).await.expect("a handshake");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1");
        tokio::spawn(connection);
        sender
    }

    /// Whether a request on a new connection gets an answer. A refusal may come with the first bytes only (TLS 1.3).
    async fn is_let_in(&self, visitor: &Arc<ClientConfig>) -> bool {
        let Ok(stream) = dial(self.address, "app.test", visitor).await else { return false };
        let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else { return false };
        tokio::spawn(connection);
        timeout(SOON, sender.send_request(get("app.test", "/"))).await.expect("an end in time").is_ok()
    }

    async fn counted(&self, name: &str, reason: &str) -> f64 {
        let reason = format!("reason=\"{reason}\"");
        let count = self.gateway.metric(name, &["listener=\"secure\"", &reason]).await;
        count.expect("metrics").unwrap_or_default()
    }

    /// Waits for a line of a log that has all of these.
    async fn logged(&self, log: &str, parts: &[&str]) -> String {
        let path = self.logs.path().join(log);
        let what = format!("{parts:?} in the {log} log");
        let line = until(&what, SOON, async || {
            let text = std::fs::read_to_string(&path).ok()?;
            text.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(ToOwned::to_owned)
        });
        let text = || std::fs::read_to_string(&path).unwrap_or_default();
        line.await.unwrap_or_else(|error| panic!("{error}: {}\n{}", text(), self.gateway.log()))
    }
}

fn get(host: &str, path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", host).body(Full::default()).expect("a request")
}

/// Status, `x-frp-gateway`, and the body.
async fn ask(sender: &mut Sender, request: Request<Full<Bytes>>) -> (u16, String, String) {
    let answer = timeout(SOON, sender.send_request(request)).await.expect("in time").expect("an answer");
    let class = answer.headers().get("x-frp-gateway").and_then(|value| value.to_str().ok()).unwrap_or("");
    let (status, class) = (answer.status().as_u16(), class.to_owned());
    let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
    (status, class, String::from_utf8_lossy(&body).into_owned())
}

const EVERYTHING: &str = "  - { name: all, pools: [web] }\n";

#[tokio::test]
async fn clients_of_every_trusted_authority_are_let_in_and_the_application_knows_who_they_are() {
    let (one, two, other) =
        (ClientAuthority::new("one"), ClientAuthority::new("two"), ClientAuthority::new("other"));
    let trust = format!("{{ trust: [\"{}\", \"{}\"] }}", one.shown("ca.pem"), two.shown("ca.pem"));
    let world = World::start(&trust, EVERYTHING).await;
    for (authority, identity) in
        [(&one, "spiffe://fleet.test/robot/7"), (&two, "dns:robot.test"), (&one, "cn:robot 7")]
    {
        let client = authority.issue(identity, 7);
        let mut sender = world.connect(&world.shows(&client)).await;
        // What it says of itself counts for nothing, however it spells it.
        let mut request = get("app.test", "/echo");
        for name in ["client-cert", "client_cert", "x-forwarded-client-identity", "client-cert-chain"] {
            request.headers_mut().insert(name, "forged".parse().expect("a value"));
        }
        let (status, _, said) = ask(&mut sender, request).await;
        assert_eq!(status, 200, "{identity}: {said}");
        let lower = said.to_ascii_lowercase();
        let name = format!("[\"x-forwarded-client-identity\",\"{identity}\"]");
        assert!(lower.contains(&name.to_ascii_lowercase()), "{identity}: {said}");
        assert_eq!(lower.matches("client-cert").count(), 1, "{identity}: {said}");
        assert!(!said.contains("forged") && lower.contains("[\"client-cert\",\":mii"), "{identity}: {said}");
        world.logged("access", &["\"target\":\"/echo\"", &format!("\"client\":\"{identity}\"")]).await;
    }
    assert!(!world.is_let_in(&world.shows(&other.issue("spiffe://fleet.test/robot/7", 7))).await);
    assert!(!world.is_let_in(&world.nobody()).await, "a certificate is required");
    for reason in ["unknown_issuer", "no_certificate"] {
        assert!(world.counted("frp_gateway_clients_refused_total", reason).await >= 1.0, "{reason}");
    }
}

#[tokio::test]
async fn who_is_not_on_the_list_is_refused_and_named_in_the_audit_log() {
    let authority = ClientAuthority::new("one");
    let allow = "[\"spiffe://fleet.test/robot/*\", \"dns:*.robots.test\", \"cn:robot-*\"]";
    let settings = format!("{{ trust: \"{}\", allow: {allow} }}", authority.shown("ca.pem"));
    let world = World::start(&settings, EVERYTHING).await;
    for (serial, identity) in (1..).zip(["spiffe://fleet.test/robot/7", "dns:a.robots.test", "cn:robot-7"]) {
        assert!(world.is_let_in(&world.shows(&authority.issue(identity, serial))).await, "{identity}");
    }
    let others = ["spiffe://fleet.test/admin", "dns:robots.test", "cn:admin"];
    for (serial, identity) in (10..).zip(others) {
        assert!(!world.is_let_in(&world.shows(&authority.issue(identity, serial))).await, "{identity}");
        let client = format!("\"client\":\"{identity}\"");
        let line = world.logged("audit", &["client_refused", "not_allowed", &client]).await;
        assert!(line.contains("\"listener\":\"secure\"") && line.contains("127.0.0.1"), "{line}");
    }
    assert!(world.counted("frp_gateway_clients_refused_total", "not_allowed").await >= 3.0);
}

#[tokio::test]
async fn routes_ask_for_certificates_and_are_chosen_by_them_where_the_listener_takes_everybody() {
    let authority = ClientAuthority::new("one");
    let settings = format!("{{ mode: optional, trust: \"{}\" }}", authority.shown("ca.pem"));
    let routes = "  - { name: admin, match: { path: /admin }, client: { allow: \"cn:admin\" }, pools: [web] }\n\
                  \x20 - { name: inside, match: { path: /inside }, client: required, pools: [web] }\n\
                  \x20 - { name: robots, match: { client: \"cn:robot\" }, pools: [web] }\n\
                  \x20 - { name: rest, pools: [web] }\n";
    let world = World::start(&settings, routes).await;
    let (admin, robot) = (authority.issue("cn:admin", 1), authority.issue("cn:robot", 2));
    let mut nobody = world.connect(&world.nobody()).await;
    let mut admin = world.connect(&world.shows(&admin)).await;
    let mut robot = world.connect(&world.shows(&robot)).await;
    // On one connection, one after the other: a refusal is an answer like others.
    for round in 0..3 {
        for path in ["/admin", "/inside"] {
            let (status, class, _) = ask(&mut nobody, get("app.test", path)).await;
            assert_eq!((status, class.as_str()), (403, "client_refused"), "{round}: nobody at {path}");
        }
        let (status, class, _) = ask(&mut robot, get("app.test", "/admin")).await;
        assert_eq!((status, class.as_str()), (403, "client_refused"), "{round}: the robot at /admin");
        for (who, path) in [(0, "/x"), (1, "/admin"), (1, "/inside"), (2, "/inside")] {
            let sender = match who {
                0 => &mut nobody,
                1 => &mut admin,
                _ => &mut robot,
            };
            let (_, class, said) = ask(sender, get("app.test", path)).await;
            assert_eq!(class, "", "{round}: {path} is the application's: {said}");
        }
    }
    let (_, class, _) = ask(&mut robot, get("app.test", "/mine")).await;
    assert_eq!(class, "");
    world
        .logged("access", &["\"target\":\"/mine\"", "\"route\":\"robots\"", "\"client\":\"cn:robot\""])
        .await;
    let line = world.logged("access", &["\"target\":\"/x\"", "\"route\":\"rest\""]).await;
    assert!(!line.contains("\"client\""), "{line}");
    let line = world.logged("access", &["\"target\":\"/admin\"", "client_refused", "cn:robot"]).await;
    assert!(line.contains("\"route\":\"admin\"") && line.contains("\"status\":403"), "{line}");
}

/// A WebSocket that gives back what it gets.
struct Socket(tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>);

impl Socket {
    async fn open(world: &World, visitor: &Arc<ClientConfig>) -> Self {
        let stream = dial(world.address, "app.test", visitor).await.expect("a handshake");
        let (socket, _) =
            tokio_tungstenite::client_async("wss://app.test/ws", stream).await.expect("a WebSocket");
        let mut socket = Self(socket);
        socket.echoes("hello").await;
        socket
    }

    async fn echoes(&mut self, text: &str) {
        self.0.send(text.to_owned().into()).await.expect("sent");
        let heard = timeout(SOON, self.0.next()).await.expect("in time").expect("open").expect("a message");
        assert_eq!(heard.into_text().expect("text").as_str(), text);
    }

    /// Waits for its end.
    async fn ends(&mut self) {
        while let Some(Ok(_)) = timeout(SOON, self.0.next()).await.expect("it ends") {}
    }
}

type Streams = h2::client::SendRequest<Bytes>;

/// A connection that speaks HTTP/2.
async fn streams(world: &World, visitor: &Arc<ClientConfig>) -> Streams {
    let mut visitor = ClientConfig::clone(visitor);
    visitor.alpn_protocols = vec![b"h2".to_vec()];
    let stream = dial(world.address, "app.test", &Arc::new(visitor)).await.expect("a handshake");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// The status of one request.
fn stream(streams: &mut Streams, path: &str) -> impl Future<Output = Result<u16, h2::Error>> + use<> {
    let request = Request::get(format!("https://app.test{path}")).body(()).expect("a request");
    let sent = streams.send_request(request, true);
    async move { Ok(sent?.0.await?.status().as_u16()) }
}

#[tokio::test]
async fn a_revocation_cuts_what_the_client_has_open_and_nothing_of_others() {
    let authority = ClientAuthority::new("one");
    let settings =
        format!("{{ trust: \"{}\", crl: \"{}\" }}", authority.shown("ca.pem"), authority.shown("crl.pem"));
    let world = World::start(&settings, EVERYTHING).await;
    let (bad, good) = (authority.issue("cn:bad", 7), authority.issue("cn:good", 8));
    let (bad, good) = (world.shows(&bad), world.shows(&good));
    let (mut bad_socket, mut good_socket) =
        (Socket::open(&world, &bad).await, Socket::open(&world, &good).await);
    let (mut bad_kept, mut good_kept) = (world.connect(&bad).await, world.connect(&good).await);
    for kept in [&mut bad_kept, &mut good_kept] {
        assert_eq!(ask(kept, get("app.test", "/")).await.0, 200);
    }
    let (mut bad_busy, mut good_busy) = (world.connect(&bad).await, world.connect(&good).await);
    let bad_under_way =
        tokio::spawn(async move { bad_busy.send_request(get("app.test", "/slow?ms=15000")).await.is_ok() });
    let good_under_way =
        tokio::spawn(async move { good_busy.send_request(get("app.test", "/slow?ms=4000")).await.is_ok() });
    tokio::time::sleep(Duration::from_millis(300)).await; // both are on their way

    let (mut bad_streams, mut good_streams) = (streams(&world, &bad).await, streams(&world, &good).await);
    let bad_stream = tokio::spawn(stream(&mut bad_streams, "/slow?ms=15000"));
    assert_eq!(stream(&mut good_streams, "/").await.ok(), Some(200));

    let begun = Instant::now();
    authority.revoke(&[7]);
    bad_socket.ends().await;
    let cut = begun.elapsed();
    until("the kept connection to end", SOON, async || bad_kept.is_closed().then_some(()))
        .await
        .expect("it ends");
    assert!(!bad_under_way.await.expect("it ends"), "a request under way is cut");
    // Less than a second where nothing else runs; a loaded machine may take longer, but not as long as its next look.
    assert!(cut < Duration::from_secs(4), "it took {cut:?}");
    bad_stream.await.expect("it ends").expect_err("an HTTP/2 stream is cut with its connection");
    assert!(!world.is_let_in(&bad).await, "and it doesn't come back");
    assert_eq!(stream(&mut good_streams, "/").await.ok(), Some(200), "others' streams go on");

    good_socket.echoes("still here").await;
    assert_eq!(ask(&mut good_kept, get("app.test", "/")).await.0, 200, "others are unharmed");
    assert!(good_under_way.await.expect("it ends"), "what others have under way is answered");
    assert!(world.is_let_in(&good).await);
    world.logged("audit", &["client_cut", "revoked", "\"client\":\"cn:bad\"", "\"serial\":\"07\""]).await;
    world.logged("audit", &["client_refused", "revoked", "\"client\":\"cn:bad\""]).await;
    assert!((world.counted("frp_gateway_clients_cut_total", "revoked").await - 4.0).abs() < 0.5);
    let audit = std::fs::read_to_string(world.logs.path().join("audit")).expect("a log");
    assert!(!audit.contains("cn:good"), "{audit}");
    println!("cut after {cut:?}");
}

#[tokio::test]
async fn a_list_that_was_cut_short_is_not_taken_and_an_authority_that_is_gone_is() {
    let (one, two) = (ClientAuthority::new("one"), ClientAuthority::new("two"));
    let folder = tempfile::tempdir().expect("a folder");
    let trust = folder.path().join("trust.pem");
    let pem = |authority: &ClientAuthority| std::fs::read_to_string(authority.path("ca.pem")).expect("PEM");
    std::fs::write(&trust, pem(&one) + &pem(&two)).expect("written");
    one.revoke(&[7]);
    let settings = format!("{{ trust: \"{}\", crl: \"{}\" }}", trust.display(), one.shown("crl.pem"));
    let world = World::start(&settings, EVERYTHING).await;
    let bad = world.shows(&one.issue("cn:bad", 7));
    let (first, second) = (world.shows(&one.issue("cn:first", 1)), world.shows(&two.issue("cn:second", 1)));
    assert!(!world.is_let_in(&bad).await);

    let list = one.list(&[7]);
    for wrong in [&list[..list.len() / 2], ""] {
        std::fs::write(one.path("crl.pem"), wrong).expect("written");
        until("the log to tell", SOON, async || {
            world.gateway.log().contains("a file is refused").then_some(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", world.gateway.log()));
        assert!(!world.is_let_in(&bad).await, "what was revoked stays revoked");
        assert!(world.is_let_in(&first).await, "and others aren't kept out");
    }
    one.revoke(&[7]);

    // Trust that ends acts on those who are inside, too.
    let (mut first_socket, mut second_socket) =
        (Socket::open(&world, &first).await, Socket::open(&world, &second).await);
    std::fs::write(folder.path().join("new.pem"), pem(&one)).expect("written");
    std::fs::rename(folder.path().join("new.pem"), &trust).expect("renamed");
    second_socket.ends().await;
    assert!(!world.is_let_in(&second).await);
    first_socket.echoes("still here").await;
    assert!(world.is_let_in(&first).await);
}

#[tokio::test]
async fn visitors_without_tls_are_sent_to_https_and_those_with_it_told_to_stay() {
    let authority = ClientAuthority::new("one");
    let settings = format!("{{ mode: optional, trust: \"{}\" }}", authority.shown("ca.pem"));
    let routes = "  - { name: away, listeners: plain, redirect: { to: https, port: 8443, status: 307 } }\n\
                  \x20 - { name: here, listeners: secure, hsts: { max_age: 600s, include_subdomains: true }, pools: [web] }\n";
    let world = World::start(&settings, routes).await;
    let plain = world.gateway.listener("plain").await.expect("it listens");
    let socket = tokio::net::TcpStream::connect(plain).await.expect("in");
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("HTTP/1");
    tokio::spawn(connection);
    for round in 0..3 {
        let mut request = get("app.test:8080", "/a%20b?c=d");
        *request.method_mut() = hyper::Method::POST;
        *request.body_mut() = Full::from("a body that nobody reads");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), 307, "round {round}");
        assert_eq!(answer.headers()["location"], "https://app.test:8443/a%20b?c=d");
        assert_eq!(answer.headers()["x-frp-gateway"], "redirect");
        assert!(!answer.headers().contains_key("strict-transport-security"));
        drop(answer.into_body().collect().await.expect("a whole body"));
    }
    world.logged("access", &["\"status\":307", "\"route\":\"away\"", "\"listener\":\"plain\""]).await;
    let mut sender = world.connect(&world.nobody()).await;
    let answer = sender.send_request(get("app.test", "/")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=600; includeSubDomains");
}
