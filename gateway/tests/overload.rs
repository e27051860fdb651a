//! Too much at once: what is above a bound is refused fast and told when to come back, and the rest goes on as before. Running out of
//! descriptors neither crashes nor spins.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test shows why, and a good one what it measured"
)]

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use frp_gateway_loadtest::{
    demo::DemoApp,
    http,
    lab::{Gateway, GatewayOptions, until},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
    task::JoinSet,
};

const BINARY: &str = env!("CARGO_BIN_EXE_frp-gateway");
const SOON: Duration = Duration::from_secs(30);
/// Those that measure how much is served take turns: each needs all of a small machine.
static TURN: Mutex<()> = Mutex::const_new(());
/// Something else may have had the machine: a comparison is made again before it counts.
const ROUNDS: usize = 4;

/// A gateway before one application; `limits` go to listener, route and frps.
async fn gateway(
    app: SocketAddr,
    listener: &str,
    route: &str,
    frps: &str,
    pool: &str,
) -> (Gateway, SocketAddr) {
    let text = format!(
        "runtime: {{ workers: 2 }}\nfrps: [ {{ name: a, host: {}, vhost_http_port: {}{frps} }} ]\n\
         listeners: [ {{ name: web, bind: \"127.0.0.1:0\"{listener} }} ]\n\
         pools: [ {{ name: all{pool} }} ]\nroutes: [ {{ pool: all{route} }} ]\n",
        app.ip(),
        app.port()
    );
    let gateway = Gateway::start_with(GatewayOptions::new(BINARY, &text)).await.expect("the gateway starts");
    let address = gateway.listener("web").await.expect("a listener");
    (gateway, address)
}

/// What came of a load.
#[derive(Debug, Default)]
struct Outcome {
    served: u64,
    refused: u64,
    other: u64,
    refusals: Vec<Duration>,
}

/// What a load of what is allowed and one of three times as much came to.
struct Compared {
    peak: Outcome,
    over: Outcome,
}

impl Compared {
    /// How long the refusal in the middle took.
    fn median(&self) -> Duration {
        self.over.refusals.get(self.over.refusals.len() / 2).copied().unwrap_or(Duration::MAX)
    }

    fn keeps_the_peak(&self) -> bool {
        self.over.served * 10 >= self.peak.served * 9
    }

    /// What is so at every moment of a machine, quiet or not; tells whether the moment was good enough for the rest.
    fn is_settled(&self, what: &str, fast: Duration, gateway: &Gateway) -> bool {
        let (peak, over, median) = (&self.peak, &self.over, self.median());
        let p99 = over.refusals.get(over.refusals.len() * 99 / 100);
        println!(
            "{what}: {} served, {} refused; three times as much: {} served, {} refused after {median:?} (p99 {p99:?})",
            peak.served, peak.refused, over.served, over.refused
        );
        assert_eq!((peak.other, over.other), (0, 0), "{what}: {}", gateway.log());
        assert!(over.refused > 0, "{what}: somebody was too many");
        self.keeps_the_peak() && median < fast
    }
}

/// Compares until a moment was good enough, at most [`ROUNDS`] times.
async fn settle(what: &str, fast: Duration, gateway: &Gateway, mut compare: impl AsyncFnMut() -> Compared) {
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let compared = compare().await;
        if compared.is_settled(what, fast, gateway) {
            return;
        }
        seen.push((compared.peak.served, compared.over.served, compared.median()));
    }
    panic!("{what}: less than 90 % of the peak is served, or refusals take longer than {fast:?}: {seen:?}");
}

