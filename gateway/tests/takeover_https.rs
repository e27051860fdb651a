//! `takeover.https`: an https proxy becomes a private tcp port, TLS still ends in its application, which can be told its
//! visitors. Real frps and frpc; needs `frp-lab/build`.

#[path = "common/raw.rs"]
mod raw;
#[path = "common/takeover.rs"]
mod takeover;

use std::{net::SocketAddr, sync::Arc};

use frp_gateway_loadtest::lab::Proxy;
use raw::{App, line};
use takeover::World;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
    },
};

/// An application behind PROXY protocol and TLS; it answers with the header that it got.
async fn told() -> (App, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let app = App::start(move |mut stream| {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Some(header) = line(&mut stream).await else { return };
            if let Ok(mut stream) = acceptor.accept(stream).await {
                drop(stream.write_all(header.as_bytes()).await);
                drop(stream.shutdown().await);
            }
        })
    });
    (app.await, made.cert.der().clone())
}

#[tokio::test]
async fn an_https_application_sees_its_visitors_once_its_proxy_is_taken_over() {
    let (app, cert) = told().await;
    let mut world =
        World::fleet(&["a"], "takeover: { https: true }\ntunnels: { serve: true }", |options| options).await;
    let listener = "listeners:\n  - { name: secure, bind: \"127.0.0.1:0\", protocol: tls_passthrough }\n";
    world.instead.push(("listeners:\n".into(), listener.into()));
    world.start_gateway().await;
    let proxy = Proxy::https("web", app.address, &["app.test"]).metadata("gw_proxy_protocol", "v1");
    let _frpc = world.frpc(0, "alice", vec![proxy]).await;
    let tunnels = world.gateway().api("/api/v1/tunnels").await.expect("the API answers");
    assert_eq!((&tunnels[0]["kind"], &tunnels[0]["via"]), (&"https".into(), &"takeover".into()), "{tunnels}");
    let secure: SocketAddr = world.gateway().listener("secure").await.expect("it listens");
    let mut roots = RootCertStore::empty();
    roots.add(cert).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(secure).await.expect("in");
    let port = stream.local_addr().expect("connected").port();
    let asked = async {
        let mut stream = connector.connect(ServerName::try_from("app.test").expect("a name"), stream).await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        Ok::<_, std::io::Error>(said)
    };
    let said = timeout(raw::SOON, asked).await.expect("in time").unwrap_or_else(|error| {
        panic!("{error}\n{}", world.gateway().log());
    });
    assert_eq!(said.trim_end(), format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}", secure.port()));
    assert_eq!(world.get("app.test", "/").await.status, 404, "http visitors don't reach it");
}

#[tokio::test]
async fn a_name_that_another_user_has_is_refused_for_https_as_for_http() {
    let (app, _) = told().await;
    let world = World::start(&["a", "b"], "takeover: { https: true }\ntunnels: { serve: true }").await;
    let _alice = world.frpc(0, "alice", vec![Proxy::https("web", app.address, &["app.test"])]).await;
    let bob = world.frpc_unready(1, "bob", vec![Proxy::https("web", app.address, &["app.test"])]);
    takeover::until_frpc_says(&bob, "app.test is claimed by user \"alice\" already").await;
}
