//! Applications that die and come back, hold their answers, and say who they are; and short ways to ask them.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test file uses its own part"
)]

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use frp_gateway_loadtest::{
    http::{self, empty},
    lab::{FreePorts, Gateway},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Semaphore, oneshot},
    task::{JoinHandle, JoinSet},
};

use super::common::{Endpoint, Wire, field, get, ok, status};

/// An answer as a visitor sees it.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// The class of an answer that is the gateway's own; empty for an application's.
    pub fn class(&self) -> &str {
        field(&self.head, "x-frp-gateway").unwrap_or_default()
    }

    /// All `Set-Cookie` lines, values only.
    pub fn set_cookies(&self) -> Vec<&str> {
        self.head.lines().filter_map(|line| line.strip_prefix("Set-Cookie: ")).collect()
    }

    /// The affinity cookie that was set, as a browser would send it back: `gw=…`.
    pub fn session(&self) -> Option<String> {
        let line = self.set_cookies().into_iter().find(|line| line.starts_with("gw="))?;
        Some(line.split(';').next().unwrap_or_default().to_owned())
    }
}

/// Sends `request`, reads its answer (one with Content-Length).
pub async fn ask(visitor: &mut Wire, request: &str) -> Reply {
    visitor.send(request).await;
    reply(visitor, request.starts_with("HEAD")).await
}

/// Reads an answer.
pub async fn reply(visitor: &mut Wire, bodyless: bool) -> Reply {
    let (head, body) = visitor.response(bodyless).await;
    Reply { status: status(&head), body: String::from_utf8_lossy(&body).into_owned(), head }
}

/// As [`ask`], on a connection of its own.
pub async fn ask_once(address: SocketAddr, request: &str) -> Reply {
    ask(&mut Wire::connect(address).await, request).await
}

/// A GET with further header lines, each with its CR LF.
pub fn get_with(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n")
}

/// A GET of `/` with this `Cookie` field.
pub fn with_cookie(cookie: &str) -> String {
    get_with("/", &format!("Cookie: {cookie}\r\n"))
}

/// A POST with a body.
pub const POST: &str = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi";

/// A connection from this address of the loopback net.
pub async fn connect_from(ip: &str, to: SocketAddr) -> Wire {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), 0)).expect("bound");
    Wire::new(socket.connect(to).await.expect("the gateway listens"))
}

/// An endpoint that answers everything with its own name.
pub async fn named(name: &'static str) -> Endpoint {
    Endpoint::answering(ok(name)).await
}

/// The entry for `frps:`; `more` is `, key: value`.
pub fn frps(name: &str, address: SocketAddr, more: &str) -> String {
    format!("{{ name: {name}, host: 127.0.0.1, vhost_http_port: {}{more} }}", address.port())
}

/// A configuration: listener `web`, pool `p`, a route for everything. `listener` and `pool` are `, key: value`.
pub fn setup(workers: usize, frps: &[String], listener: &str, pool: &str, rest: &str) -> String {
    format!(
        "runtime: {{ workers: {workers} }}\nfrps:\n  - {}\n\
         listeners:\n  - {{ name: web, bind: \"127.0.0.1:0\", protocol: http{listener} }}\n\
         pools:\n  - {{ name: p{pool} }}\n\
         routes:\n  - {{ name: r, pool: p, timeout: 30s }}\n{rest}",
        frps.join("\n  - ")
    )
}

/// A gateway with this configuration, and the address of its listener `web`.
pub async fn start(text: &str) -> (Gateway, SocketAddr) {
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), text).await.expect("the gateway starts");
    let address = gateway.listener("web").await.expect("it has a listener");
    (gateway, address)
}

