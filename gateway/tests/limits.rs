//! Bounds per endpoint hold whatever happens, and whoever waits for room is served in turn, told so in time, or forgotten.

#[path = "common/apps.rs"]
mod apps;
mod common;

use std::{
    mem::MaybeUninit,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use apps::{Gate, apply, ask, ask_once, frps, gated, get_with, metric, reply, setup, start};
use common::{Endpoint, PATIENCE, Wire, eventually, field, get, ok};
use frp_gateway_loadtest::lab::Gateway;
use tokio::task::JoinSet;

/// Visitors that have sent a GET of `/0`, `/1` … and wait for its answer.
async fn visitors(address: SocketAddr, count: usize) -> Vec<Wire> {
    let mut all = Vec::new();
    for n in 0..count {
        let mut visitor = Wire::connect(address).await;
        visitor.send(get(&format!("/{n}"))).await;
        all.push(visitor);
    }
    all
}

async fn waiting(gateway: &Gateway, count: usize) {
    eventually(&format!("{count} wait"), async || {
        metric(gateway, "pool_queue_length", &[]).await.to_string() == count.to_string()
    })
    .await;
}

async fn in_flight(gateway: &Gateway, count: usize) {
    eventually(&format!("{count} are in flight"), async || {
        metric(gateway, "endpoint_in_flight", &[]).await.to_string() == count.to_string()
    })
    .await;
}

async fn running(gate: &Gate, count: usize) {
    eventually(&format!("{count} run"), async || gate.running() == count).await;
}

#[tokio::test]
async fn with_room_for_six_the_seventh_waits_until_one_ends() {
    let (a, b, c) = (gated("a").await, gated("b").await, gated("c").await);
    let gates = [&a.1, &b.1, &c.1];
    let members = [frps("e0", a.0.address, ""), frps("e1", b.0.address, ""), frps("e2", c.0.address, "")];
    let pool = ", limits: { in_flight: 2, queue: { timeout: 30s } }";
    let (gateway, address) = start(&setup(2, &members, "", pool, "")).await;
    let mut all = visitors(address, 7).await;
    for gate in gates {
        running(gate, 2).await;
    }
    waiting(&gateway, 1).await;
    gates[1].release(1);
    eventually("the seventh runs", async || b.1.entered().len() == 3).await;
    waiting(&gateway, 0).await;
    for gate in gates {
        gate.release(2);
    }
    for visitor in &mut all {
        assert_eq!(reply(visitor, false).await.status, 200);
    }
    assert_eq!(gates.map(|gate| gate.peak()), [2; 3]);
    in_flight(&gateway, 0).await;
}

#[tokio::test]
async fn who_comes_first_is_served_first() {
    let (endpoint, gate) = gated("a").await;
    let pool = ", limits: { in_flight: 1, queue: { timeout: 30s } }";
    let (gateway, address) = start(&setup(2, &[frps("e0", endpoint.address, "")], "", pool, "")).await;
    let mut all = visitors(address, 1).await;
    running(&gate, 1).await;
    for n in 1..=20 {
        let mut visitor = Wire::connect(address).await;
        visitor.send(get(&format!("/{n}"))).await;
        waiting(&gateway, n).await;
        all.push(visitor);
    }
    gate.release(21);
    for visitor in &mut all {
        assert_eq!(reply(visitor, false).await.status, 200);
    }
    let want: Vec<_> = (0..=20).map(|n| format!("/{n}")).collect();
    assert_eq!((gate.entered(), gate.peak()), (want, 1));
}

#[tokio::test]
async fn who_finds_the_line_full_is_told_so_at_once() {
    let (endpoint, gate) = gated("a").await;
    let pool = ", limits: { in_flight: 1, queue: { size: 1, timeout: 30s } }";
    let (gateway, address) = start(&setup(2, &[frps("e0", endpoint.address, "")], "", pool, "")).await;
    let mut all = visitors(address, 1).await;
    running(&gate, 1).await;
    let mut second = Wire::connect(address).await;
    second.send(get("/1")).await;
    waiting(&gateway, 1).await;
    let begun = Instant::now();
    let refused = ask_once(address, &get("/2")).await;
    assert!(begun.elapsed() < PATIENCE / 2, "after {:?}", begun.elapsed());
    assert_eq!((refused.status, refused.class()), (503, "overloaded"), "{}", refused.head);
    assert!(field(&refused.head, "retry-after").is_some(), "{}", refused.head);
    assert_eq!(metric(&gateway, "pool_overflowed_total", &[]).await.to_string(), "1");
    gate.release(2);
    assert_eq!(reply(&mut all[0], false).await.status, 200);
    assert_eq!(reply(&mut second, false).await.status, 200);
}

#[tokio::test]
async fn without_a_queue_nobody_waits() {
    let (endpoint, gate) = gated("a").await;
    let pool = ", limits: { in_flight: 1, queue: off }";
    let (_gateway, address) = start(&setup(1, &[frps("e0", endpoint.address, "")], "", pool, "")).await;
    let mut first = visitors(address, 1).await;
    running(&gate, 1).await;
    assert_eq!(ask_once(address, &get("/1")).await.class(), "overloaded");
    gate.release(2);
    assert_eq!(reply(&mut first[0], false).await.status, 200);
    assert_eq!(ask_once(address, &get("/2")).await.status, 200, "there is room again");
}

#[tokio::test]
async fn the_wait_is_bounded() {
    let (endpoint, gate) = gated("a").await;
    let pool = ", limits: { in_flight: 1, queue: { timeout: 300ms } }";
    let (gateway, address) = start(&setup(2, &[frps("e0", endpoint.address, "")], "", pool, "")).await;
    let _first = visitors(address, 1).await;
    running(&gate, 1).await;
    let mut visitor = Wire::connect(address).await;
    let begun = Instant::now();
    let refused = ask(&mut visitor, &get("/1")).await;
    let took = begun.elapsed();
    assert_eq!((refused.status, refused.class()), (503, "overloaded"));
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(4), "{took:?}");
    waiting(&gateway, 0).await;
    gate.release(2);
    assert_eq!(ask(&mut visitor, &get("/2")).await.status, 200, "its connection goes on");
    assert_eq!(gate.entered(), ["/0", "/2"], "the refused one never ran");
}

