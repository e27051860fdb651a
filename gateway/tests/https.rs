//! `protocol: https`: TLS ends here, requests go to tunnels; what is passed through on the same address stays unopened.
//! Real frps and frpc; needs `frp-lab/build`.

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
use frp_gateway_loadtest::{
    demo::DemoApp,
    lab::{Gateway, Proxy, until},
};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use raw::{App, SOON, Site, gateway};
use tls::{Authority, dial};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ClientConfig, ServerConfig, crypto::aws_lc_rs::default_provider},
};

/// One frps with an application behind http tunnels for `app.test`, and a gateway before it.
struct World {
    authority: Authority,
    gateway: Gateway,
    address: SocketAddr,
    _site: Site,
    _app: DemoApp,
}

impl World {
    async fn start(listener: &str) -> Self {
        let authority = Authority::new();
        let pair = authority.issue("app", &["app.test", "*.app.test"]);
        let app = DemoApp::start("one").expect("it starts");
        let site = Site::start("a", vec![Proxy::http("web", app.addr(), &["app.test"])]).await;
        let listener = format!(
            "{{ name: secure, bind: \"127.0.0.1:0\", protocol: https, tls: {{ certificates: [{pair}] }}{listener} }}"
        );
        let gateway = gateway(&[site.entry(true)], &[&listener], "").await;
        let address = gateway.listener("secure").await.expect("it listens");
        Self { authority, gateway, address, _site: site, _app: app }
    }

    fn visitor(&self) -> Arc<ClientConfig> {
        self.authority.visitor(&["http/1.1"])
    }

    async fn connect(&self) -> http1::SendRequest<Full<Bytes>> {
        let stream = dial(self.address, "app.test", &self.visitor()).await.expect("a handshake");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1");
        tokio::spawn(connection);
        sender
    }

    async fn handshakes(&self, result: &str) -> f64 {
        let labels = [format!("result=\"{result}\"")];
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        let count = self.gateway.metric("frp_gateway_tls_handshakes_total", &labels).await;
        count.expect("metrics").unwrap_or_default()
    }
}

fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "app.test");
    request.body(Full::new(body.into())).expect("a request")
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(body.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn requests_over_tls_reach_the_tunnel_and_the_application_knows_it_was_https() {
    let world = World::start("").await;
    let mut visitor = world.connect().await;
    for round in 0..20 {
        let response = visitor.send_request(request("GET", "/echo", "")).await.expect("an answer");
        assert_eq!(response.status(), 200, "round {round}");
        let said = text(response).await.to_ascii_lowercase();
        // frps writes `X-Forwarded-Proto: http` whatever it gets.
        assert!(said.contains("[\"x-gateway-proto\",\"https\"]"), "{said}");
    }
    assert!(world.handshakes("full").await >= 1.0, "it is counted");
}

#[tokio::test]
async fn bodies_of_any_size_pass_both_ways_unchanged() {
    let world = World::start("").await;
    let mut visitor = world.connect().await;
    for size in [1, 100, 16_383, 16_384, 16_385, 70_000, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("small")).collect();
        let crc = crc32fast::hash(&body);
        let response = visitor.send_request(request("POST", "/echo", body)).await.expect("an answer");
        let said = text(response).await;
        let heard: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        let sums = heard.to_string();
        assert!(sums.contains(&format!("{crc:08x}")) || sums.contains(&crc.to_string()), "{size}: {sums}");
        let response =
            visitor.send_request(request("GET", &format!("/bytes/{size}"), "")).await.expect("an answer");
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        assert_eq!(body.len(), size, "bytes of the answer");
    }
}

#[tokio::test]
async fn a_websocket_runs_over_tls_and_ends_with_a_goodbye() {
    let world = World::start("").await;
    let stream = dial(world.address, "app.test", &world.visitor()).await.expect("a handshake");
    let (mut socket, response) =
        tokio_tungstenite::client_async("wss://app.test/ws", stream).await.expect("a WebSocket");
    assert_eq!(response.status(), 101);
    for size in [3, 200, 40_000] {
        let sent = "x".repeat(size);
        socket.send(sent.clone().into()).await.expect("sent");
        let heard = timeout(SOON, socket.next()).await.expect("in time").expect("open").expect("a message");
        assert_eq!(heard.into_text().expect("text").as_str(), sent);
    }
    socket.close(None).await.expect("closed");
}

