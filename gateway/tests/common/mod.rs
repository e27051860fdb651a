//! A gateway process between scripted endpoints and raw visitors: tests say exactly which bytes go where.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test file uses its own part"
)]

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use frp_gateway_loadtest::lab::Gateway;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

/// Longest wait for anything; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A raw socket with deadlines and a memory of what it has read too much.
pub struct Wire {
    pub stream: TcpStream,
    rest: Vec<u8>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, rest: Vec::new() }
    }

    pub async fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect(to).await.expect("the gateway listens"))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("sent in time").expect("sent");
    }

    /// Sends; an error is fine (the other side may have closed).
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        matches!(timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await, Ok(Ok(())))
    }

    async fn more(&mut self) -> usize {
        let mut block = vec![0; 16 * 1024];
        let n = timeout(PATIENCE, self.stream.read(&mut block)).await.expect("bytes in time").unwrap_or(0);
        self.rest.extend_from_slice(&block[..n]);
        n
    }

    /// Up to and with `end`; whatever there was when the connection ended.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.rest.windows(end.len()).position(|window| window == end) {
                return self.rest.drain(..at + end.len()).collect();
            }
            if self.more().await == 0 {
                return std::mem::take(&mut self.rest);
            }
        }
    }

    /// A head, as text.
    pub async fn head(&mut self) -> String {
        String::from_utf8(self.until(b"\r\n\r\n").await).expect("heads are text")
    }

    /// Exactly `n` bytes, fewer when the connection ends.
    pub async fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.rest.len() < n && self.more().await > 0 {}
        let n = n.min(self.rest.len());
        self.rest.drain(..n).collect()
    }

    /// Everything until the connection ends.
    pub async fn all(&mut self) -> String {
        while self.more().await > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned()
    }

    /// A whole response with Content-Length (or none, for 204/304/HEAD: `bodyless`).
    pub async fn response(&mut self, bodyless: bool) -> (String, Vec<u8>) {
        let head = self.head().await;
        let length = field(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let body = if bodyless { Vec::new() } else { self.bytes(length).await };
        (head, body)
    }

    /// Whether the other side has ended the connection (end or reset).
    pub async fn is_ended(&mut self) -> bool {
        self.rest.is_empty() && self.more().await == 0
    }

    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("linger");
    }
}

/// The value of a header field.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status of a response head.
pub fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// An endpoint that does what the test says. Remembers every byte it got.
pub struct Endpoint {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    /// Runs `script(wire, n)` for the n-th connection, from 0. `script` returns what it wants remembered.
    pub async fn scripted<F, Fut>(script: F) -> Self
    where
        F: Fn(Wire, usize, Notes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (count, notes) = (Arc::clone(&connections), Notes(Arc::clone(&seen)));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let n = count.fetch_add(1, SeqCst);
                tokio::spawn(script(Wire::new(stream), n, notes.clone()));
            }
        });
        Self { address, connections, seen, task }
    }

    /// Answers every request that has no body, or one with Content-Length, with these bytes.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::scripted(move |mut wire, _, notes| {
            let answer = answer.clone();
            async move {
                while let Some(request) = wire.request().await {
                    notes.add(request);
                    if !wire.try_send(&answer).await {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// What the script has noted.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

/// A script's memory, read by [`Endpoint::seen`].
#[derive(Clone)]
pub struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub fn count(&self) -> usize {
        self.0.lock().expect("not poisoned").len()
    }

    pub fn add(&self, note: impl Into<String>) {
        self.0.lock().expect("not poisoned").push(note.into());
    }
}

impl Wire {
    /// A request with its Content-Length body; `None` when the connection ends.
    pub async fn request(&mut self) -> Option<String> {
        let head = self.head().await;
        if !head.ends_with("\r\n\r\n") {
            return None;
        }
        let length = field(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let body = self.bytes(length).await;
        Some(format!("{head}{}", String::from_utf8_lossy(&body)))
    }
}

/// A gateway with one listener `web`, one pool `p` of these endpoints named e0, e1 …, one route for everything.
///
/// `pool` and `listener` are further keys, as `key: value, key: value`.
pub async fn gateway(endpoints: &[&Endpoint], pool: &str, listener: &str) -> (Gateway, SocketAddr) {
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), &yaml(endpoints, pool, listener, "30s"))
        .await
        .expect("the gateway starts");
    let address = gateway.listener("web").await.expect("it has a listener");
    (gateway, address)
}

/// The configuration of [`gateway`].
pub fn yaml(endpoints: &[&Endpoint], pool: &str, listener: &str, timeout: &str) -> String {
    let mut text = String::from("runtime: { workers: 1 }\nfrps:\n");
    for (index, endpoint) in endpoints.iter().enumerate() {
        text += &format!(
            "  - {{ name: e{index}, host: 127.0.0.1, vhost_http_port: {} }}\n",
            endpoint.address.port()
        );
    }
    let comma = |more: &str| if more.is_empty() { String::new() } else { format!(", {more}") };
    text += &format!(
        "listeners:\n  - {{ name: web, bind: \"127.0.0.1:0\", protocol: http{} }}\n",
        comma(listener)
    );
    text += &format!("pools:\n  - {{ name: p, frps: all{} }}\n", comma(pool));
    text += &format!("routes:\n  - {{ name: r, pool: p, timeout: {timeout} }}\n");
    text
}

/// A minimal request.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n")
}

/// An answer with this body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
