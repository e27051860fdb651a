//! `protocol: tls_passthrough`: TLS connections over https tunnels by the server name in the ClientHello, handshakes end to
//! end. Real frps and frpc; needs `frp-lab/build`.

#[path = "common/raw.rs"]
mod raw;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use frp_gateway_loadtest::lab::{Gateway, Proxy, until};
use raw::{App, SOON, Site, gateway, rest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
    },
};

/// A certificate for these names, and its key.
struct Identity {
    cert: CertificateDer<'static>,
    key: Vec<u8>,
}

fn identity() -> Identity {
    let names = ["one.test", "two.test", "x.wild.test", "127.0.0.1"].map(str::to_owned).to_vec();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    Identity { cert: made.cert.der().clone(), key: made.signing_key.serialize_der() }
}

fn client(identity: &Identity) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.cert.clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// An application that ends TLS and says its name.
async fn tls_app(name: &'static str, identity: &Identity) -> App {
    let key = PrivatePkcs8KeyDer::from(identity.key.clone());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.clone()], key.into())
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    App::start(move |stream| {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                drop(stream.write_all(format!("{name}\n").as_bytes()).await);
                drop(stream.shutdown().await);
            }
        })
    })
    .await
}

/// Who serves `name`, after a whole handshake; otherwise what the visitor's TLS says.
async fn ask(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Result<String, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::clone(config));
    let server = ServerName::try_from(name.to_owned()).expect("a name");
    let asked = async {
        let mut stream = connector.connect(server, stream).await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        Ok::<_, std::io::Error>(said.trim_end().to_owned())
    };
    timeout(SOON, asked).await.expect("an end in time").map_err(|error| error.to_string())
}

async fn shares(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
    count: usize,
) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(ask(address, name, config).await.unwrap_or_else(|error| error)).or_default() += 1;
    }
    shares
}

/// Three frps: one.test on a and b, two.test and *.wild.test on b and c.
async fn three(identity: &Identity) -> (Vec<Site>, Vec<App>) {
    let (mut sites, mut apps) = (Vec::new(), Vec::new());
    for (name, domains) in [("a", &["one"][..]), ("b", &["one", "two"]), ("c", &["two"])] {
        let app = tls_app(name, identity).await;
        let proxies = domains.iter().map(|domain| match *domain {
            "one" => Proxy::https("one", app.address, &["one.test"]),
            domain => Proxy::https(domain, app.address, &["two.test", "*.wild.test"]),
        });
        sites.push(Site::start(name, proxies.collect()).await);
        apps.push(app);
    }
    (sites, apps)
}

const LISTENER: &str =
    "{ name: secure, bind: \"127.0.0.1:0\", protocol: tls_passthrough, timeouts: { header: 1s } }";
const SERVE: &str = "tunnels: { serve: true, pool: { hold: off } }";

async fn address(gateway: &Gateway) -> SocketAddr {
    gateway.listener("secure").await.expect("it listens")
}

/// Waits until `name` is served.
async fn served(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) {
    until(&format!("{name} to be served"), SOON, async || ask(address, name, config).await.ok())
        .await
        .expect("it is served");
}

fn names(shares: &BTreeMap<String, usize>) -> Vec<&str> {
    shares.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn https_tunnels_are_served_by_their_domains_wherever_they_are() {
    let identity = identity();
    let config = client(&identity);
    let (mut sites, _apps) = three(&identity).await;
    let entries: Vec<_> = sites.iter().map(|site| site.entry(true)).collect();
    let gateway = gateway(&entries, &[LISTENER], SERVE).await;
    let web = address(&gateway).await;
    served(web, "one.test", &config).await;
    served(web, "two.test", &config).await;
    assert_eq!(names(&shares(web, "one.test", &config, 10).await), ["a", "b"]);
    assert_eq!(names(&shares(web, "two.test", &config, 10).await), ["b", "c"]);
    assert_eq!(names(&shares(web, "x.wild.test", &config, 10).await), ["b", "c"]);
    let refused = ask(web, "nobody.test", &config).await.expect_err("nobody has it");
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    // An frps dies: nobody notices.
    sites[0].frps.kill9();
    let left = shares(web, "one.test", &config, 10).await;
    assert_eq!(left, BTreeMap::from([("b".to_owned(), 10)]), "{}", gateway.log());
}

#[tokio::test]
async fn a_pool_of_vhost_ports_finds_the_frps_that_has_the_name() {
    let identity = identity();
    let config = client(&identity);
    let (sites, _apps) = three(&identity).await;
    let rest = "pools:\n  - { name: tls }\nroutes:\n  - { match: { host: \"*.test\" }, listeners: secure, pool: tls }";
    for known in [false, true] {
        let entries: Vec<_> = sites.iter().map(|site| site.entry(known)).collect();
        let gateway = gateway(&entries, &[LISTENER], rest).await;
        let web = address(&gateway).await;
        assert_eq!(names(&shares(web, "one.test", &config, 12).await), ["a", "b"], "known: {known}");
        assert_eq!(names(&shares(web, "two.test", &config, 12).await), ["b", "c"], "known: {known}");
        let refused = ask(web, "nobody.test", &config).await.expect_err("nobody has it");
        assert!(refused.contains("UnrecognisedName"), "{refused}");
    }
}

#[tokio::test]
async fn without_a_name_the_listeners_pool_takes_it_and_without_a_pool_nobody() {
    let identity = identity();
    let config = client(&identity);
    let app = tls_app("rest", &identity).await;
    // Not an frps: something that doesn't care for names.
    let entry = format!("{{ name: a, host: 127.0.0.1, vhost_https_port: {} }}", app.address.port());
    let with_pool = LISTENER.replace("tls_passthrough,", "tls_passthrough, pool: rest,");
    let gateway =
        gateway(&[entry], &[&with_pool, &LISTENER.replace("secure", "bare")], "pools:\n  - { name: rest }")
            .await;
    let web = address(&gateway).await;
    assert_eq!(ask(web, "127.0.0.1", &config).await.as_deref(), Ok("rest"));
    assert_eq!(ask(web, "one.test", &config).await.as_deref(), Ok("rest"), "no route takes it");
    let bare = gateway.listener("bare").await.expect("it listens");
    for name in ["127.0.0.1", "one.test"] {
        let refused = ask(bare, name, &config).await.expect_err("nobody has it");
        assert!(refused.contains("UnrecognisedName"), "{name}: {refused}");
    }
}

/// The first flight of a client that asks for `name`.
fn hello(name: &str, config: &Arc<ClientConfig>) -> Vec<u8> {
    let server = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::clone(config), server).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a Vec takes all");
    bytes
}