#[tokio::test]
async fn a_visitor_who_leaves_the_line_takes_no_slot() {
    let (endpoint, gate) = gated("a").await;
    let pool = ", limits: { in_flight: 1, queue: { timeout: 30s } }";
    let (gateway, address) = start(&setup(2, &[frps("e0", endpoint.address, "")], "", pool, "")).await;
    let mut first = visitors(address, 1).await;
    running(&gate, 1).await;
    let mut leaving = visitors(address, 2).await;
    waiting(&gateway, 2).await;
    leaving.pop().expect("two").reset();
    waiting(&gateway, 1).await;
    // An end right after the request could be a visitor who has merely finished sending.
    tokio::time::sleep(Duration::from_millis(250)).await;
    drop(leaving);
    waiting(&gateway, 0).await;
    gate.release(2);
    assert_eq!(reply(&mut first[0], false).await.status, 200);
    assert_eq!(ask_once(address, &get("/last")).await.status, 200);
    assert_eq!(gate.entered(), ["/0", "/last"]);
    in_flight(&gateway, 0).await;
}

#[tokio::test]
async fn a_visitor_who_only_finished_sending_keeps_its_place_and_gets_its_answer() {
    let (endpoint, gate) = gated("a").await;
    let pool = ", limits: { in_flight: 1, queue: { timeout: 30s } }";
    let (gateway, address) = start(&setup(1, &[frps("e0", endpoint.address, "")], "", pool, "")).await;
    let mut first = visitors(address, 1).await;
    running(&gate, 1).await;
    let mut visitor = Wire::connect(address).await;
    visitor.send(get("/1")).await;
    tokio::io::AsyncWriteExt::shutdown(&mut visitor.stream).await.expect("half-closed");
    waiting(&gateway, 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await; // longer than an end counts as "finished sending"
    gate.release(1);
    assert_eq!(reply(&mut first[0], false).await.status, 200);
    eventually("it runs", async || gate.entered().len() == 2).await;
    gate.release(1);
    assert_eq!(reply(&mut visitor, false).await.body, "a");
}

#[tokio::test]
async fn many_visitors_over_two_workers_never_exceed_the_limit() {
    /// Endpoint, most requests at once, requests.
    async fn busy() -> (Endpoint, Arc<(AtomicUsize, AtomicUsize)>) {
        let counts = Arc::<(AtomicUsize, AtomicUsize)>::default();
        let inner = Arc::clone(&counts);
        let endpoint = Endpoint::scripted(move |mut wire, _, _| {
            let counts = Arc::clone(&inner);
            async move {
                while wire.request().await.is_some() {
                    counts.1.fetch_max(counts.0.fetch_add(1, SeqCst) + 1, SeqCst);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    counts.0.fetch_sub(1, SeqCst);
                    if !wire.try_send(ok("a")).await {
                        return;
                    }
                }
            }
        })
        .await;
        (endpoint, counts)
    }
    let (a, b) = (busy().await, busy().await);
    let members = [frps("e0", a.0.address, ""), frps("e1", b.0.address, "")];
    let pool = ", balance: least_request, limits: { in_flight: 5, queue: { timeout: 30s } }";
    let (gateway, address) = start(&setup(2, &members, "", pool, "")).await;
    let mut crowd = JoinSet::new();
    for _ in 0..64 {
        crowd.spawn(async move {
            let mut visitor = Wire::connect(address).await;
            for n in 0..20 {
                let reply = ask(&mut visitor, &get("/")).await;
                assert_eq!(reply.status, 200, "request {n}: {}", reply.head);
            }
        });
    }
    crowd.join_all().await;
    let peaks = [&a, &b].map(|(_, counts)| counts.1.load(SeqCst));
    assert!(peaks.iter().all(|peak| (3..=5).contains(peak)), "used, and never exceeded: {peaks:?}");
    waiting(&gateway, 0).await;
    in_flight(&gateway, 0).await;
}

/// An application, the most connections that were open to it at once, and how many there ever were.
async fn counted() -> (Endpoint, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let open = Arc::<Mutex<Vec<socket2::Socket>>>::default();
    let (peak, accepted) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (inner, most, count) = (Arc::clone(&open), Arc::clone(&peak), Arc::clone(&accepted));
    let endpoint = Endpoint::scripted(move |mut wire, _, _| {
        let (open, peak) = (Arc::clone(&inner), Arc::clone(&most));
        count.fetch_add(1, SeqCst);
        async move {
            {
                let mut open = open.lock().expect("not poisoned");
                // What the gateway has closed already doesn't count.
                open.retain(|socket| match socket.peek(&mut [MaybeUninit::uninit()]) {
                    Ok(0) => false,
                    Ok(_) => true,
                    Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
                });
                open.push(socket2::SockRef::from(&wire.stream).try_clone().expect("a descriptor"));
                peak.fetch_max(open.len(), SeqCst);
            }
            while wire.request().await.is_some() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if !wire.try_send(ok("a")).await {
                    return;
                }
            }
        }
    })
    .await;
    (endpoint, peak, accepted)
}

