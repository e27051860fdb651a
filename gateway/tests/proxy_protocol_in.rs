//! PROXY protocol in: peers that are named begin with a header, and the address in it is the visitor's for everything that
//! follows. Nobody else is asked for one.

#[path = "common/apps.rs"]
mod apps;
mod common;
#[path = "common/control.rs"]
mod control;
#[path = "common/takeover.rs"]
mod takeover;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use apps::{connect_from, named};
use common::{Endpoint, Wire, eventually, field, get, ok, status};
use frp_gateway_loadtest::lab::{FrpcOptions, Gateway, Proxy};
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// Named.
const PROXY: &str = "127.0.0.1";
/// Not named.
const STRANGER: &str = "127.0.0.2";
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\n";
const ERRORS: &str = "frp_gateway_proxy_header_errors_total";

/// Version 2 with a TLV of a balancer behind the addresses.
fn v2() -> Vec<u8> {
    let tlv = [0x04, 0, 3, b'x', b'y', b'z'];
    let addresses = [203, 0, 113, 7, 198, 51, 100, 1, 0x9c, 0x40, 1, 0xbb];
    binary(0x21, 0x11, &[&addresses[..], &tlv].concat())
}

fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, block].concat()
}

/// An application that answers with what it was told of the visitor.
async fn forwarded() -> Endpoint {
    Endpoint::scripted(|mut wire, _, _| async move {
        while let Some(request) = wire.request().await {
            let told = field(&request, "x-forwarded-for").unwrap_or("nobody").to_owned();
            if !wire.try_send(ok(&told)).await {
                return;
            }
        }
    })
    .await
}

const NAMED: &str = "proxy_protocol: 127.0.0.1, timeouts: { header: 2s }";

async fn web(endpoint: &Endpoint, listener: &str) -> (Gateway, SocketAddr) {
    common::gateway(&[endpoint], "", listener).await
}

/// Whom the application takes the visitor for, when the connection begins with `header`.
async fn told(address: SocketAddr, header: &[u8]) -> String {
    let mut wire = connect_from(PROXY, address).await;
    wire.send([header, get("/").as_bytes()].concat()).await;
    let (head, body) = wire.response(false).await;
    assert_eq!(status(&head), 200, "{head}");
    String::from_utf8(body).expect("an address")
}

async fn errors(gateway: &Gateway, listener: &str) -> f64 {
    let label = format!("listener=\"{listener}\"");
    gateway.metric(ERRORS, &[&label]).await.expect("it answers").expect("a metric")
}

#[tokio::test]
async fn the_address_of_either_version_is_the_visitors() {
    let endpoint = forwarded().await;
    let (gateway, address) = web(&endpoint, NAMED).await;
    for header in [V1, &v2()] {
        assert_eq!(told(address, header).await, "203.0.113.7", "{}", header.escape_ascii());
    }
    assert_eq!(
        told(address, b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n").await,
        "2001:db8::7",
        "of the other family"
    );
    assert_eq!(errors(&gateway, "web").await.to_string(), "0");
}

#[tokio::test]
async fn local_and_unknown_leave_the_connections_own_address() {
    let endpoint = forwarded().await;
    let (_gateway, address) = web(&endpoint, NAMED).await;
    let local = binary(0x20, 0, &[]);
    let local_with_addresses = binary(0x20, 0x11, &[9; 12]);
    let unix = binary(0x21, 0x31, &[0; 216]);
    let headers: [&[u8]; 5] = [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        &local,
        &local_with_addresses,
        &unix,
    ];
    for header in headers {
        assert_eq!(told(address, header).await, PROXY, "{}", header.escape_ascii());
    }
}

#[tokio::test]
async fn trusted_proxies_are_looked_up_by_the_address_in_the_header() {
    let endpoint = forwarded().await;
    let listener = format!("{NAMED}, trusted_proxies: 203.0.113.7");
    let (_gateway, address) = web(&endpoint, &listener).await;
    let request = "GET / HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    for (source, expected) in [("203.0.113.7", "192.0.2.1, 203.0.113.7"), ("203.0.113.8", "203.0.113.8")] {
        let mut wire = connect_from(PROXY, address).await;
        wire.send(format!("PROXY TCP4 {source} 198.51.100.1 40000 443\r\n{request}")).await;
        let (_, body) = wire.response(false).await;
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }
}

