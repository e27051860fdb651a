//! Certificates of https listeners as visitors see them: chosen by name and by what the client can check, swapped while it
//! serves, never made worse by a bad file, resumed across threads.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/raw.rs"]
mod raw;
#[path = "common/tls.rs"]
mod tls;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use frp_gateway_loadtest::{
    demo::DemoApp,
    lab::{Gateway, Proxy, until},
};
use raw::{SOON, Site, gateway};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use tls::{Authority, dial};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    client::TlsStream,
    rustls::{
        ClientConfig, CommonState, HandshakeKind, SupportedProtocolVersion,
        crypto::{CryptoProvider, aws_lc_rs},
        version::{TLS12, TLS13},
    },
};

/// A gateway with an https listener of these settings, and an application behind it for `app.test`.
struct World {
    authority: Authority,
    gateway: Gateway,
    address: SocketAddr,
    _site: Site,
    _app: DemoApp,
}

impl World {
    /// `issue` writes certificates and gives the settings of `tls`.
    async fn start(issue: impl FnOnce(&Authority) -> String) -> Self {
        let authority = Authority::new();
        let settings = issue(&authority);
        let app = DemoApp::start("one").expect("it starts");
        let site = Site::start("a", vec![Proxy::http("web", app.addr(), &["app.test"])]).await;
        let listener =
            format!("{{ name: secure, bind: \"127.0.0.1:0\", protocol: https, tls: {{ {settings} }} }}");
        let gateway = gateway(&[site.entry(true)], &[&listener], "").await;
        let address = gateway.listener("secure").await.expect("it listens");
        Self { authority, gateway, address, _site: site, _app: app }
    }

    fn visitor(&self) -> Arc<ClientConfig> {
        self.authority.visitor(&["http/1.1"])
    }

    /// The certificate that a new visitor gets.
    async fn leaf(&self, name: &str, visitor: &Arc<ClientConfig>) -> Vec<u8> {
        let stream =
            dial(self.address, name, visitor).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        leaf(stream.get_ref().1)
    }

    /// Waits until new visitors get something else than `before`.
    async fn swapped(&self, name: &str, before: &[u8]) {
        let visitor = self.visitor();
        let swapped =
            until("the swap", SOON, async || (self.leaf(name, &visitor).await != before).then_some(())).await;
        assert!(swapped.is_ok(), "{swapped:?}\n{}", self.gateway.log());
    }

    async fn logged(&self, text: &str) -> String {
        let line = until(text, SOON, async || {
            self.gateway.log().lines().find(|line| line.contains(text)).map(ToOwned::to_owned)
        });
        line.await.unwrap_or_else(|error| panic!("{error:?}\n{}", self.gateway.log()))
    }
}

fn leaf(connection: &CommonState) -> Vec<u8> {
    connection.peer_certificates().expect("a certificate")[0].to_vec()
}

/// Replaces a file at once, as certbot does.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("written");
    std::fs::rename(&new, path).expect("renamed");
}

/// Asks for something, so that tickets are read.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    let request = b"GET / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.expect("an answer to its end");
    String::from_utf8_lossy(&text).into_owned()
}

fn with_versions(world: &World, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let known = world.authority.roots();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
    Arc::new(config.with_root_certificates(known).with_no_client_auth())
}