#[tokio::test]
async fn the_limit_of_connections_is_never_exceeded_idle_ones_included() {
    let (endpoint, peak, _) = counted().await;
    let pool = ", limits: { connections: 3, queue: { timeout: 30s } }";
    let (gateway, address) = start(&setup(2, &[frps("e0", endpoint.address, "")], "", pool, "")).await;
    let mut crowd = JoinSet::new();
    for _ in 0..32 {
        crowd.spawn(async move {
            let mut visitor = Wire::connect(address).await;
            for n in 0..10 {
                let reply = ask(&mut visitor, &get("/")).await;
                assert_eq!(reply.status, 200, "request {n}: {}", reply.head);
            }
        });
    }
    crowd.join_all().await;
    assert_eq!(peak.load(SeqCst), 3, "used, and never exceeded");
    let open = metric(&gateway, "endpoint_connections", &[]).await;
    assert!(open <= 3.0, "{open}");
    in_flight(&gateway, 0).await;
}

#[tokio::test]
async fn idle_connections_of_one_worker_keep_no_other_worker_out() {
    for limit in [1, 2] {
        let endpoint = Endpoint::answering(ok("a")).await;
        let pool = format!(", limits: {{ connections: {limit} }}");
        let (_gateway, address) = start(&setup(2, &[frps("e0", endpoint.address, "")], "", &pool, "")).await;
        for n in 0..40 {
            let reply = ask_once(address, &get("/")).await;
            assert_eq!(reply.status, 200, "connections: {limit}, visitor {n}: {}", reply.head);
        }
    }
}