#[tokio::test]
async fn a_header_split_at_every_byte_is_read_and_what_follows_it_is_not_lost() {
    let endpoint = forwarded().await;
    let (_gateway, address) = web(&endpoint, NAMED).await;
    for header in [V1.to_vec(), v2()] {
        let whole = [&header[..], get("/").as_bytes()].concat();
        let mut all = Vec::new();
        for cut in 1..whole.len().min(header.len() + 4) {
            let whole = whole.clone();
            all.push(tokio::spawn(async move {
                let mut wire = connect_from(PROXY, address).await;
                wire.send(&whole[..cut]).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                wire.send(&whole[cut..]).await;
                (cut, wire.response(false).await)
            }));
        }
        for visitor in all {
            let (cut, (head, body)) = visitor.await.expect("a visitor");
            assert_eq!((status(&head), &*body), (200, &b"203.0.113.7"[..]), "cut at {cut}: {head}");
        }
        let mut wire = connect_from(PROXY, address).await;
        for byte in &whole {
            wire.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(wire.response(false).await.1, b"203.0.113.7", "byte by byte");
    }
}

#[tokio::test]
async fn a_named_peer_without_a_proper_header_is_closed_and_counted() {
    let endpoint = forwarded().await;
    let (gateway, address) = web(&endpoint, NAMED).await;
    let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    let garbage: [&[u8]; 6] = [
        get("/").as_bytes(),
        b"PROXY TCP4 203.0.113.7 198.51.100.1 040000 443\r\n",
        b"PROXY TCP5 203.0.113.7 198.51.100.1 40000 443\r\n",
        &long,
        &binary(0x31, 0x11, &[0; 12]),
        &binary(0x21, 0x11, &[0; 4]),
    ]
    .map(|bytes| -> &[u8] { Box::leak(bytes.to_vec().into_boxed_slice()) });
    for (count, bytes) in (1_u32..).zip(garbage) {
        let mut wire = connect_from(PROXY, address).await;
        wire.send(bytes).await;
        assert!(wire.is_ended().await, "{}", bytes.escape_ascii());
        eventually("it is counted", async || errors(&gateway, "web").await >= f64::from(count)).await;
    }
    assert!(endpoint.seen().is_empty());
    let lines = gateway.log().lines().filter(|line| line.contains("must begin with its header")).count();
    assert!((1..=3).contains(&lines), "{lines} lines for 6 faults within a moment:\n{}", gateway.log());
    // A check that only connects is no fault.
    drop(connect_from(PROXY, address).await);
    assert_eq!(told(address, V1).await, "203.0.113.7");
    assert_eq!(errors(&gateway, "web").await.to_string(), "6");
}

#[tokio::test]
async fn a_slow_header_is_cut_at_the_deadline_of_heads() {
    let endpoint = forwarded().await;
    let (gateway, address) = web(&endpoint, "proxy_protocol: 127.0.0.1, timeouts: { header: 300ms }").await;
    for begun in [&b""[..], &V1[..20], &v2()[..14]] {
        let mut wire = connect_from(PROXY, address).await;
        let at = Instant::now();
        wire.send(begun).await;
        assert!(wire.is_ended().await, "{}", begun.escape_ascii());
        assert!((200..3000).contains(&at.elapsed().as_millis()), "{:?}", at.elapsed());
    }
    assert_eq!(errors(&gateway, "web").await.to_string(), "3");
}

#[tokio::test]
async fn a_header_of_a_stranger_is_not_read() {
    let endpoint = forwarded().await;
    let (gateway, address) = web(&endpoint, NAMED).await;
    let mut plain = connect_from(STRANGER, address).await;
    plain.send(get("/")).await;
    assert_eq!(plain.response(false).await.1, STRANGER.as_bytes(), "it needs none");
    let mut forged = connect_from(STRANGER, address).await;
    forged.send([V1, get("/").as_bytes()].concat()).await;
    let said = forged.all().await;
    assert_eq!(status(&said), 400, "{said}");
    assert_eq!(errors(&gateway, "web").await.to_string(), "0", "nothing was due");
}

#[tokio::test]
async fn who_is_named_may_change_while_connections_are_open() {
    let endpoint = forwarded().await;
    let (gateway, address) = web(&endpoint, NAMED).await;
    let mut open = connect_from(PROXY, address).await;
    open.send([V1, get("/").as_bytes()].concat()).await;
    assert_eq!(open.response(false).await.1, b"203.0.113.7");
    let yaml = std::fs::read_to_string(gateway.file()).expect("its file");
    gateway.edit(&yaml.replace("proxy_protocol: 127.0.0.1, ", "")).expect("edited");
    eventually("no header is due any more", async || {
        let mut wire = connect_from(PROXY, address).await;
        wire.send(get("/")).await;
        wire.all_of_one().await.ends_with(PROXY)
    })
    .await;
    open.send(get("/")).await;
    assert_eq!(open.response(false).await.1, b"203.0.113.7", "it is whose it was");
}

trait One {
    async fn all_of_one(&mut self) -> String;
}

impl One for Wire {
    /// A response as text; whatever came if it is none.
    async fn all_of_one(&mut self) -> String {
        let (head, body) = self.response(false).await;
        head + &String::from_utf8_lossy(&body)
    }
}

/// A gateway with a listener of another protocol before one application; over tcp it is told by version 1 who connected.
async fn raw(app: SocketAddr, protocol: &str) -> (Gateway, SocketAddr) {
    let port = app.port();
    let pool = if protocol == "tcp" { format!(", proxy_protocol: v1, port: {port}") } else { String::new() };
    let yaml = format!(
        "runtime: {{ workers: 2 }}\naccess_log: stdout\nfrps:\n  - {{ name: a, host: 127.0.0.1, vhost_https_port: {port} }}\n\
         listeners:\n  - {{ name: raw, bind: \"127.0.0.1:0\", protocol: {protocol}, pool: p, proxy_protocol: 127.0.0.1 }}\n\
         pools:\n  - {{ name: p{pool}, frps: all }}\n",
    );
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), &yaml).await.expect("it starts");
    let address = gateway.listener("raw").await.expect("it listens");
    (gateway, address)
}

