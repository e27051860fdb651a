//! Real frps with an application behind each, and visitors that never stop asking.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test file uses its own part"
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use frp_gateway_loadtest::{
    demo::DemoApp,
    http::{self, Connection, Reply},
    lab::{Frpc, FrpcOptions, Frps, FrpsOptions, Gateway, Proxy, Version, until},
};
use tokio::task::JoinHandle;

/// Longest wait for anything; only a failing test waits so long.
pub const SOON: Duration = Duration::from_secs(30);

/// An frps, an frpc on it, and the application behind: all called `name`, the tunnel `web`.
pub struct Site {
    pub name: &'static str,
    pub frps: Frps,
    pub frpc: Frpc,
    pub app: DemoApp,
}

impl Site {
    pub async fn start(name: &'static str, version: Version, domains: &[&str]) -> Self {
        let app = DemoApp::start(name).expect("an application");
        let mut frps = Frps::start(FrpsOptions::new(name).version(version)).await.expect("frps starts");
        let frpc = tunnel(&mut frps, Proxy::http("web", app.addr(), domains)).await;
        Self { name, frps, frpc, app }
    }
}

/// An frpc on `frps` with one proxy, which is live when this returns.
pub async fn tunnel(frps: &mut Frps, proxy: Proxy) -> Frpc {
    let frpc = Frpc::start(FrpcOptions::new(frps).proxy(proxy)).await.expect("frpc starts");
    let names = frpc.proxy_names();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    frps.wait_online(&names, SOON).await.expect("the tunnel is live");
    frpc
}

/// The entry for `frps:` without its admin API: nothing is known beforehand.
pub fn bare(name: &str, frps: &Frps) -> String {
    format!("{{ name: {name}, host: 127.0.0.1, vhost_http_port: {} }}", frps.http().port())
}

/// A gateway on port 0 of loopback with these entries of `frps:`; `rest` is `pools:`, `routes:` and so on.
pub async fn gateway(frps: &[String], rest: &str) -> (Gateway, SocketAddr) {
    let yaml = format!(
        "runtime: {{ workers: 2 }}\nlisteners:\n  - {{ name: web, bind: \"127.0.0.1:0\" }}\nfrps:\n  - {}\n{rest}\n",
        frps.join("\n  - ")
    );
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), &yaml).await.expect("the gateway starts");
    let address = gateway.listener("web").await.expect("it has a listener");
    (gateway, address)
}

/// The value of a metric; one that was never touched is 0.
pub async fn metric(gateway: &Gateway, name: &str, labels: &[&str]) -> f64 {
    gateway.metric(name, labels).await.expect("metrics").unwrap_or_default()
}

/// Sends one request on a connection of its own.
pub async fn ask(address: SocketAddr, method: &str, host: &str, path: &str, body: http::Body) -> Reply {
    http::send(address, http::request(method, host, path).body(body)).await.expect("an answer")
}

/// Status, who answered, and the class of an answer that is our own: what a test mostly wants to know.
pub fn gist(reply: &Reply) -> (u16, &str, &str) {
    (reply.status, reply.app().unwrap_or("-"), reply.header("x-frp-gateway").unwrap_or("-"))
}

/// Visitors that GET one path on kept connections, again and again, until they are stopped.
pub struct Load {
    tally: Arc<Mutex<Tally>>,
    ended: Arc<AtomicBool>,
    visitors: Vec<JoinHandle<()>>,
}

/// What a [`Load`] got.
#[derive(Debug, Default)]
pub struct Tally {
    /// 200s of applications, by name of the application.
    pub served: BTreeMap<String, usize>,
    /// Everything else, in words.
    pub failed: Vec<String>,
}

impl Tally {
    pub fn total(&self) -> usize {
        self.served.values().sum()
    }

    pub fn of(&self, app: &str) -> usize {
        self.served.get(app).copied().unwrap_or_default()
    }
}

impl Load {
    pub fn start(address: SocketAddr, host: &'static str, path: &'static str, visitors: usize) -> Self {
        let tally = Arc::<Mutex<Tally>>::default();
        let ended = Arc::<AtomicBool>::default();
        let visitors = (0..visitors)
            .map(|_| tokio::spawn(visit(address, host, path, Arc::clone(&tally), Arc::clone(&ended))))
            .collect();
        Self { tally, ended, visitors }
    }

    /// 200s of this application so far.
    pub fn served_by(&self, app: &str) -> usize {
        self.tally.lock().expect("not poisoned").of(app)
    }

    /// Waits until so many more requests were served.
    pub async fn more(&self, count: usize) {
        let total = || self.tally.lock().expect("not poisoned").total();
        let wanted = total() + count;
        let reached = until("requests to be served", SOON, async || (total() >= wanted).then_some(())).await;
        assert!(reached.is_ok(), "{} of {wanted} served: {:?}", total(), self.tally.lock());
    }

    /// Waits until `app` has served so many more requests; how long that took.
    pub async fn more_by(&self, app: &str, count: usize) -> Duration {
        let begun = std::time::Instant::now();
        let wanted = self.served_by(app) + count;
        until(&format!("traffic for {app}"), SOON, async || (self.served_by(app) >= wanted).then_some(()))
            .await
            .expect("it gets traffic");
        begun.elapsed()
    }

    pub async fn stop(self) -> Tally {
        self.ended.store(true, SeqCst);
        for visitor in self.visitors {
            visitor.await.expect("a visitor does not panic");
        }
        std::mem::take(&mut *self.tally.lock().expect("not poisoned"))
    }
}

async fn visit(
    address: SocketAddr,
    host: &'static str,
    path: &'static str,
    tally: Arc<Mutex<Tally>>,
    ended: Arc<AtomicBool>,
) {
    let mut kept = None;
    while !ended.load(SeqCst) {
        let answer = match kept.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(address).await,
        };
        let answer = match answer {
            Ok(mut connection) => {
                let reply = connection.send(http::request("GET", host, path).body(http::empty())).await;
                kept = reply.is_ok().then_some(connection);
                reply
            }
            Err(error) => Err(error),
        };
        let mut tally = tally.lock().expect("not poisoned");
        match answer {
            Ok(reply) if reply.status == 200 && reply.app().is_some() => {
                *tally.served.entry(reply.app().unwrap_or_default().to_owned()).or_default() += 1;
            }
            Ok(reply) => tally.failed.push(format!("{:?} {}", gist(&reply), reply.text())),
            Err(error) => tally.failed.push(error.to_string()),
        }
    }
}