/// One frps with `connections: limit`: `web` is its vhost, `raw` a tunnel's port, and both wait for room.
async fn one_frps(limit: u32, vhost: SocketAddr, port: SocketAddr) -> (Gateway, SocketAddr, SocketAddr) {
    let limits = format!(", limits: {{ connections: {limit} }}");
    let text = format!(
        "runtime: {{ workers: 1 }}\nfrps:\n  - {}\nlisteners:\n  - {{ name: web, bind: \"127.0.0.1:0\" }}\n  \
         - {{ name: raw, bind: \"127.0.0.1:0\", protocol: tcp, pool: raw }}\npools:\n  - {{ name: p, limits: {{ in_flight: 100, queue: {{ timeout: 30s }} }} }}\n  \
         - {{ name: raw, frps: [{{ name: e0, port: {} }}], limits: {{ in_flight: 100, queue: {{ timeout: 30s }} }} }}\nroutes:\n  - {{ name: r, pool: p, timeout: 30s }}\n",
        frps("e0", vhost, &limits),
        port.port()
    );
    let (gateway, web) = start(&text).await;
    let raw = gateway.listener("raw").await.expect("it listens");
    (gateway, web, raw)
}

/// An application that gives back what it gets, and how many are connected to it.
async fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, inside) = (listener.local_addr().expect("bound"), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&inside);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                count.fetch_add(1, SeqCst);
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
                count.fetch_sub(1, SeqCst);
            });
        }
    });
    (address, inside)
}