/// A ClientHello without a server name.
fn client_hello() -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    let length = |n: usize| u16::try_from(n).expect("short").to_be_bytes();
    let message = [&[1, 0][..], &length(body.len()), &body].concat();
    [&[22, 3, 1][..], &length(message.len()), &message].concat()
}

#[tokio::test]
async fn tcp_and_tls_passthrough_pass_on_who_the_header_named_and_every_byte_behind_it() {
    for protocol in ["tcp", "tls_passthrough"] {
        let app = Endpoint::scripted(move |mut wire, _, notes| async move {
            if protocol == "tcp" {
                notes.add(String::from_utf8(wire.until(b"\r\n").await).expect("a line"));
            }
            let all = wire.bytes(client_hello().len()).await;
            wire.try_send(&all).await;
        })
        .await;
        let (gateway, address) = raw(app.address, protocol).await;
        for header in [V1.to_vec(), v2()] {
            let mut wire = connect_from(PROXY, address).await;
            wire.send([&header[..], &client_hello()].concat()).await;
            assert_eq!(wire.bytes(client_hello().len()).await, client_hello(), "{protocol}");
            if protocol == "tcp" {
                assert_eq!(app.seen().last().map(String::as_bytes), Some(V1), "{:?}", app.seen());
            }
        }
        eventually("the access log", async || gateway.log().contains("\"peer\":\"203.0.113.7\"")).await;
        let mut wire = connect_from(PROXY, address).await;
        wire.send(client_hello()).await;
        assert!(wire.is_ended().await, "{protocol}: no header");
        assert_eq!(errors(&gateway, "raw").await.to_string(), "1", "{protocol}");
    }
}

#[tokio::test]
async fn affinity_by_source_goes_by_the_address_in_the_header() {
    let (one, two) = (named("one").await, named("two").await);
    let (_gateway, address) = common::gateway(&[&one, &two], "affinity: source_ip", NAMED).await;
    let mut served = std::collections::BTreeMap::new();
    for visitor in 0..32 {
        let header = format!("PROXY TCP4 203.0.113.{visitor} 198.51.100.1 40000 443\r\n");
        let first = told(address, header.as_bytes()).await;
        assert_eq!(told(address, header.as_bytes()).await, first, "203.0.113.{visitor} stays");
        *served.entry(first).or_insert(0) += 1;
    }
    assert_eq!(served.len(), 2, "visitors behind one proxy are told apart: {served:?}");
}

/// A balancer before the gateway: it says of each connection that it came from `source`.
async fn balancer(to: SocketAddr, source: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut gateway = TcpStream::connect(to).await.expect("the gateway listens");
                let header = format!("PROXY TCP4 {source} 198.51.100.1 40000 7000\r\n");
                gateway.write_all(header.as_bytes()).await.expect("sent");
                drop(copy_bidirectional(&mut client, &mut gateway).await);
            });
        }
    });
    address
}

/// Real frps and frpc; needs `frp-lab/build`.
#[tokio::test]
async fn an_frp_listener_knows_its_clients_by_the_address_in_the_header() {
    let site = control::Site::start(&["a"], "proxy_protocol: 127.0.0.1", "").await;
    let app = named("app").await;
    let mut held = Vec::new();
    for source in ["203.0.113.7", "203.0.113.8"] {
        let through = balancer(site.frp, source).await;
        let domain = format!("{}.test", source.replace('.', "-"));
        let proxy = Proxy::http("web", app.address, &[&domain]);
        held.push(site.frpc(FrpcOptions::to(through).user(source).proxy(proxy)).await);
    }
    let all = site.world.gateway().api("/api/v1/clients").await.expect("the API answers");
    let mut known: Vec<_> =
        all.as_array().into_iter().flatten().map(|one| one["address"].to_string()).collect();
    known.sort();
    assert_eq!(known, ["\"203.0.113.7:40000\"", "\"203.0.113.8:40000\""], "{all}");
}