#[tokio::test]
async fn whoever_speaks_no_tls_or_is_slow_is_counted_and_closed() {
    let world = World::start(", timeouts: { header: 1s }").await;
    let mut plain = TcpStream::connect(world.address).await.expect("in");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await.expect("sent");
    let mut said = Vec::new();
    // A reset after the alert counts as an end.
    drop(timeout(SOON, plain.read_to_end(&mut said)).await.expect("it ends"));
    assert!(said.is_empty() || said[0] == 0x15, "an alert or nothing: {said:?}");

    let mut slow = TcpStream::connect(world.address).await.expect("in");
    slow.write_all(&[0x16, 0x03, 0x01, 0x02]).await.expect("sent");
    let begun = Instant::now();
    drop(timeout(SOON, slow.read(&mut [0; 16])).await.expect("it ends"));
    assert!(begun.elapsed() >= Duration::from_millis(900), "not before its time: {:?}", begun.elapsed());

    drop(TcpStream::connect(world.address).await.expect("in"));
    for result in ["failed", "slow", "gone"] {
        until(result, SOON, async || (world.handshakes(result).await >= 1.0).then_some(()))
            .await
            .expect("it is counted");
    }
    // Others are unharmed.
    let response = world.connect().await.send_request(request("GET", "/", "")).await.expect("an answer");
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_drain_answers_what_is_under_way_and_says_goodbye() {
    let mut world = World::start("").await;
    let mut visitor = world.connect().await;
    assert_eq!(visitor.send_request(request("GET", "/", "")).await.expect("an answer").status(), 200);
    let slow = visitor.send_request(request("GET", "/slow?ms=1000", ""));
    let slow = tokio::spawn(slow);
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.gateway.sigterm();
    let response = slow.await.expect("a visitor").expect("it is answered");
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, "hello from one\n");
    until("the end", SOON, async || visitor.is_closed().then_some(())).await.expect("the connection ends");
}

/// An application that ends TLS itself, with a certificate of the same authority.
async fn tls_application(authority: &Authority) -> App {
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    authority.issue("own", &["own.test"]);
    let chain = vec![CertificateDer::from_pem_file(authority.path("own.pem")).expect("PEM")];
    let key = PrivateKeyDer::from_pem_file(authority.path("own.key")).expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    App::start(move |stream| {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                drop(stream.write_all(b"opened by myself\n").await);
                drop(stream.shutdown().await);
            }
        })
    })
    .await
}

#[tokio::test]
async fn one_address_ends_tls_for_some_names_and_passes_others_through() {
    let authority = Authority::new();
    let pair = authority.issue("app", &["app.test"]);
    let (app, own) = (DemoApp::start("one").expect("it starts"), tls_application(&authority).await);
    let proxies =
        vec![Proxy::http("web", app.addr(), &["app.test"]), Proxy::https("own", own.address, &["own.test"])];
    let site = Site::start("a", proxies).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let listeners = [
        format!("{{ name: secure, bind: \"{port}\", protocol: https, tls: {{ certificates: [{pair}] }} }}"),
        format!("{{ name: sni, bind: \"{port}\", protocol: tls_passthrough }}"),
    ];
    let gateway =
        gateway(&[site.entry(true)], &[&listeners[0], &listeners[1]], "tunnels: { serve: true }").await;
    let visitor = authority.visitor(&["http/1.1"]);
    for _ in 0..10 {
        let stream = dial(port, "app.test", &visitor).await.expect("a handshake");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1");
        tokio::spawn(connection);
        let request = request("GET", "/", "");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(text(response).await, "hello from one\n");

        let mut said = String::new();
        let mut stream = until("the https tunnel", SOON, async || {
            let mut stream = dial(port, "own.test", &visitor).await.ok()?;
            said.clear();
            stream.read_to_string(&mut said).await.ok()?;
            Some(stream)
        })
        .await
        .expect("passed through");
        assert_eq!(said, "opened by myself\n", "its own certificate, its own bytes");
        drop(stream.shutdown().await);
    }
    drop(gateway);
}