/// So many visitors that ask one after the other, for so long.
async fn load(address: SocketAddr, visitors: usize, ms: u32, time: Duration) -> Outcome {
    let end = Instant::now() + time;
    let mut all = JoinSet::new();
    for _ in 0..visitors {
        all.spawn(async move {
            let mut outcome = Outcome::default();
            let mut connection = http::Connection::open(address).await.expect("it listens");
            while Instant::now() < end {
                let begun = Instant::now();
                let request = http::request("GET", "h.test", &format!("/slow?ms={ms}")).body(http::empty());
                match connection.send(request).await {
                    Ok(reply) if reply.status == 200 => outcome.served += 1,
                    Ok(reply) if reply.status == 503 && reply.header("retry-after").is_some() => {
                        outcome.refused += 1;
                        outcome.refusals.push(begun.elapsed());
                        // As a visitor who was told to come back later.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Ok(_) => outcome.other += 1,
                    Err(_) => {
                        outcome.other += 1;
                        connection = http::Connection::open(address).await.expect("it listens");
                    }
                }
            }
            outcome
        });
    }
    let mut sum = Outcome::default();
    while let Some(one) = all.join_next().await {
        let one = one.expect("no panic");
        sum.served += one.served;
        sum.refused += one.refused;
        sum.other += one.other;
        sum.refusals.extend(one.refusals);
    }
    sum.refusals.sort();
    sum
}

#[tokio::test]
async fn three_times_the_load_keeps_the_goodput_of_the_peak() {
    let _turn = TURN.lock().await;
    let app = DemoApp::start("app").expect("an application");
    for (what, listener, route, frps, pool) in [
        ("listener", ", limits: { in_flight: 200 }", "", "", ""),
        ("route", "", ", limits: { in_flight: 200 }", "", ""),
        ("frps", "", "", ", limits: { in_flight: 200 }", ", limits: { queue: off }"),
        ("pool", "", "", "", ", limits: { in_flight: 200, queue: off }"),
    ] {
        let (gateway, address) = gateway(app.addr(), listener, route, frps, pool).await;
        let time = Duration::from_secs(2);
        // 2 to 4 ms on a quiet machine, most of it the 600 visitors', which share its two cores.
        settle(what, Duration::from_millis(40), &gateway, async || Compared {
            peak: load(address, 200, 50, time).await,
            over: load(address, 600, 50, time).await,
        })
        .await;
    }
}

/// So many requests a second, one every so often, whether or not earlier ones are answered: who is refused doesn't come back, and
/// nobody waits for anybody. Each has a connection of its own, and counts from when it was due.
async fn arrivals(address: SocketAddr, rate: u32, ms: u32, time: Duration) -> Outcome {
    let mut every = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut all = JoinSet::new();
    for _ in 0..u128::from(rate) * time.as_millis() / 1000 {
        // One that is late doesn't delay the next ones: the rate holds whatever the gateway does.
        let due = every.tick().await;
        all.spawn(async move {
            let request = http::request("GET", "h.test", &format!("/slow?ms={ms}")).body(http::empty());
            (http::send(address, request).await, due.elapsed())
        });
    }
    let mut sum = Outcome::default();
    while let Some(one) = all.join_next().await {
        match one.expect("no panic") {
            (Ok(reply), _) if reply.status == 200 => sum.served += 1,
            (Ok(reply), took) if reply.status == 503 && reply.header("retry-after").is_some() => {
                sum.refused += 1;
                sum.refusals.push(took);
            }
            _ => sum.other += 1,
        }
    }
    sum.refusals.sort();
    sum
}

#[tokio::test]
async fn three_times_the_arrivals_keep_the_goodput_of_the_peak_though_nobody_slows_down() {
    let _turn = TURN.lock().await;
    // 40 at once before 200 ms: 200 a second. The same shape as 200 before 50 ms, which a test's build could not be asked for threefold.
    const CAPACITY: u32 = 200;
    let app = DemoApp::start("app").expect("an application");
    for (what, listener, route, frps, pool) in [
        ("listener", ", limits: { in_flight: 40 }", "", "", ""),
        ("route", "", ", limits: { in_flight: 40 }", "", ""),
        ("frps", "", "", ", limits: { in_flight: 40 }", ", limits: { queue: off }"),
        ("pool", "", "", "", ", limits: { in_flight: 40, queue: off }"),
        ("queue", "", "", "", ", limits: { in_flight: 40, queue: { size: 20, timeout: 100ms } }"),
    ] {
        let (gateway, address) = gateway(app.addr(), listener, route, frps, pool).await;
        let time = Duration::from_secs(3);
        settle(what, Duration::from_millis(40), &gateway, async || Compared {
            peak: arrivals(address, CAPACITY, 200, time).await,
            over: arrivals(address, 3 * CAPACITY, 200, time).await,
        })
        .await;
    }
}

#[tokio::test]
async fn a_visitor_above_the_connection_limit_is_told_to_come_back() {
    let app = DemoApp::start("app").expect("an application");
    let (gateway, address) = gateway(app.addr(), ", limits: { connections: 2 }", "", "", "").await;
    let mut inside = Vec::new();
    for _ in 0..2 {
        let mut connection = http::Connection::open(address).await.expect("it listens");
        let reply = connection.send(http::request("GET", "h.test", "/").body(http::empty())).await;
        assert_eq!(reply.expect("an answer").status, 200);
        inside.push(connection);
    }
    let begun = Instant::now();
    let reply = http::get(address, "h.test", "/").await.expect("an answer, not a reset");
    assert_eq!((reply.status, reply.header("x-frp-gateway")), (503, Some("overloaded")), "{}", reply.text());
    assert!(reply.header("retry-after").is_some() && begun.elapsed() < Duration::from_secs(1));
    drop(inside.pop());
    until("room", SOON, async || (http::get(address, "h.test", "/").await.ok()?.status == 200).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let rest: Vec<&str> = stat.rsplit(") ").next().expect("a state").split(' ').collect();
    rest[11].parse::<u64>().expect("a number") + rest[12].parse::<u64>().expect("a number")
}

#[tokio::test]
async fn running_out_of_descriptors_neither_crashes_nor_spins_and_the_admin_port_answers() {
    let app = DemoApp::start("app").expect("an application");
    let (gateway, address) = gateway(app.addr(), "", "", "", "").await;
    let pid = gateway.pid();
    let limited = Command::new("prlimit").args(["--pid", &pid.to_string(), "--nofile=256:256"]).status();
    assert!(limited.expect("prlimit is part of Debian's util-linux").success());
    let served = Arc::new(AtomicU64::new(0));
    let mut flood = Vec::new();
    for _ in 0..400 {
        flood.push(TcpStream::connect(address).await.expect("the kernel lets it in"));
    }
    // Whoever is in is served, the rest is told or closed; nobody hangs.
    let before = cpu_ticks(pid);
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for mut visitor in flood {
        let served = Arc::clone(&served);
        all.spawn(async move {
            // A visitor that was closed already can't send.
            if visitor.write_all(b"GET / HTTP/1.1\r\nHost: h.test\r\n\r\n").await.is_err() {
                return (visitor, 0);
            }
            let mut answer = vec![0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(20), visitor.read(&mut answer)).await;
            let n = read.expect("no visitor hangs").unwrap_or_default();
            if answer[..n].starts_with(b"HTTP/1.1 200") {
                served.fetch_add(1, Relaxed);
            }
            (visitor, n)
        });
    }
    let mut held = Vec::new();
    while let Some(one) = all.join_next().await {
        held.push(one.expect("no panic"));
    }
    let config = gateway.api("/api/v1/config").await.expect("the admin port answers in the middle of it");
    assert_eq!(config["generation"], 1);
    tokio::time::sleep(Duration::from_secs(1)).await; // a second of exhaustion, to see what it costs
    let (ticks, took) = (cpu_ticks(pid) - before, begun.elapsed());
    println!("{} of 400 served, {ticks} ticks of CPU in {took:?}", served.load(Relaxed));
    // A quarter of 256 is left for endpoints, less 8 visitors of each worker who are being told.
    assert!(served.load(Relaxed) >= 48 - 8, "{}", gateway.log());
    assert!(ticks < 100, "it spins: {ticks} ticks in {took:?}");
    drop(held);
    until("service again", SOON, async || {
        (http::get(address, "h.test", "/").await.ok()?.status == 200).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
    assert!(!gateway.log().contains("endpoint down"), "the endpoint is not to blame:\n{}", gateway.log());
}