#[tokio::test]
async fn a_thousand_swaps_fail_no_handshake() {
    let world = World::start(|authority| {
        format!("session_tickets: false, certificates: [{}]", authority.issue("app", &["app.test"]))
    })
    .await;
    let world = Arc::new(world);
    let ended = Arc::new(AtomicBool::new(false));
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            let (world, ended) = (Arc::clone(&world), Arc::clone(&ended));
            tokio::spawn(async move {
                let visitor = world.visitor();
                let (mut shaken, mut failed, mut seen) = (0, Vec::new(), std::collections::HashSet::new());
                while !ended.load(Relaxed) {
                    shaken += 1;
                    match dial(world.address, "app.test", &visitor).await {
                        Ok(stream) => drop(seen.insert(leaf(stream.get_ref().1))),
                        Err(error) => failed.push(error.to_string()),
                    }
                }
                (shaken, failed, seen.len())
            })
        })
        .collect();
    // Certificate and key one after the other, half of the time each first: no moment at which they fit may matter.
    for round in 0..1000 {
        let (cert, key) = world.authority.sign(&["app.test"]);
        let (one, other) = ((world.authority.path("app.pem"), cert), (world.authority.path("app.key"), key));
        let order = if round % 2 == 0 { [one, other] } else { [other, one] };
        for (path, content) in order {
            replace(&path, content.as_bytes());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let last = pem_leaf(&world.authority.path("app.pem"));
    let visitor = world.visitor();
    let there =
        until("the last one", SOON, async || (world.leaf("app.test", &visitor).await == last).then_some(()))
            .await;
    assert!(there.is_ok(), "{there:?}\n{}", world.gateway.log());
    ended.store(true, Relaxed);
    let (mut shaken, mut seen) = (0, 0);
    for visitor in visitors {
        let (count, failed, different) = visitor.await.expect("it ends");
        assert_eq!(failed, Vec::<String>::new(), "of {count}");
        (shaken, seen) = (shaken + count, seen.max(different));
    }
    let swapped =
        world.gateway.metric("frp_gateway_certificate_changes_total", &["result=\"swapped\""]).await;
    let swapped = swapped.expect("metrics").unwrap_or_default();
    assert!(
        shaken > 100 && seen > 3 && swapped >= 3.0,
        "{shaken} handshakes, {seen} certificates, {swapped} swaps"
    );
    let refused =
        world.gateway.metric("frp_gateway_certificate_changes_total", &["result=\"refused\""]).await;
    assert!(refused.expect("metrics").unwrap_or_default() < 0.5, "{}", world.gateway.log());
}

fn pem_leaf(path: &Path) -> Vec<u8> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_file(path).expect("PEM").to_vec()
}

#[tokio::test]
async fn a_bad_file_leaves_the_old_certificate_in_force_and_is_named() {
    let mut world =
        World::start(|authority| format!("certificates: [{}]", authority.issue("app", &["app.test"]))).await;
    let visitor = world.visitor();
    let before = world.leaf("app.test", &visitor).await;
    let path: PathBuf = world.authority.path("app.pem");
    let good = std::fs::read(&path).expect("it is there");
    replace(&path, b"nonsense");
    let line = world.logged("certificate refused").await;
    assert!(line.contains("app.pem") && line.contains("it holds no certificate in PEM"), "{line}");
    assert!(line.contains("secure"), "{line}");
    assert_eq!(world.leaf("app.test", &visitor).await, before);
    let faults = world.gateway.metric("frp_gateway_certificate_faults", &[]).await.expect("metrics");
    assert_eq!(faults, Some(1.0));
    let shown = world.gateway.api("/api/v1/certificates").await.expect("the API answers");
    assert!(shown[0]["fault"].as_str().is_some_and(|fault| fault.contains("app.pem")), "{shown}");

    // A reload says the same, with the key of the configuration.
    world.gateway.sighup();
    let line = world.logged("tls.certificates[0].cert").await;
    assert!(line.contains("app.pem"), "{line}");
    assert_eq!(world.leaf("app.test", &visitor).await, before);

    replace(&path, &good);
    let passed = until("the fault to pass", SOON, async || {
        let faults = world.gateway.metric("frp_gateway_certificate_faults", &[]).await.ok()?;
        (faults == Some(0.0)).then_some(())
    });
    passed.await.expect("it is good again");
    let (cert, key) = world.authority.sign(&["app.test"]);
    replace(&path, cert.as_bytes());
    replace(&world.authority.path("app.key"), key.as_bytes());
    world.swapped("app.test", &before).await;
    let shown = world.gateway.api("/api/v1/certificates").await.expect("the API answers");
    assert!(
        shown[0].get("fault").is_none() && shown[0]["days_left"].as_i64().is_some_and(|days| days > 0),
        "{shown}"
    );
    let labels = ["listener=\"secure\"", "name=\"app.test\"", "key=\"ecdsa\""];
    let left =
        world.gateway.metric("frp_gateway_certificate_expiry_seconds", &labels).await.expect("metrics");
    assert!(left.is_some_and(|left| left > 0.0), "{left:?}");
}

#[tokio::test]
async fn a_folder_that_is_swapped_by_a_symlink_is_followed() {
    let world = World::start(|authority| {
        let store = |generation: &str| {
            let folder = authority.path(generation);
            std::fs::create_dir(&folder).expect("made");
            let (cert, key) = authority.sign(&["app.test"]);
            std::fs::write(folder.join("tls.crt"), cert).expect("written");
            std::fs::write(folder.join("tls.key"), key).expect("written");
        };
        // As Kubernetes mounts a secret.
        store("..one");
        store("..two");
        std::os::unix::fs::symlink("..one", authority.path("..data")).expect("linked");
        for name in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), authority.path(name)).expect("linked");
        }
        let (cert, key) = (authority.path("tls.crt"), authority.path("tls.key"));
        format!("certificates: [{{ cert: \"{}\", key: \"{}\" }}]", cert.display(), key.display())
    })
    .await;
    let before = world.leaf("app.test", &world.visitor()).await;
    assert_eq!(before, pem_leaf(&world.authority.path("..one/tls.crt")));
    std::os::unix::fs::symlink("..two", world.authority.path("..tmp")).expect("linked");
    std::fs::rename(world.authority.path("..tmp"), world.authority.path("..data")).expect("renamed");
    world.swapped("app.test", &before).await;
    assert_eq!(
        world.leaf("app.test", &world.visitor()).await,
        pem_leaf(&world.authority.path("..two/tls.crt"))
    );
}

