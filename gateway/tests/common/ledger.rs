//! Applications that write down every request, and visitors that come at a fixed rate and keep account of every answer.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::panic,
    clippy::print_stdout,
    reason = "each test file uses its own part"
)]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use frp_gateway_loadtest::http;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

/// How often each request (by the number in its path) arrived anywhere.
pub type Ledger = Arc<Mutex<BTreeMap<u64, u32>>>;

/// An application that answers with its name after a moment, and writes down what came. Ends with the test's runtime.
pub async fn app(name: &'static str, ledger: &Ledger) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let ledger = Arc::clone(ledger);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let ledger = Arc::clone(&ledger);
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let ledger = Arc::clone(&ledger);
                async move {
                    let number = request.uri().path().trim_start_matches('/').parse::<u64>();
                    if let Ok(number) = number {
                        *ledger.lock().expect("no panic under it").entry(number).or_default() += 1;
                    }
                    // A body that breaks off was not carried out.
                    let whole = request.into_body().collect().await.is_ok();
                    if let (Ok(number), false) = (number, whole) {
                        ledger.lock().expect("no panic under it").remove(&number);
                    }
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    let answer = Response::builder().header("x-app", name);
                    Ok::<_, Infallible>(answer.body(Full::new(Bytes::from_static(b"ok"))).expect("valid"))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// What visitors say of their requests.
#[derive(Debug, Default)]
pub struct Account {
    pub served: usize,
    /// POSTs that were told that they may have been carried out.
    pub told: usize,
    /// Everything else, for people.
    pub failed: Vec<String>,
    /// How long each took that was served, sorted.
    pub took: Vec<Duration>,
    posts: Vec<(u64, bool)>,
}

impl Account {
    pub fn quantile(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a count"
        )]
        let at = (self.took.len() as f64 * share) as usize;
        self.took[at.min(self.took.len() - 1)]
    }

    /// One line, and the promise that holds for all of them.
    pub fn settle(&self, what: &str, ledger: &Ledger) {
        let ledger = ledger.lock().expect("no panic under it");
        println!(
            "{what}: {} served, {} POSTs told 502, {} failed; p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
            self.served,
            self.told,
            self.failed.len(),
            self.quantile(0.5),
            self.quantile(0.99),
            self.quantile(0.999),
            self.quantile(1.0)
        );
        for (number, served) in &self.posts {
            let arrived = ledger.get(number).copied().unwrap_or_default();
            assert!(arrived <= 1, "{what}: POST {number} was sent {arrived} times");
            assert!(!served || arrived == 1, "{what}: POST {number} was served and arrived {arrived} times");
        }
    }
}

/// Visitors ask for `h0.test`, `h1.test` … in turn, `rate` a second, every fifth with a POST, until `act` has ended and a second after it.
pub async fn visit<T>(
    web: SocketAddr,
    hosts: usize,
    rate: u32,
    act: impl Future<Output = T>,
) -> (Account, T) {
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let load = async move {
        let mut all = JoinSet::new();
        let mut every = tokio::time::interval(Duration::from_secs(1) / rate);
        let mut number = 0_u64;
        loop {
            tokio::select! {
                _ = every.tick() => {}
                _ = stopped.changed() => break,
            }
            number += 1;
            let host = format!("h{}.test", number % hosts as u64);
            let post = number.is_multiple_of(5);
            all.spawn(async move {
                let begun = Instant::now();
                let method = if post { "POST" } else { "GET" };
                let body = if post { http::full("once") } else { http::empty() };
                let reply =
                    http::send(web, http::request(method, &host, &format!("/{number}")).body(body)).await;
                (number, host, post, begun.elapsed(), reply)
            });
        }
        let mut account = Account::default();
        while let Some(one) = all.join_next().await {
            let (number, host, post, took, reply) = one.expect("no panic");
            let (status, class) = match &reply {
                Ok(reply) => (reply.status, reply.header("x-frp-gateway").unwrap_or_default().to_owned()),
                Err(error) => (0, error.to_string()),
            };
            if post {
                account.posts.push((number, status == 200));
            }
            match (post, status, &*class) {
                (_, 200, "") => {
                    account.served += 1;
                    account.took.push(took);
                }
                (true, 502, "upstream_broken" | "may_have_run") => account.told += 1,
                _ => account
                    .failed
                    .push(format!("{number} {host} post={post}: {status} {class} after {took:?}")),
            }
        }
        account.took.sort();
        account
    };
    let load = tokio::spawn(load);
    let done = act.await;
    tokio::time::sleep(Duration::from_secs(1)).await; // what comes after is a part of the account
    stop.send_replace(true);
    (load.await.expect("no panic"), done)
}
