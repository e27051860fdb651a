//! TLS to pools: something before frps ends it, and must prove who it is. Real frps and frpc; needs `frp-lab/build`.

#[path = "common/certified.rs"]
mod certified;
#[path = "common/raw.rs"]
mod raw;
#[path = "common/tls.rs"]
mod tls;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use certified::ClientAuthority;
use frp_gateway_loadtest::{
    demo::DemoApp,
    http,
    lab::{Gateway, GatewayOptions, Proxy, until},
};
use raw::{App, SOON, Site, gateway};
use tls::Authority;
use tokio::{io::copy_bidirectional, net::TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        HandshakeKind, RootCertStore, ServerConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

/// A relay that ends TLS before the vhost port of an frps.
struct Front {
    address: SocketAddr,
    handshakes: Arc<AtomicUsize>,
    resumed: Arc<AtomicUsize>,
    _app: App,
}

impl Front {
    /// With the certificate `FILE.pem` of `authority`; `clients`: it wants certificates of this authority.
    async fn start(authority: &Authority, file: &str, clients: Option<&Path>, to: SocketAddr) -> Self {
        let chain = vec![CertificateDer::from_pem_file(authority.path(&format!("{file}.pem"))).expect("PEM")];
        let key = PrivateKeyDer::from_pem_file(authority.path(&format!("{file}.key"))).expect("PEM");
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            Some(file) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(file).expect("PEM")).expect("an authority");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).expect("a certificate");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (handshakes, resumed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (full, again) = (Arc::clone(&handshakes), Arc::clone(&resumed));
        let app = App::start(move |stream| {
            let (acceptor, full, again) = (acceptor.clone(), Arc::clone(&full), Arc::clone(&again));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                full.fetch_add(1, SeqCst);
                if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                    again.fetch_add(1, SeqCst);
                }
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
                let Ok(mut frps) = TcpStream::connect(to).await else { return };
                drop(copy_bidirectional(&mut stream, &mut frps).await);
            })
        })
        .await;
        Self { address: app.address, handshakes, resumed, _app: app }
    }
}

/// An application behind frps, and what stands before that.
struct World {
    authority: Authority,
    site: Site,
    _app: DemoApp,
}

impl World {
    async fn start() -> Self {
        let app = DemoApp::start("one").expect("it starts");
        let site = Site::start("a", vec![Proxy::http("web", app.addr(), &["app.test"])]).await;
        Self { authority: Authority::new(), site, _app: app }
    }

    /// A gateway whose pool speaks TLS to `front`, with these settings, and more of the pool.
    async fn gateway(&self, front: &Front, tls: &str, more: &str) -> Gateway {
        let frps = format!("{{ name: a, host: 127.0.0.1, vhost_http_port: {} }}", front.address.port());
        let rest = format!(
            "pools:\n  - {{ name: web, frps: [a], tls: {tls}{more} }}\nroutes:\n  - {{ name: all, pools: [web] }}"
        );
        gateway(&[frps], &["{ name: web, bind: \"127.0.0.1:0\", protocol: http }"], &rest).await
    }

    fn trust(&self) -> String {
        format!("trust: \"{}\"", self.authority.path("ca.pem").display())
    }
}

async fn ask(gateway: &Gateway) -> http::Reply {
    let address = gateway.listener("web").await.expect("it listens");
    http::get(address, "app.test", "/echo").await.expect("an answer")
}

async fn tls_failures(gateway: &Gateway) -> f64 {
    let count =
        gateway.metric("frp_gateway_endpoint_failures_total", &["endpoint=\"a\"", "reason=\"tls\""]).await;
    count.expect("metrics").unwrap_or_default()
}

#[tokio::test]
async fn requests_reach_an_frps_behind_tls_over_connections_that_are_kept_and_resumed() {
    let world = World::start().await;
    world.authority.issue("front", &["127.0.0.1"]);
    let front = Front::start(&world.authority, "front", None, world.site.frps.http()).await;
    let health = ", health: { http: { host: app.test, path: / }, interval: 300ms }";
    let gateway = world.gateway(&front, &format!("{{ {} }}", world.trust()), health).await;
    for round in 0..50 {
        let reply = ask(&gateway).await;
        assert_eq!(
            (reply.status, reply.app()),
            (200, Some("one")),
            "round {round}: {}\n{}",
            reply.text(),
            gateway.log()
        );
    }
    assert!(tls_failures(&gateway).await < 0.5);
    until("several handshakes", SOON, async || (front.handshakes.load(SeqCst) >= 4).then_some(()))
        .await
        .expect("checks make connections of their own");
    assert!(front.resumed.load(SeqCst) >= 1, "sessions are resumed");
    let probed = gateway.metric("frp_gateway_endpoint_up", &["pool=\"web\"", "endpoint=\"a\""]).await;
    assert_eq!(probed.expect("metrics"), Some(1.0), "{}", gateway.log());
}

