//! Visitors that never stop asking: some keep their connection as long as they are let, some open one for each request.
//! They behave as HTTP/1.1 wants and forgive nothing: a refused connect, a reset, a close without a word, anything but
//! the expected answer is a failure.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test file uses its own part"
)]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use frp_gateway_loadtest::lab::until;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

/// Longest wait for anything; only a failing test waits so long.
pub const SOON: Duration = Duration::from_secs(30);

pub struct Visitors {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    served: AtomicUsize,
    connections: AtomicUsize,
    failed: Mutex<Vec<String>>,
    longest: Mutex<Duration>,
}

/// What they got.
#[derive(Debug)]
pub struct Tally {
    pub served: usize,
    pub connections: usize,
    pub failed: Vec<String>,
    /// The longest that one of them waited for an answer, its connect included.
    pub longest: Duration,
}

impl Visitors {
    /// `kept` that keep their connections, `short` that don't, each asking for `GET /` of `host`.
    pub fn start(address: SocketAddr, host: &'static str, kept: usize, short: usize) -> Self {
        let shared = Arc::<Shared>::default();
        let visitor = |keep| tokio::spawn(visit(address, host, keep, Arc::clone(&shared)));
        let tasks = (0..kept).map(|_| visitor(true)).chain((0..short).map(|_| visitor(false))).collect();
        Self { shared, tasks }
    }

    pub fn served(&self) -> usize {
        self.shared.served.load(Relaxed)
    }

    /// Waits until so many more requests were served.
    pub async fn more(&self, count: usize) {
        let wanted = self.served() + count;
        let reached = until("requests to be served", SOON, async || (self.served() >= wanted).then_some(()));
        let reached = reached.await;
        assert!(reached.is_ok(), "{} of {wanted} served: {:?}", self.served(), self.shared.failed.lock());
    }

    pub async fn stop(self) -> Tally {
        self.shared.ended.store(true, SeqCst);
        for task in self.tasks {
            task.await.expect("a visitor doesn't panic");
        }
        Tally {
            served: self.shared.served.load(SeqCst),
            connections: self.shared.connections.load(SeqCst),
            failed: std::mem::take(&mut *self.shared.failed.lock().expect("not poisoned")),
            longest: *self.shared.longest.lock().expect("not poisoned"),
        }
    }
}

async fn visit(address: SocketAddr, host: &'static str, keep: bool, shared: Arc<Shared>) {
    let mut kept: Option<TcpStream> = None;
    while !shared.ended.load(Relaxed) {
        let begun = Instant::now();
        let fresh = kept.is_none();
        let asked = timeout(SOON, ask(address, host, keep, kept.take(), &shared)).await;
        match asked.unwrap_or_else(|_| Err("no answer".to_owned())) {
            Ok(again) => {
                kept = again;
                shared.served.fetch_add(1, Relaxed);
                let mut longest = shared.longest.lock().expect("not poisoned");
                *longest = begun.elapsed().max(*longest);
            }
            Err(error) => {
                let how = match (keep, fresh) {
                    (true, true) => "first on a kept connection",
                    (true, false) => "later on a kept connection",
                    (false, _) => "short connection",
                };
                shared.failed.lock().expect("not poisoned").push(format!("{how}: {error}"));
            }
        }
    }
}

/// One request; the connection, if it may be used again.
async fn ask(
    address: SocketAddr,
    host: &str,
    keep: bool,
    kept: Option<TcpStream>,
    shared: &Shared,
) -> Result<Option<TcpStream>, String> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
            shared.connections.fetch_add(1, Relaxed);
            stream.set_nodelay(true).map_err(|error| format!("nodelay: {error}"))?;
            stream
        }
    };
    let close = if keep { "" } else { "Connection: close\r\n" };
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{close}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("send: {error}"))?;
    let mut answer = Vec::new();
    loop {
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&answer[..head]).to_lowercase();
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.and_then(|length| length.parse().ok()).ok_or("no length")?;
            if answer.len() >= head + length {
                if !text.starts_with("http/1.1 200 ") {
                    return Err(format!("answer: {}", String::from_utf8_lossy(&answer)));
                }
                let closes = text.contains("connection: close");
                return Ok((keep && !closes).then_some(stream));
            }
        }
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Err(format!("closed after {} bytes", answer.len())),
            Ok(_) => {}
            Err(error) => return Err(format!("read: {error} after {} bytes", answer.len())),
        }
    }
}
