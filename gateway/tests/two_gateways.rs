//! Two gateways, each on an address of its own, and clients that know both, as a DNS name with two addresses gives them:
//! what they see when one gateway is killed, and when it freezes.

#![expect(clippy::print_stdout, reason = "what it measures is quoted in docs/operations.md")]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use common::{Endpoint, ok};
use frp_gateway_loadtest::{
    http::{Connection, empty, request},
    lab::Gateway,
};
use tokio::{task::JoinHandle, time::timeout};

/// How long a client waits before it tries the other address.
const PATIENCE: Duration = Duration::from_secs(1);
const CLIENTS: usize = 8;

async fn start(endpoint: &Endpoint, ip: &str) -> (Gateway, SocketAddr) {
    let yaml = format!(
        "runtime: {{ workers: 1 }}\nfrps: [ {{ name: e0, host: 127.0.0.1, vhost_http_port: {} }} ]\n\
         listeners: [ {{ name: web, bind: \"{ip}:0\" }} ]\n",
        endpoint.address.port()
    );
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), &yaml).await.expect("the gateway starts");
    let web = gateway.listener("web").await.expect("a listener");
    (gateway, web)
}

#[derive(Debug, Default)]
struct Seen {
    served: usize,
    /// Tries that failed, and were made again at the other address.
    again: usize,
    failed: Vec<String>,
    longest: Duration,
}

/// One that asks again and again on one kept connection, begins with the first address, and when that fails goes to the
/// other one, as clients do with idempotent requests.
async fn client(mut addresses: [SocketAddr; 2], ended: Arc<AtomicBool>, seen: Arc<Mutex<Seen>>) {
    let mut kept: Option<Connection> = None;
    while !ended.load(Relaxed) {
        let begun = Instant::now();
        let mut tries = Vec::new();
        let served = loop {
            let asked = timeout(PATIENCE, async {
                let mut connection = match kept.take() {
                    Some(connection) => connection,
                    None => Connection::open(addresses[0]).await?,
                };
                let reply = connection.send(request("GET", "app.test", "/").body(empty())).await?;
                Ok::<_, frp_gateway_loadtest::lab::LabError>((connection, reply))
            });
            match asked.await {
                Ok(Ok((connection, reply))) if reply.status == 200 => {
                    kept = Some(connection);
                    break true;
                }
                Ok(Ok((_, reply))) => tries.push(format!("{}", reply.status)),
                Ok(Err(error)) => tries.push(error.to_string()),
                Err(late) => tries.push(late.to_string()),
            }
            addresses.swap(0, 1);
            if tries.len() > 2 {
                break false;
            }
        };
        let mut seen = seen.lock().expect("not poisoned");
        seen.again += tries.len();
        seen.longest = seen.longest.max(begun.elapsed());
        if served {
            seen.served += 1;
        } else {
            seen.failed.extend(tries);
        }
    }
}

/// Clients of both gateways, half beginning with each; what they see when `end` happens to the first gateway.
async fn outage(end: impl FnOnce(&mut Gateway)) -> Seen {
    let endpoint = Endpoint::answering(ok("hello")).await;
    let (mut first, one) = start(&endpoint, "127.0.0.1").await;
    let (_second, two) = start(&endpoint, "127.0.0.2").await;
    let (ended, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
    let clients: Vec<JoinHandle<()>> = (0..CLIENTS)
        .map(|n| {
            let addresses = if n % 2 == 0 { [one, two] } else { [two, one] };
            tokio::spawn(client(addresses, Arc::clone(&ended), Arc::clone(&seen)))
        })
        .collect();
    let more = async |count| {
        let served = || seen.lock().expect("not poisoned").served;
        let wanted = served() + count;
        common::eventually("requests to be served", async || served() >= wanted).await;
    };
    more(500).await;
    seen.lock().expect("not poisoned").longest = Duration::ZERO;
    end(&mut first);
    more(500).await;
    // Nobody is left waiting.
    tokio::time::sleep(PATIENCE).await;
    ended.store(true, Relaxed);
    for client in clients {
        client.await.expect("a client doesn't panic");
    }
    let seen = std::mem::take(&mut *seen.lock().expect("not poisoned"));
    println!(
        "served {} tried again {} longest {:?} failed {:?}",
        seen.served, seen.again, seen.longest, seen.failed
    );
    seen
}

#[tokio::test]
async fn a_killed_gateway_costs_its_clients_one_more_connect() {
    let seen = outage(|gateway| gateway.kill9()).await;
    assert_eq!(seen.failed, Vec::<String>::new(), "{seen:?}");
    assert!(seen.longest < Duration::from_millis(500), "{seen:?}");
    assert!(
        (1..=CLIENTS).contains(&seen.again),
        "only what was under way, or kept, was tried again: {seen:?}"
    );
}

#[tokio::test]
async fn a_frozen_gateway_costs_its_clients_their_own_patience() {
    let seen = outage(|gateway| gateway.sigstop()).await;
    assert_eq!(seen.failed, Vec::<String>::new(), "{seen:?}");
    assert!(seen.longest >= PATIENCE && seen.longest < PATIENCE * 2, "{seen:?}");
}
