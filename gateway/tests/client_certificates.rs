//! A fleet of 300 client certificates at `frp` and `https` listeners: leaves and root change under load, clients are refused one by one.
//! Real frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, clippy::print_stderr, reason = "a failed test shows why; times are for people")]

#[path = "common/ca.rs"]
mod authority;
#[path = "common/clients.rs"]
mod clients;
#[path = "common/control.rs"]
mod control;
#[path = "common/ledger.rs"]
mod ledger;
#[path = "common/takeover.rs"]
mod takeover;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use authority::{Ca, leaf};
use clients::{command, served};
use control::Site;
use frp_gateway_loadtest::{
    demo::DemoApp,
    lab::{Frpc, Proxy, until},
};
use futures_util::{SinkExt, StreamExt};
use ledger::{Ledger, app, visit};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use takeover::SOON;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Clients that have a certificate.
const CLIENTS: usize = 300;
/// Of them, frpc that serve `h0.test` …; one more serves WebSockets.
const FRPC: usize = 11;
/// What both listeners are called in their certificate.
const SERVER: &str = "gate.test";

fn client(n: usize) -> String {
    format!("edge-{:03}", n + 1)
}

/// An authority whose clients and server have their certificates.
fn fleet() -> Arc<Ca> {
    let ca = Ca::new();
    ca.ok(&["issue", "--count", &CLIENTS.to_string(), "--prefix", "edge-"]);
    ca.ok(&["issue", SERVER, "--server"]);
    Arc::new(ca)
}

/// The `tls` of a listener, as `ca issue` says it.
fn settings(ca: &Ca) -> String {
    let show = |name: &str| ca.path(name).display().to_string();
    let home = format!("issued/{SERVER}");
    format!(
        "tls: {{ certificates: [{{ cert: \"{}\", key: \"{}\" }}], client_auth: {{ trust: \"{}\", crl: \"{}\" }} }}",
        show(&format!("{home}/cert.pem")),
        show(&format!("{home}/key.pem")),
        show("trust.pem"),
        show("crl.pem")
    )
}

/// Runs a command of the authority beside everything else.
async fn ca_does(ca: &Arc<Ca>, arguments: &'static [&'static str]) {
    let ca = Arc::clone(ca);
    spawn_blocking(move || ca.ok(arguments)).await.expect("no panic");
}

/// What somebody dials with: the files of a folder as they are now.
fn credentials(home: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(home.join("ca.pem")).expect("readable") {
        roots.add(root.expect("PEM")).expect("a root");
    }
    let roots = Arc::new(roots);
    // One file may be read before a renewal and the other after it.
    for _ in 0..1000 {
        let key = PrivateKeyDer::from_pem_file(home.join("key.pem")).expect("a key");
        let made = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(vec![leaf(&home.join("cert.pem"))], key);
        if let Ok(config) = made {
            return Arc::new(config);
        }
    }
    panic!("{}: certificate and key never fit", home.display());
}

async fn dial(to: SocketAddr, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(to).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from(SERVER).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, socket).await
}

/// What is spoken behind TLS, and shows that somebody was let in.
#[derive(Debug, Clone, Copy)]
enum Talk {
    /// A login with a bad token: frps answers it.
    Frp,
    /// A request, answered by the tunnel's application.
    Http,
}

impl Talk {
    fn words(self) -> Vec<u8> {
        match self {
            Self::Http => b"GET / HTTP/1.1\r\nhost: app.test\r\n\r\n".to_vec(),
            Self::Frp => {
                let login = br#"{"version":"0.71.0","user":"probe","privilege_key":"bad","timestamp":1}"#;
                let length = u64::try_from(login.len()).expect("short");
                let message = [b"o".as_slice(), &length.to_be_bytes(), login].concat();
                // yamux: version 0, data, SYN, stream 1.
                let size = u32::try_from(message.len()).expect("short");
                [&[0, 0, 0, 1, 0, 0, 0, 1], size.to_be_bytes().as_slice(), &message].concat()
            }
        }
    }
}

/// Says the words on a connection and waits for the first bytes of an answer. TLS 1.3 tells a client that it is refused only then.
async fn talk(stream: &mut TlsStream<TcpStream>, talk: Talk) -> io::Result<Vec<u8>> {
    stream.write_all(&talk.words()).await?;
    let mut answer = vec![0; 4096];
    let n = stream.read(&mut answer).await?;
    answer.truncate(n);
    let good = match talk {
        Talk::Frp => n > 0,
        Talk::Http => answer.starts_with(b"HTTP/1.1 200"),
    };
    if good { Ok(answer) } else { Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned())) }
}

