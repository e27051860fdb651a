//! How long an event takes from the application to its visitor, and what of that is the gateway's. Real frps and frpc; needs
//! `frp-lab/build`. A measurement, not part of any gate:
//!
//! ```sh
//! FRP_GATEWAY_BIN=target/release/frp-gateway cargo test -p frp-gateway --test first_event -- --ignored --nocapture
//! ```
//!
//! All ways are up at once and are asked in turn. A sample is a request of its own: its head has reached the visitor, nothing has
//! happened for some milliseconds, then the application writes its first event. What is told is the time from just before that
//! write until the visitor has read the event. Both ends are in this program, so there is one clock. The table goes to
//! `benches/RESULTS.md`.

#![allow(clippy::panic, clippy::print_stdout, reason = "a measurement prints what it has measured")]

#[path = "common/raw.rs"]
mod raw;
#[path = "common/takeover.rs"]
mod takeover;
#[path = "common/tls.rs"]
mod tls;
#[path = "common/ways.rs"]
mod ways;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use frp_gateway_loadtest::lab::Proxy;
use http_body_util::BodyExt;
use raw::App;
use takeover::SOON;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use ways::{Ground, HOST, Speech, Visitor, Way, nothing};

/// Times that all is measured; of each way the run with the best median counts.
const RUNS: usize = 3;
/// Samples of one way in one run, and those before them that don't count.
const SAMPLES: usize = 300;
const WARM_UP: usize = 20;
/// How long nothing happens before an event.
const QUIET: Duration = Duration::from_millis(5);
const EVENT: &[u8] = b"data: 1\n\n";

/// An application that sends one event to each request when it is told to, and notes when.
struct Source {
    app: App,
    go: mpsc::UnboundedSender<()>,
    left: Arc<Mutex<Option<Instant>>>,
}

impl Source {
    async fn start() -> Self {
        let (go, going) = mpsc::unbounded_channel::<()>();
        let going = Arc::new(tokio::sync::Mutex::new(going));
        let left = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&left);
        let app = App::start(move |mut stream| {
            let (going, noted) = (Arc::clone(&going), Arc::clone(&noted));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let events = head.starts_with(b"GET /events");
                    head.clear();
                    if !events {
                        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await);
                        continue;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                                   Transfer-Encoding: chunked\r\n\r\n";
                    drop(stream.write_all(answer).await);
                    if going.lock().await.recv().await.is_none() {
                        return;
                    }
                    let chunk = [format!("{:x}\r\n", EVENT.len()).as_bytes(), EVENT, b"\r\n"].concat();
                    *noted.lock().expect("one writer") = Some(Instant::now());
                    drop(stream.write_all(&chunk).await);
                    drop(stream.write_all(b"0\r\n\r\n").await);
                }
            })
        })
        .await;
        Self { app, go, left }
    }

    fn proxy(&self) -> Proxy {
        Proxy::http("web", self.app.address, &[HOST])
    }

    /// One event over this connection; how long it took.
    async fn sample(&self, visitor: &mut Visitor) -> Duration {
        let answer = visitor.ask("GET", "/events", nothing());
        let answer = timeout(SOON, answer).await.expect("in time").expect("an answer");
        assert_eq!(answer.status(), 200);
        sleep(QUIET).await;
        self.go.send(()).expect("it listens");
        let mut body = answer.into_body();
        let mut heard = 0;
        while heard < EVENT.len() {
            let frame =
                timeout(SOON, body.frame()).await.expect("in time").expect("an event").expect("whole");
            heard += frame.into_data().expect("data").len();
        }
        let left = self.left.lock().expect("one writer").take().expect("it was written");
        let took = left.elapsed();
        drop(body.collect().await);
        took
    }
}

/// One way from the visitor to an application.
struct Contestant<'a> {
    name: String,
    source: &'a Source,
    visitor: Visitor,
    /// Median and 99th percentile of each run.
    runs: Vec<(Duration, Duration)>,
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

#[tokio::test]
#[ignore = "measures: needs an idle machine"]
async fn a_first_event_takes_less_than_5_ms_however_it_goes() {
    let (taken, left) = (Source::start().await, Source::start().await);
    let by_takeover = Ground::start(Way::Takeover, &["a"], vec![taken.proxy()], "hold: off").await;
    let by_vhost = Ground::start(Way::Vhost, &["b"], vec![left.proxy()], "hold: off").await;
    let plainly = async |address| {
        let stream = TcpStream::connect(address).await.expect("in");
        stream.set_nodelay(true).expect("a socket");
        Visitor::over(Speech::Http1, stream).await
    };
    let contestant =
        |name: &str, source, visitor| Contestant { name: name.to_owned(), source, visitor, runs: Vec::new() };
    let mut all = vec![
        contestant("no tunnel: the application itself", &left, plainly(left.app.address).await),
        contestant("plain frps: its vhost, HTTP/1.1", &left, plainly(by_vhost.world.frps[0].http()).await),
    ];
    for (ground, source, way) in [(&by_vhost, &left, "vhost"), (&by_takeover, &taken, "takeover")] {
        for (speech, word) in [
            (Speech::Http1, "HTTP/1.1"),
            (Speech::Http1Tls, "HTTP/1.1 over TLS"),
            (Speech::Http2Tls, "HTTP/2 over TLS"),
        ] {
            all.push(contestant(&format!("gateway, {way}: {word}"), source, ground.visitor(speech).await));
        }
    }
    for _ in 0..RUNS {
        let mut times = vec![Vec::new(); all.len()];
        for round in 0..WARM_UP + SAMPLES {
            for (contestant, times) in all.iter_mut().zip(&mut times) {
                let took = contestant.source.sample(&mut contestant.visitor).await;
                if round >= WARM_UP {
                    times.push(took);
                }
            }
        }
        for (contestant, mut times) in all.iter_mut().zip(times) {
            times.sort_unstable();
            contestant.runs.push((times[SAMPLES / 2], times[SAMPLES * 99 / 100]));
        }
    }
    let best = |contestant: &Contestant<'_>| contestant.runs.iter().min().copied().expect("some runs");
    let plain = best(&all[1]).0;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{RUNS} runs of {SAMPLES} events per way, in turn; load before the end {}", load.trim());
    println!(
        "| way | median, ms | p99, ms | medians of all runs | more than plain frps, ms |\n|---|---|---|---|---|"
    );
    for contestant in &all {
        let (median, late) = best(contestant);
        let runs: Vec<_> = contestant.runs.iter().map(|(median, _)| milliseconds(*median)).collect();
        let more = (median.as_secs_f64() - plain.as_secs_f64()) * 1e3;
        println!(
            "| {} | {} | {} | {} | {more:+.3} |",
            contestant.name,
            milliseconds(median),
            milliseconds(late),
            runs.join(" ")
        );
    }
    for contestant in &all {
        let (median, late) = best(contestant);
        assert!(late < Duration::from_millis(5), "{}: median {median:?}, p99 {late:?}", contestant.name);
    }
}