#[tokio::test]
async fn an_frps_at_its_connection_limit_serves_by_a_kept_one_and_lets_others_wait() {
    let (endpoint, _, accepted) = counted().await;
    let (port, inside) = echo().await;
    let (gateway, web, raw) = one_frps(2, endpoint.address, port).await;
    assert_eq!(ask_once(web, &get("/")).await.status, 200);
    let first = tokio::net::TcpStream::connect(raw).await.expect("a connection");
    eventually("the first is in", async || inside.load(SeqCst) == 1).await;
    // Both are taken: one by the visitor of the tunnel, one by the kept connection.
    assert_eq!(ask_once(web, &get("/")).await.status, 200, "{}", gateway.log());
    assert_eq!(accepted.load(SeqCst), 1, "by the kept connection");
    // That one made room when it had served.
    let second = tokio::net::TcpStream::connect(raw).await.expect("a connection");
    eventually("the second is in", async || inside.load(SeqCst) == 2).await;
    let mut visitor = Wire::connect(web).await;
    visitor.send(get("/")).await;
    waiting(&gateway, 1).await;
    drop(first);
    assert_eq!(reply(&mut visitor, false).await.status, 200, "{}", gateway.log());
    drop(second);
    eventually("all is over", async || inside.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn idle_connections_alone_never_fill_an_frps() {
    for limit in [1, 3] {
        let endpoint = Endpoint::answering(ok("a")).await;
        let (port, inside) = echo().await;
        let (gateway, web, raw) = one_frps(limit, endpoint.address, port).await;
        let mut crowd = JoinSet::new();
        for _ in 0..12 {
            crowd.spawn(async move { assert_eq!(ask_once(web, &get("/")).await.status, 200) });
        }
        crowd.join_all().await;
        let _visitor = tokio::net::TcpStream::connect(raw).await.expect("a connection");
        eventually("it is in", async || inside.load(SeqCst) == 1).await;
        drop(gateway);
    }
}

#[tokio::test]
async fn an_frps_takes_at_most_so_many_connections_and_one_more_for_each_further_worker() {
    let (endpoint, peak, _) = counted().await;
    let pool = ", limits: { in_flight: 100, queue: { timeout: 30s } }";
    let member = frps("e0", endpoint.address, ", limits: { connections: 3 }");
    let (gateway, address) = start(&setup(2, &[member], "", pool, "")).await;
    let mut crowd = JoinSet::new();
    for _ in 0..32 {
        crowd.spawn(async move {
            let mut visitor = Wire::connect(address).await;
            for n in 0..10 {
                let reply = ask(&mut visitor, &get("/")).await;
                assert_eq!(reply.status, 200, "request {n}: {}", reply.head);
            }
        });
    }
    crowd.join_all().await;
    let peak = peak.load(SeqCst);
    assert!((2..=4).contains(&peak), "used, and never exceeded: {peak}");
    in_flight(&gateway, 0).await;
}

#[tokio::test]
async fn an_upgraded_connection_holds_its_slot_while_it_is_open() {
    let endpoint = Endpoint::scripted(|mut wire, _, _| async move {
        while let Some(request) = wire.request().await {
            if request.contains("Upgrade: chat") {
                wire.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").await;
                wire.all().await;
                return;
            }
            wire.send(ok("plain")).await;
        }
    })
    .await;
    let pool = ", limits: { in_flight: 1, queue: { timeout: 30s } }";
    let (gateway, address) = start(&setup(1, &[frps("e0", endpoint.address, "")], "", pool, "")).await;
    let mut chat = Wire::connect(address).await;
    chat.send(get_with("/", "Connection: upgrade\r\nUpgrade: chat\r\n")).await;
    assert_eq!(reply(&mut chat, true).await.status, 101);
    let mut visitor = Wire::connect(address).await;
    visitor.send(get("/")).await;
    waiting(&gateway, 1).await;
    drop(chat);
    assert_eq!(reply(&mut visitor, false).await.body, "plain");
    in_flight(&gateway, 0).await;
}

#[tokio::test]
async fn a_raised_limit_lets_in_who_waits() {
    let (endpoint, gate) = gated("a").await;
    let text = |limit: u32| {
        let pool = format!(", limits: {{ in_flight: {limit}, queue: {{ timeout: 30s }} }}");
        setup(2, &[frps("e0", endpoint.address, "")], "", &pool, "")
    };
    let (gateway, address) = start(&text(1)).await;
    let mut all = visitors(address, 4).await;
    running(&gate, 1).await;
    waiting(&gateway, 3).await;
    apply(&gateway, &text(3)).await;
    running(&gate, 3).await;
    waiting(&gateway, 1).await;
    apply(&gateway, &setup(2, &[frps("e0", endpoint.address, "")], "", "", "")).await;
    running(&gate, 4).await;
    gate.release(4);
    for visitor in &mut all {
        assert_eq!(reply(visitor, false).await.status, 200);
    }
    in_flight(&gateway, 0).await;
}

#[tokio::test]
async fn sigterm_serves_those_who_wait() {
    let (endpoint, gate) = gated("a").await;
    let pool = ", limits: { in_flight: 1, queue: { timeout: 30s } }";
    let (mut gateway, address) = start(&setup(2, &[frps("e0", endpoint.address, "")], "", pool, "")).await;
    let mut all = visitors(address, 5).await;
    running(&gate, 1).await;
    waiting(&gateway, 4).await;
    gateway.sigterm();
    eventually("it drains", async || gateway.log().contains("draining")).await;
    gate.release(5);
    for visitor in &mut all {
        let reply = reply(visitor, false).await;
        assert_eq!(reply.status, 200, "{}", reply.head);
    }
    let status = gateway.wait_exit(PATIENCE).await.expect("it ends");
    assert_eq!((status.code(), gate.peak()), (Some(0), 1));
}

#[tokio::test]
async fn a_strict_session_that_waits_for_its_endpoint_holds_nobody_else_up() {
    const SESSIONS: &str = "affinity: { cookie: { key: 0123456789abcdef0123456789abcdef, strict: true } }";
    let (a, b) = (gated("a").await, gated("b").await);
    let members = [frps("e0", a.0.address, ""), frps("e1", b.0.address, "")];
    let pool = format!(", {SESSIONS}, limits: {{ in_flight: 1, queue: {{ timeout: 30s }} }}");
    let (gateway, address) = start(&setup(1, &members, "", &pool, "")).await;
    a.1.release(1);
    b.1.release(1);
    let (mut one, mut two) = (ask_once(address, &get("/")).await, ask_once(address, &get("/")).await);
    if one.body == "b" {
        std::mem::swap(&mut one, &mut two);
    }
    let at_a = get_with("/bound", &format!("Cookie: {}\r\n", one.session().expect("a cookie")));
    // One runs at a, one waits for a.
    let (mut first, mut second) = (Wire::connect(address).await, Wire::connect(address).await);
    first.send(&at_a).await;
    running(&a.1, 1).await;
    second.send(&at_a).await;
    waiting(&gateway, 1).await;
    b.1.release(3);
    for n in 0..3 {
        let begun = Instant::now();
        let reply = ask_once(address, &get(&format!("/free-{n}"))).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "b"), "{}", reply.head);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    a.1.release(2);
    for visitor in [&mut first, &mut second] {
        assert_eq!(reply(visitor, false).await.body, "a");
    }
}