/// A whole visit with a folder's files.
async fn knock(to: SocketAddr, home: PathBuf, words: Talk) -> io::Result<TlsStream<TcpStream>> {
    let config = spawn_blocking(move || credentials(&home)).await.expect("no panic");
    let visit = async {
        let mut stream = dial(to, config).await?;
        talk(&mut stream, words).await?;
        Ok(stream)
    };
    timeout(SOON, visit).await.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Dials with sessions to resume; how the handshake went, or why it was no good.
async fn return_with(
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    words: Talk,
) -> io::Result<Option<HandshakeKind>> {
    let visit = async {
        let mut stream = dial(to, Arc::clone(config)).await?;
        talk(&mut stream, words).await?;
        Ok(stream.get_ref().1.handshake_kind())
    };
    timeout(SOON, visit).await.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Somebody who would resume a session if there were any to resume: those who show certificates are judged each time they come.
async fn regular(to: SocketAddr, ca: &Ca, name: &str, words: Talk) -> Arc<ClientConfig> {
    let config = credentials(&ca.path(&format!("issued/{name}")));
    for round in 0..3 {
        let kind = return_with(to, &config, words).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let full = matches!(kind, Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest));
        assert!(full, "{name}, visit {round}: {kind:?}");
    }
    config
}

/// Time since the list was written, so an upper bound of what the gateway took.
fn since_list(ca: &Ca) -> Duration {
    let written = std::fs::metadata(ca.path("crl.pem")).and_then(|data| data.modified()).expect("there");
    SystemTime::now().duration_since(written).unwrap_or_default()
}

/// Who knocks all the time, with one certificate after the other as its files are at that moment.
struct Knocking {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Knocking {
    fn start(to: SocketAddr, ca: &Arc<Ca>, words: Talk, who: std::ops::Range<usize>) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..2).map(|worker| {
            let (stop, done, ca, who) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(ca), who.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                for n in who.clone().skip(worker).step_by(2).cycle() {
                    if stop.load(SeqCst) {
                        break;
                    }
                    let name = client(n);
                    if let Err(error) = knock(to, ca.path(&format!("issued/{name}")), words).await {
                        failed.push(format!("{name}: {error}"));
                    }
                    done.fetch_add(1, SeqCst);
                }
                failed
            })
        });
        let tasks = tasks.collect();
        Self { stop, done, tasks }
    }

    /// Waits for so many more.
    async fn more(&self, count: u64) {
        let wanted = self.done.load(SeqCst) + count;
        let more = until("handshakes", SOON * 4, async || (self.done.load(SeqCst) >= wanted).then_some(()));
        more.await.expect("somebody knocks");
    }

    async fn end(self, log: impl Fn() -> String) -> u64 {
        self.stop.store(true, SeqCst);
        let mut failed = Vec::new();
        for task in self.tasks {
            failed.extend(task.await.expect("no panic"));
        }
        let all = self.done.load(SeqCst);
        assert!(
            failed.is_empty(),
            "{} of {all} handshakes failed: {:?}\n{}",
            failed.len(),
            &failed[..failed.len().min(5)],
            log()
        );
        all
    }
}

/// Waits until this holds, which shows that the gateway has taken new files.
async fn taken(what: &str, log: impl Fn() -> String, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    let seen = until(what, SOON, async || holds().await.then_some(())).await;
    seen.unwrap_or_else(|error| panic!("{error}\n{}", log()));
    begun.elapsed()
}

/// A new root, and new leaves for everyone, as docs/ca.md has it. Nobody may notice.
async fn new_root_and_leaves(ca: &Arc<Ca>, to: SocketAddr, words: Talk, log: impl Fn() -> String) {
    ca_does(ca, &["rotate"]).await;
    // The first that has a leaf of the new root stands for all: before the gateway knows that root nobody may have one.
    ca_does(ca, &["issue", "canary"]).await;
    let canary = ca.path("issued/canary");
    let took = taken("the new root", &log, async || knock(to, canary.clone(), words).await.is_ok()).await;
    eprintln!("{words:?}: new root taken after {took:?}");
    ca_does(ca, &["renew", "--all"]).await;
    let server = leaf(&ca.path(&format!("issued/{SERVER}/cert.pem")));
    let took = taken("the new certificate", &log, async || {
        let Ok(stream) = knock(to, canary.clone(), words).await else { return false };
        stream.get_ref().1.peer_certificates().is_some_and(|chain| chain[0] == server)
    });
    eprintln!("{words:?}: new certificate taken after {:?}", took.await);
}

/// A WebSocket through a tunnel, used all the time.
struct Socket {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<u64, String>>,
}