#[tokio::test]
async fn visitors_get_the_certificate_of_their_name_and_of_what_they_can_check() {
    let world = World::start(|authority| {
        let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
        let pairs = [
            authority.issue("first", &["first.test"]),
            authority.issue("wild", &["*.shop.test"]),
            authority.issue("pay", &["pay.shop.test"]),
            authority.issue_with("pay-rsa", &["pay.shop.test"], &rsa),
        ];
        format!("unknown_name: refuse, certificates: [{}]", pairs.join(", "))
    })
    .await;
    let visitor = world.visitor();
    let of = |file: &str| pem_leaf(&world.authority.path(&format!("{file}.pem")));
    for (name, file) in [
        ("first.test", "first"),
        ("www.shop.test", "wild"),
        ("pay.shop.test", "pay"),
        ("PAY.shop.test", "pay"),
    ] {
        assert_eq!(world.leaf(name, &visitor).await, of(file), "{name}");
    }
    let refused = dial(world.address, "a.b.shop.test", &visitor).await.expect_err("nobody's name");
    assert!(format!("{refused:?}").contains("UnrecognisedName"), "{refused:?}");
    let mut old = aws_lc_rs::default_provider();
    let rsa_only: Vec<_> = old
        .signature_verification_algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| is_rsa(*scheme))
        .copied()
        .collect();
    old.signature_verification_algorithms.mapping = Box::leak(rsa_only.into_boxed_slice());
    let rsa = trusting(&world, old);
    assert_eq!(world.leaf("pay.shop.test", &rsa).await, of("pay-rsa"), "a client that knows only RSA");
}

fn is_rsa(scheme: tokio_rustls::rustls::SignatureScheme) -> bool {
    format!("{scheme:?}").starts_with("RSA")
}

fn trusting(world: &World, provider: CryptoProvider) -> Arc<ClientConfig> {
    let config =
        ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(world.authority.roots());
    Arc::new(config.with_no_client_auth())
}

#[tokio::test]
async fn sessions_are_resumed_by_every_thread_and_after_a_swap() {
    let world =
        World::start(|authority| format!("certificates: [{}]", authority.issue("app", &["app.test"]))).await;
    for version in [&TLS13, &TLS12] {
        let visitor = with_versions(&world, &[version]);
        let before = world.leaf("app.test", &world.visitor()).await;
        let resumed = async |what: &str, rounds: usize| {
            for round in 0..rounds {
                // The kernel spreads connections over the threads.
                let mut stream = dial(world.address, "app.test", &visitor).await.expect("a handshake");
                let text = ask(&mut stream).await;
                assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                let kind = stream.get_ref().1.handshake_kind();
                let wanted = if what == "full" { HandshakeKind::Full } else { HandshakeKind::Resumed };
                assert_eq!(kind, Some(wanted), "{version:?}, {what}, round {round}");
            }
        };
        resumed("full", 1).await;
        resumed("resumed", 30).await;
        let (cert, key) = world.authority.sign(&["app.test"]);
        replace(&world.authority.path("app.pem"), cert.as_bytes());
        replace(&world.authority.path("app.key"), key.as_bytes());
        world.swapped("app.test", &before).await;
        resumed("resumed after a swap", 5).await;
    }
}

#[tokio::test]
async fn old_versions_are_refused_where_the_listener_says_so() {
    let world = World::start(|authority| {
        format!("min_version: \"1.3\", certificates: [{}]", authority.issue("app", &["app.test"]))
    })
    .await;
    let refused =
        dial(world.address, "app.test", &with_versions(&world, &[&TLS12])).await.expect_err("too old");
    assert!(format!("{refused:?}").contains("ProtocolVersion"), "{refused:?}");
    let stream = dial(world.address, "app.test", &with_versions(&world, &[&TLS13])).await.expect("it is new");
    assert_eq!(stream.get_ref().1.protocol_version(), Some(TLS13.version));
}