/// Writes `text` and has it in force when it returns.
pub async fn apply(gateway: &Gateway, text: &str) {
    gateway.edit(text).expect("written");
    let request = http::request("POST", "gateway", "/api/v1/reload").body(empty());
    let reply = http::send(gateway.admin(), request).await.expect("the API answers");
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// The value of a metric; one that was never touched is 0.
pub async fn metric(gateway: &Gateway, name: &str, labels: &[&str]) -> f64 {
    gateway.metric(&format!("frp_gateway_{name}"), labels).await.expect("metrics").unwrap_or_default()
}

/// How many of `count` GETs on one connection each of `names` answered, in the order of `names`.
pub async fn shares<const N: usize>(address: SocketAddr, names: [&str; N], count: usize) -> [usize; N] {
    let mut visitor = Wire::connect(address).await;
    let mut counts = [0; N];
    for _ in 0..count {
        let reply = ask(&mut visitor, &get("/")).await;
        let at = names.iter().position(|name| *name == reply.body);
        assert!(at.is_some(), "none of {names:?}: {} {}", reply.head, reply.body);
        counts[at.unwrap_or_default()] += 1;
    }
    counts
}

type Answer = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

/// An application that can die, with its listener and all connections, and come back at the same port.
pub struct App {
    pub name: &'static str,
    pub address: SocketAddr,
    answer: Answer,
    seen: Arc<Mutex<Vec<String>>>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    _port: FreePorts,
}

impl App {
    /// Answers everything with its name.
    pub async fn start(name: &'static str) -> Self {
        Self::answering(name, move |_| async move { ok(name) }).await
    }

    /// Answers every request with what `answer` makes of it.
    pub async fn answering<F, Fut>(name: &'static str, answer: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = String> + Send + 'static,
    {
        let mut ports = FreePorts::new();
        let address = SocketAddr::from(([127, 0, 0, 1], ports.take().expect("a free port")));
        let answer: Answer = Arc::new(move |request| Box::pin(answer(request)));
        let mut app = Self { name, address, answer, seen: Arc::default(), running: None, _port: ports };
        app.come_back().await;
        app
    }

    /// The requests it has got.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// Nobody listens any more, and every connection is closed, when this returns.
    pub async fn die(&mut self) {
        let (stop, task) = self.running.take().expect("it lives");
        drop(stop);
        task.await.expect("it ends");
    }

    /// It listens again.
    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is ours");
        let (answer, seen) = (Arc::clone(&self.answer), Arc::clone(&self.seen));
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let stream = tokio::select! {
                    _ = &mut stopped => break,
                    accepted = listener.accept() => accepted.expect("accepted").0,
                };
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                connections.spawn(async move {
                    let mut wire = Wire::new(stream);
                    while let Some(request) = wire.request().await {
                        seen.lock().expect("not poisoned").push(request.clone());
                        if !wire.try_send(answer(request).await).await {
                            return;
                        }
                    }
                });
            }
            drop(listener);
            connections.shutdown().await;
        });
        self.running = Some((stop, task));
    }
}

/// What goes on at a [`gated`] endpoint.
pub struct Gate {
    running: AtomicUsize,
    peak: AtomicUsize,
    entered: Mutex<Vec<String>>,
    doors: Semaphore,
}

impl Gate {
    /// Requests that run.
    pub fn running(&self) -> usize {
        self.running.load(SeqCst)
    }

    /// Most that ever ran at once.
    pub fn peak(&self) -> usize {
        self.peak.load(SeqCst)
    }

    /// Paths of the requests that came, in order.
    pub fn entered(&self) -> Vec<String> {
        self.entered.lock().expect("not poisoned").clone()
    }

    /// Lets so many requests end.
    pub fn release(&self, count: usize) {
        self.doors.add_permits(count);
    }
}

/// An endpoint whose answers (its name) wait for [`Gate::release`].
pub async fn gated(name: &'static str) -> (Endpoint, Arc<Gate>) {
    let gate = Arc::new(Gate {
        running: AtomicUsize::new(0),
        peak: AtomicUsize::new(0),
        entered: Mutex::default(),
        doors: Semaphore::new(0),
    });
    let inner = Arc::clone(&gate);
    let endpoint = Endpoint::scripted(move |mut wire, _, _| {
        let gate = Arc::clone(&inner);
        async move {
            while let Some(request) = wire.request().await {
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                gate.entered.lock().expect("not poisoned").push(path);
                let now = gate.running.fetch_add(1, SeqCst) + 1;
                gate.peak.fetch_max(now, SeqCst);
                gate.doors.acquire().await.expect("open").forget();
                gate.running.fetch_sub(1, SeqCst);
                if !wire.try_send(ok(name)).await {
                    return;
                }
            }
        }
    })
    .await;
    (endpoint, gate)
}