impl Socket {
    async fn open(web: SocketAddr, host: &str) -> Self {
        let stream = TcpStream::connect(web).await.expect("it listens");
        let (mut socket, _) =
            tokio_tungstenite::client_async(format!("ws://{host}/ws"), stream).await.expect("a WebSocket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut echoes = 0_u64;
            while !stopped.load(SeqCst) {
                let sent = format!("message {echoes}");
                socket.send(sent.clone().into()).await.map_err(|error| format!("{sent}: {error}"))?;
                let heard =
                    timeout(SOON, socket.next()).await.map_err(|_elapsed| format!("{sent}: silence"))?;
                match heard {
                    Some(Ok(heard)) if heard.to_text().is_ok_and(|text| text == sent) => echoes += 1,
                    other => return Err(format!("{sent}: {other:?}")),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(echoes)
        });
        Self { stop, task }
    }

    async fn end(self, when: &str) {
        self.stop.store(true, SeqCst);
        let echoes = self.task.await.expect("no panic").unwrap_or_else(|why| panic!("{when}: {why}"));
        assert!(echoes > 0, "{when}: nothing went over it");
    }
}

async fn frpc(site: &Site, ca: &Ca, n: usize, host: &str, app: SocketAddr) -> Frpc {
    let home = ca.path(&format!("issued/{}", client(n)));
    let line = |key: &str, file: &str| format!("transport.tls.{key} = \"{}\"", home.join(file).display());
    let options = site
        .options(&format!("u{n}"), vec![Proxy::http("web", app, &[host])])
        .line(&line("certFile", "cert.pem"))
        .line(&line("keyFile", "key.pem"))
        .line(&line("trustedCaFile", "ca.pem"))
        .line(&format!("transport.tls.serverName = \"{SERVER}\""));
    let frpc = site.frpc(options).await;
    served(site, host).await;
    frpc
}

/// Visitors come while something is done; none may notice.
async fn unnoticed<T>(site: &Site, what: &str, act: impl Future<Output = T>) -> T {
    let (account, done) = visit(site.world.web, FRPC - 1, 40, act).await;
    let log = || site.world.gateway().log();
    let (failed, told) = (&account.failed, account.told);
    assert!(failed.is_empty() && told == 0, "{what}: {told} told, {failed:?}\n{}", log());
    eprintln!("{what}: {} requests, longest {:?}", account.served, account.quantile(1.0));
    done
}

#[tokio::test]
async fn frpc_with_certificates_outlive_leaf_and_root_and_are_refused_one_by_one() {
    let ca = spawn_blocking(fleet).await.expect("no panic");
    let site = Site::start(&["a", "b"], &settings(&ca), "").await;
    let (to, web) = (site.frp, site.world.web);
    let log = || site.world.gateway().log();
    let ledger = Ledger::default();
    let mut running = Vec::new();
    for n in 0..FRPC {
        let app = app("app", &ledger).await;
        running.push(frpc(&site, &ca, n, &format!("h{n}.test"), app).await);
    }
    let sockets = DemoApp::start("sockets").expect("it starts");
    running.push(frpc(&site, &ca, FRPC, "ws.test", sockets.addr()).await);

    // Files of one who is told of the new root, but gets no new leaf.
    let past = tempfile::tempdir().expect("a folder");
    let keep = |file: &str| {
        let from = ca.path(&format!("issued/{}/{file}", client(20)));
        std::fs::copy(from, past.path().join(file)).expect("copied");
    };
    keep("cert.pem");
    keep("key.pem");

    let knocking = Knocking::start(to, &ca, Talk::Frp, 0..CLIENTS);
    let socket = Socket::open(web, "ws.test").await;
    unnoticed(&site, "new root, new leaves", async {
        knocking.more(CLIENTS as u64).await;
        new_root_and_leaves(&ca, to, Talk::Frp, log).await;
        knocking.more(CLIENTS as u64).await;
    })
    .await;
    socket.end("while root and leaves change").await;
    keep("ca.pem");
    let judged = knock(to, past.path().to_owned(), Talk::Frp).await.map(drop);
    assert!(judged.is_ok(), "the old leaf is good until the end: {judged:?}");

    unnoticed(&site, "all dial again", async {
        for frps in ["a", "b"] {
            let (code, said) = command(&site, &["drain", frps, "--wait"]).await;
            assert_eq!(code, 0, "{said}\n{}", log());
            let (code, said) = command(&site, &["undrain", frps]).await;
            assert_eq!(code, 0, "{said}\n{}", log());
        }
    })
    .await;

    let socket = Socket::open(web, "ws.test").await;
    unnoticed(&site, "end of the old root", async {
        ca_does(&ca, &["rotate", "--finish"]).await;
        let old = past.path();
        let took = taken("the end of the old root", log, async || {
            knock(to, old.to_owned(), Talk::Frp).await.is_err()
        });
        eprintln!("old root refused after {:?}", took.await);
        knocking.more(CLIENTS as u64).await;
    })
    .await;
    let handshakes = knocking.end(log).await;
    assert_eq!(site.clients().await.iter().filter(|(user, _)| user.starts_with('u')).count(), FRPC + 1);

    // One is refused, nobody else.
    let known = regular(to, &ca, &client(FRPC - 1), Talk::Frp).await;
    let last = FRPC - 1;
    let user = format!("u{last}");
    let took = unnoticed(&site, "a revocation", async {
        ca_does(&ca, &["revoke", "edge-011", "--reason", "key-compromise"]).await;
        site.until_clients("the revoked client to be closed", |all| all.iter().all(|(one, _)| *one != user))
            .await;
        since_list(&ca)
    })
    .await;
    eprintln!("{handshakes} handshakes, none failed; closed {took:?} after the revocation");
    let refused = knock(to, ca.path(&format!("issued/{}", client(last))), Talk::Frp).await;
    assert!(refused.is_err(), "a new handshake of a revoked client");
    let resumed = return_with(to, &known, Talk::Frp).await;
    assert!(resumed.is_err(), "a revoked client comes back by a session: {resumed:?}");
    assert!(knock(to, ca.path(&format!("issued/{}", client(last + 1))), Talk::Frp).await.is_ok());
    socket.end("while others lose their trust").await;
    let all = site.clients().await;
    let left = all.iter().filter(|(user, _)| user.starts_with('u')).count();
    assert_eq!(left, FRPC, "the others are here, the revoked one isn't back: {all:?}");
}

/// A connection that is kept, with requests now and then.
struct Kept {
    name: String,
    stream: TlsStream<TcpStream>,
}

async fn keep_all(to: SocketAddr, ca: &Ca, log: impl Fn() -> String) -> Vec<Kept> {
    let mut all = Vec::new();
    for n in 0..CLIENTS {
        let name = client(n);
        let stream = knock(to, ca.path(&format!("issued/{name}")), Talk::Http).await;
        let stream = stream.unwrap_or_else(|error| panic!("{name}: {error}\n{}", log()));
        all.push(Kept { name, stream });
    }
    all
}

/// One more request on each.
async fn ask_all(all: &mut [Kept], when: &str) {
    for one in all {
        let answer = timeout(SOON, talk(&mut one.stream, Talk::Http)).await.expect("in time");
        answer.unwrap_or_else(|error| panic!("{when}: {} lost its connection: {error}", one.name));
    }
}

#[tokio::test]
async fn visitors_with_certificates_outlive_leaf_and_root_and_are_refused_one_by_one() {
    let ca = spawn_blocking(fleet).await.expect("no panic");
    let app = DemoApp::start("one").expect("it starts");
    let mut world = takeover::World::fleet(&["a"], "", |options| options).await;
    let listener = format!(
        "listeners:\n  - {{ name: secure, protocol: https, bind: \"127.0.0.1:0\", {} }}\n",
        settings(&ca)
    );
    world.instead.push(("listeners:\n".into(), listener));
    world.start_gateway().await;
    let _frpc = world.frpc(0, "u", vec![Proxy::http("web", app.addr(), &["app.test"])]).await;
    let to = world.gateway().listener("secure").await.expect("it listens");
    let log = || world.gateway().log();
    let first = ca.path(&format!("issued/{}", client(0)));
    taken("the tunnel", log, async || knock(to, first.clone(), Talk::Http).await.is_ok()).await;

    let knocking = Knocking::start(to, &ca, Talk::Http, 0..CLIENTS);
    let mut kept = keep_all(to, &ca, log).await;
    new_root_and_leaves(&ca, to, Talk::Http, log).await;
    ask_all(&mut kept, "after new leaves").await;
    // All but one dial again, then the old root ends.
    let mut late = kept.remove(0);
    kept = keep_all(to, &ca, log).await;
    ca_does(&ca, &["rotate", "--finish"]).await;
    let end = timeout(SOON, late.stream.read(&mut [0; 64])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "a connection by the old root: {end:?}\n{}", log());
    knocking.more(CLIENTS as u64).await;
    ask_all(&mut kept, "after the end of the old root").await;
    let handshakes = knocking.end(log).await;

    let known = regular(to, &ca, "edge-100", Talk::Http).await;
    ca_does(&ca, &["revoke", "edge-100"]).await;
    let mut revoked = kept.remove(99);
    assert_eq!(revoked.name, "edge-100");
    let end = timeout(SOON, revoked.stream.read(&mut [0; 64])).await;
    let took = since_list(&ca);
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "an idle connection of a revoked client: {end:?}\n{}", log());
    assert!(knock(to, ca.path("issued/edge-100"), Talk::Http).await.is_err(), "its new handshake");
    let resumed = return_with(to, &known, Talk::Http).await;
    assert!(resumed.is_err(), "a revoked client comes back by a session: {resumed:?}");
    ask_all(&mut kept, "after somebody else's revocation").await;
    eprintln!("{handshakes} handshakes, none failed; closed {took:?} after the revocation");
}