#[tokio::test]
async fn a_hello_in_pieces_arrives_as_it_came() {
    let app = App::start(|mut stream| {
        tokio::spawn(async move {
            // Gives back what it got until a byte 0xff, which no hello below has at its end.
            let mut all = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                all.push(byte);
                if all.ends_with(b"over") {
                    drop(stream.write_all(&all).await);
                    return;
                }
            }
        })
    })
    .await;
    let entry = format!("{{ name: a, host: 127.0.0.1, vhost_https_port: {} }}", app.address.port());
    let rest_of =
        "pools:\n  - { name: tls }\nroutes:\n  - { match: { host: one.test }, listeners: secure, pool: tls }";
    let gateway = gateway(&[entry], &[LISTENER], rest_of).await;
    let web = address(&gateway).await;
    let identity = identity();
    let hello = hello("one.test", &client(&identity));
    let mut records = Vec::new();
    for part in hello[5..].chunks(40) {
        records.extend_from_slice(&[22, 3, 1, 0, u8::try_from(part.len()).expect("short")]);
        records.extend_from_slice(part);
    }
    for (sent, size) in [(&hello, 1), (&hello, 7), (&records, 64), (&records, 100_000)] {
        let mut stream = TcpStream::connect(web).await.expect("in");
        stream.set_nodelay(true).expect("nodelay");
        let whole = [&sent[..], b"over"].concat();
        for piece in whole.chunks(size) {
            stream.write_all(piece).await.expect("sent");
            tokio::task::yield_now().await;
        }
        let (back, _) = rest(&mut stream).await;
        assert!(back == whole, "{} of {} bytes in pieces of {size}", back.len(), whole.len());
    }
}

#[tokio::test]
async fn what_is_no_client_hello_is_refused_as_fits() {
    let identity = identity();
    let app = tls_app("a", &identity).await;
    let entry = format!("{{ name: a, host: 127.0.0.1, vhost_https_port: {} }}", app.address.port());
    let with_pool = LISTENER.replace("tls_passthrough,", "tls_passthrough, pool: rest,");
    let gateway = gateway(&[entry], &[&with_pool], "pools:\n  - { name: rest }").await;
    let web = address(&gateway).await;
    let alert = |number: u8| vec![21, 3, 1, 0, 2, 2, number];
    for (sent, expected) in [
        (&b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n"[..], Vec::new()),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Vec::new()),
        (&[0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16], alert(70)),
        (&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0], alert(50)),
        (&[23, 3, 3, 0, 1, 0], alert(10)),
        (&[22, 3, 1, 0xff, 0xff], alert(22)),
        // Never whole.
        (&[22, 3, 1, 0, 200, 1], Vec::new()),
        (b"", Vec::new()),
    ] {
        let mut stream = TcpStream::connect(web).await.expect("in");
        stream.write_all(sent).await.expect("sent");
        let begun = std::time::Instant::now();
        let (got, _) = rest(&mut stream).await;
        assert_eq!(got, expected, "for {:?}", sent.escape_ascii().to_string());
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    let refused = gateway.metric("frp_gateway_own_answers_total", &["class=\"bad_request\""]).await;
    assert_eq!(refused.expect("metrics"), Some(6.0));
    let late = gateway.metric("frp_gateway_own_answers_total", &["class=\"head_timeout\""]).await;
    assert_eq!(late.expect("metrics"), Some(2.0));
}
