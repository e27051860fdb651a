//! Applications that speak bytes, real tunnels to them, and a gateway with listeners for whole connections.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    reason = "each test file uses its own part"
)]

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use frp_gateway_loadtest::lab::{
    Frpc, FrpcOptions, Frps, FrpsOptions, Gateway, GatewayOptions, Proxy, until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

/// Longest wait for anything; only a failing test waits so long.
pub const SOON: Duration = Duration::from_secs(20);

/// What an application does with each of its connections.
pub type Manner = Arc<dyn Fn(TcpStream) -> JoinHandle<()> + Send + Sync>;

/// An application on a port of loopback.
pub struct App {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl App {
    pub async fn start(manner: impl Fn(TcpStream) -> JoinHandle<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let manner: Manner = Arc::new(manner);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream.set_nodelay(true));
                manner(stream);
            }
        });
        Self { address, task }
    }

    /// Says `name` and a line feed at once, then gives back what it gets, and ends when the visitor does.
    pub async fn greeter(name: &'static str) -> Self {
        Self::start(move |mut stream| {
            tokio::spawn(async move {
                if stream.write_all(format!("{name}\n").as_bytes()).await.is_err() {
                    return;
                }
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
                drop(stream.shutdown().await);
            })
        })
        .await
    }

    /// Reads all that comes, and then answers with its name, a line feed, and everything.
    pub async fn collector(name: &'static str) -> Self {
        Self::start(move |mut stream| {
            tokio::spawn(async move {
                let mut all = format!("{name}\n").into_bytes();
                if stream.read_to_end(&mut all).await.is_ok() {
                    drop(stream.write_all(&all).await);
                    drop(stream.shutdown().await);
                }
            })
        })
        .await
    }
}

/// An frps with an frpc of which every tunnel is up.
pub struct Site {
    pub name: &'static str,
    pub frps: Frps,
    pub frpc: Frpc,
}

impl Site {
    pub async fn start(name: &'static str, proxies: Vec<Proxy>) -> Self {
        let frps = Frps::start(FrpsOptions::new(name)).await.expect("frps starts");
        let mut options = FrpcOptions::new(&frps);
        for proxy in proxies {
            options = options.proxy(proxy);
        }
        let frpc = Frpc::start(options).await.expect("frpc starts");
        Self { name, frps, frpc }
    }

    /// The remote port of one of its tunnels.
    pub async fn port(&self, proxy: &str) -> u16 {
        let all = self.frpc.statuses().await.expect("frpc answers");
        let one = all.iter().find(|status| status.name == proxy).expect("it has this proxy");
        one.remote_address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// The entry for `frps:`; `admin`: what it says of its tunnels is known.
    pub fn entry(&self, admin: bool) -> String {
        let https = self.frps.https().port();
        if admin {
            let whole = self.frps.yaml();
            let whole = whole.strip_suffix(" }").expect("flow style");
            let whole = whole.replace("password: lab }", "password: lab, interval: 200ms }");
            format!("{whole}, vhost_https_port: {https} }}")
        } else {
            format!("{{ name: {}, host: 127.0.0.1, vhost_https_port: {https} }}", self.name)
        }
    }
}

/// A gateway with these frps entries, listeners, and the rest.
pub async fn gateway(frps: &[String], listeners: &[&str], rest: &str) -> Gateway {
    let yaml = yaml(frps, listeners, rest);
    Gateway::start_with(GatewayOptions::new(env!("CARGO_BIN_EXE_frp-gateway"), &yaml))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

pub fn yaml(frps: &[String], listeners: &[&str], rest: &str) -> String {
    let (frps, listeners) = (frps.join("\n  - "), listeners.join("\n  - "));
    format!(
        "runtime: {{ workers: 2, drain_timeout: 2s }}\nlisteners:\n  - {listeners}\nfrps:\n  - {frps}\n{rest}\n"
    )
}

/// One line, without its end; `None` when the connection ended or broke before.
pub async fn line(stream: &mut TcpStream) -> Option<String> {
    let mut line = Vec::new();
    let read = async {
        loop {
            match stream.read_u8().await {
                Ok(b'\n') => return String::from_utf8(line).ok(),
                Ok(byte) => line.push(byte),
                Err(_) => return None,
            }
        }
    };
    timeout(SOON, read).await.expect("a line in time")
}

/// Who serves one connection that greets.
pub async fn greeting(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    line(&mut stream).await
}

/// Who serves `count` connections, one after the other.
pub async fn shares(address: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(greeting(address).await.unwrap_or_else(|| "nobody".into())).or_default() += 1;
    }
    shares
}

/// Waits until so many members of a pool are known to the gateway.
pub async fn members(gateway: &Gateway, pool: &str, count: usize) {
    until(&format!("{count} members of {pool}"), SOON, async || {
        let pools = gateway.api("/api/v1/pools").await.ok()?;
        let found = pools.as_array()?.iter().find(|one| one["name"] == pool)?;
        let endpoints = found["members"].as_array()?.len();
        (endpoints == count).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
}

/// All that comes until the end, and whether the end was a reset.
pub async fn rest(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut block = [0; 4096];
    loop {
        match timeout(SOON, stream.read(&mut block)).await.expect("an end in time") {
            Ok(0) => return (all, false),
            Ok(n) => all.extend_from_slice(&block[..n]),
            Err(_) => return (all, true),
        }
    }
}
