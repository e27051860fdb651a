//! Control connections whose TLS ends at the gateway: default frpc, strict frpc, wss; certificates change without a restart.
//! Real frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/control.rs"]
mod control;
#[path = "common/takeover.rs"]
mod takeover;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use control::Site;
use frp_gateway_loadtest::{
    demo::DemoApp,
    http,
    lab::{Frpc, Proxy, until},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use takeover::{SOON, app};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

/// A certificate authority and the files it writes.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signed");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes certificate and key for a name; returns the certificate.
    fn issue(&self, name: &str) -> String {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        std::fs::write(self.path("cert.pem"), certificate.pem()).expect("written");
        std::fs::write(self.path("key.pem"), key.serialize_pem()).expect("written");
        certificate.pem()
    }

    fn settings(&self) -> String {
        let show = |path: &Path| path.display().to_string();
        format!(
            "tls: {{ certificates: [{{ cert: \"{}\", key: \"{}\" }}] }}",
            show(&self.path("cert.pem")),
            show(&self.path("key.pem"))
        )
    }
}

async fn served(site: &Site, host: &str, by: &str) {
    let served = until(&format!("{host} to be served"), SOON, async || {
        let reply = http::get(site.world.web, host, "/").await.ok()?;
        (reply.app() == Some(by)).then_some(())
    })
    .await;
    assert!(served.is_ok(), "{served:?}\n{}", site.world.gateway().log());
}

#[tokio::test]
async fn every_frpc_is_served_unchanged_where_tls_ends_at_the_gateway() {
    let authority = Authority::new();
    authority.issue("gate.test");
    let site = Site::start(&["a", "b"], &authority.settings(), "").await;
    let trusted = format!("transport.tls.trustedCaFile = \"{}\"", authority.path("ca.pem").display());
    let strict = [trusted.as_str(), "transport.tls.serverName = \"gate.test\""];
    let wires: [(&str, &[&str]); 7] = [
        ("default", &[]),
        ("strict", &strict),
        ("custom-byte", &["transport.tls.disableCustomTLSFirstByte = false"]),
        ("wss", &["transport.protocol = \"wss\""]),
        ("wss-v2", &["transport.protocol = \"wss\"", "transport.wireProtocol = \"v2\""]),
        ("v2", &["transport.wireProtocol = \"v2\""]),
        ("plain", &["transport.tls.enable = false"]),
    ];
    let mut held: Vec<(DemoApp, Frpc)> = Vec::new();
    for (name, lines) in wires {
        let app = app(name);
        let options = site.options(name, vec![Proxy::http("web", app.addr(), &[&format!("{name}.test")])]);
        let options = lines.iter().fold(options, |options, line| options.line(line));
        held.push((app, site.frpc(options).await));
    }
    for (name, _) in wires {
        served(&site, &format!("{name}.test"), name).await;
    }
    let clients = site.world.gateway().api("/api/v1/clients").await.expect("the API answers");
    let ended = clients.as_array().expect("a list").iter().filter(|client| client["tls_ended"] == true);
    assert_eq!(ended.count(), 6, "all but the plain one: {clients}");
    let known: Vec<_> = clients.as_array().expect("a list").iter().map(|client| &client["user"]).collect();
    assert!(known.iter().filter(|user| user.is_null()).count() <= 2, "only wss hides its login: {clients}");
}

#[tokio::test]
async fn without_mux_work_connections_follow_their_login_through_tls_that_ends_here() {
    let authority = Authority::new();
    authority.issue("gate.test");
    let line = "transport.tcpMux = false";
    let site = Site::with(&["a", "b", "c"], &authority.settings(), "", line).await;
    let mut held = Vec::new();
    for n in 0..3 {
        let app = app(&format!("app{n}"));
        let options =
            site.options(&format!("u{n}"), vec![Proxy::http("web", app.addr(), &[&format!("h{n}.test")])]);
        held.push((app, site.frpc(options.line(line)).await));
    }
    assert_eq!(site.spread().await.len(), 3, "{:?}", site.clients().await);
    for round in 0..20 {
        for n in 0..3 {
            let reply = http::get(site.world.web, &format!("h{n}.test"), "/").await.expect("an answer");
            assert_eq!(reply.app(), Some(format!("app{n}").as_str()), "round {round}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_with_a_reload_and_a_bad_one_leaves_the_old_in_force() {
    let authority = Authority::new();
    authority.issue("one.test");
    let mut site = Site::start(&["a"], &authority.settings(), "").await;
    let trusted = format!("transport.tls.trustedCaFile = \"{}\"", authority.path("ca.pem").display());
    let app = app("app");
    let frpc = |site: &Site, name: &str, server: &str| {
        let proxy = Proxy::http("web", app.addr(), &[&format!("{name}.test")]);
        let server = format!("transport.tls.serverName = \"{server}.test\"");
        site.options(name, vec![proxy]).line(&trusted).line(&server)
    };
    let one = site.frpc(frpc(&site, "one", "one")).await;

    // A key that isn't that certificate's.
    let old_key = std::fs::read(authority.path("key.pem")).expect("it is there");
    authority.issue("two.test");
    let new_key = std::fs::read(authority.path("key.pem")).expect("it is there");
    std::fs::write(authority.path("key.pem"), old_key).expect("written");
    site.world.gateway.as_mut().expect("it runs").sighup();
    site.world.until_logged("reload refused").await;
    let log = site.world.gateway().log();
    let key = authority.path("key.pem").display().to_string();
    assert!(log.contains("listeners[0].tls.certificates[0].key") && log.contains(&key), "{log}");
    let again = site.frpc(frpc(&site, "again", "one")).await;

    std::fs::write(authority.path("key.pem"), new_key).expect("written");
    site.world.gateway.as_mut().expect("it runs").sighup();
    site.world.until_logged("reload: nothing changed").await;
    let two = site.frpc(frpc(&site, "two", "two")).await;
    assert_eq!(site.clients().await.len(), 3, "those that are connected stay: {:?}", site.clients().await);
    drop((one, again, two));
}

#[tokio::test]
async fn a_client_that_asks_for_a_name_nobody_has_is_told_so_where_such_are_refused() {
    let authority = Authority::new();
    authority.issue("gate.test");
    let settings = authority.settings().replacen("tls: {", "tls: { unknown_name: refuse,", 1);
    let site = Site::start(&["a"], &settings, "").await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path("ca.pem")).expect("PEM")).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let dial = async |name: &'static str| {
        let socket = tokio::net::TcpStream::connect(site.frp).await.expect("connected");
        connector.connect(name.try_into().expect("a name"), socket).await
    };
    let refused = dial("other.test").await.expect_err("nobody's name");
    assert!(format!("{refused:?}").contains("UnrecognisedName"), "{refused:?}");
    assert!(dial("gate.test").await.is_ok());
    let app = app("app");
    let proxy = Proxy::http("web", app.addr(), &["app.test"]);
    let _frpc = site.frpc(site.options("default", vec![proxy])).await;
    served(&site, "app.test", "app").await;
}