#[tokio::test]
async fn whoever_has_another_name_or_an_authority_that_is_not_trusted_gets_no_request() {
    let world = World::start().await;
    world.authority.issue("other", &["other.test"]);
    let front = Front::start(&world.authority, "other", None, world.site.frps.http()).await;

    let gateway = world.gateway(&front, &format!("{{ {} }}", world.trust()), "").await;
    let reply = ask(&gateway).await;
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert!(tls_failures(&gateway).await >= 1.0);
    until("the log to tell", SOON, async || {
        let log = gateway.log();
        (log.contains("reason=\"tls\"") && log.contains("not valid for name")).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
    drop(gateway);

    // By the name that it has, it is good.
    let named = format!("{{ {}, server_name: other.test }}", world.trust());
    let gateway = world.gateway(&front, &named, "").await;
    assert_eq!(ask(&gateway).await.status, 200, "{}", gateway.log());
    drop(gateway);

    let stranger = Authority::new();
    let tls = format!("{{ trust: \"{}\", server_name: other.test }}", stranger.path("ca.pem").display());
    let gateway = world.gateway(&front, &tls, "").await;
    assert_eq!(ask(&gateway).await.status, 502);
    until("the log to tell", SOON, async || gateway.log().contains("invalid peer certificate").then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
}

#[tokio::test]
async fn our_own_certificate_is_shown_and_a_new_trust_file_acts_without_a_reload() {
    let world = World::start().await;
    world.authority.issue("front", &["127.0.0.1"]);
    let clients = ClientAuthority::new("clients");
    let own = clients.issue("spiffe://fleet.test/gateway", 1);
    let front =
        Front::start(&world.authority, "front", Some(&clients.path("ca.pem")), world.site.frps.http()).await;

    let folder = tempfile::tempdir().expect("a folder");
    let trust = folder.path().join("trust.pem");
    std::fs::copy(Authority::new().path("ca.pem"), &trust).expect("copied");
    let tls = format!(
        "{{ trust: \"{}\", certificate: {{ cert: \"{}\", key: \"{}\" }} }}",
        trust.display(),
        own.cert.display(),
        own.key.display()
    );
    let gateway = world.gateway(&front, &tls, "").await;
    assert_eq!(ask(&gateway).await.status, 502, "another authority is trusted");
    std::fs::copy(world.authority.path("ca.pem"), folder.path().join("new")).expect("copied");
    std::fs::rename(folder.path().join("new"), &trust).expect("renamed");
    until("the new file to act", SOON, async || (ask(&gateway).await.status == 200).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
    assert!(gateway.log().contains("TLS to the pool's members has changed"), "{}", gateway.log());
}

#[tokio::test]
async fn what_the_system_trusts_is_trusted_where_no_file_is_named() {
    let world = World::start().await;
    world.authority.issue("front", &["127.0.0.1"]);
    let front = Front::start(&world.authority, "front", None, world.site.frps.http()).await;
    let frps = format!("{{ name: a, host: 127.0.0.1, vhost_http_port: {} }}", front.address.port());
    let rest = "pools:\n  - { name: web, frps: [a], tls: on }\nroutes:\n  - { name: all, pools: [web] }";
    let yaml = raw::yaml(&[frps], &["{ name: web, bind: \"127.0.0.1:0\", protocol: http }"], rest);
    let stranger = Authority::new();
    for (trusted, status) in [(world.authority.path("ca.pem"), 200), (stranger.path("ca.pem"), 502)] {
        let options = GatewayOptions::new(env!("CARGO_BIN_EXE_frp-gateway"), &yaml)
            .env("SSL_CERT_FILE", &trusted.display().to_string());
        let gateway = Gateway::start_with(options).await.expect("it starts");
        assert_eq!(ask(&gateway).await.status, status, "{}", gateway.log());
    }
}
