//! `protocol: tcp`: connections over tcp tunnels of several frps. Real frps and frpc; needs `frp-lab/build`.

#[path = "common/raw.rs"]
mod raw;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use frp_gateway_loadtest::lab::{Frpc, FrpcOptions, Gateway, Proxy, until};
use raw::{App, SOON, Site, gateway, greeting, line, members, rest, shares};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Three frps with a greeting application behind a tunnel `ssh` on each.
async fn three() -> (Vec<Site>, Vec<App>) {
    let (mut sites, mut apps) = (Vec::new(), Vec::new());
    for name in ["a", "b", "c"] {
        let app = App::greeter(name).await;
        sites.push(Site::start(name, vec![Proxy::tcp("ssh", app.address, 0)]).await);
        apps.push(app);
    }
    (sites, apps)
}

const LISTENER: &str =
    "{ name: ssh, bind: \"127.0.0.1:0\", protocol: tcp, pool: ssh, timeouts: { stream_idle: 60s } }";

/// A gateway with one pool of these tunnels, by their ports.
async fn by_port(sites: &[Site], pool: &str) -> Gateway {
    let mut list = Vec::new();
    for site in sites {
        list.push(format!("{{ name: {}, port: {} }}", site.name, site.port("ssh").await));
    }
    let entries: Vec<_> = sites.iter().map(|site| site.entry(false)).collect();
    let rest = format!("access_log: stdout\npools:\n  - {{ name: ssh, frps: [{}]{pool} }}", list.join(", "));
    gateway(&entries, &[LISTENER], &rest).await
}

/// A gateway with a pool of all tunnels called `ssh`, known by the admin APIs.
async fn by_name(sites: &[Site], pool: &str) -> Gateway {
    let entries: Vec<_> = sites.iter().map(|site| site.entry(true)).collect();
    let rest = format!("pools:\n  - {{ name: ssh, tunnels: {{ name: ssh }}{pool} }}");
    let gateway = gateway(&entries, &[LISTENER], &rest).await;
    members(&gateway, "ssh", sites.len()).await;
    gateway
}

#[tokio::test]
async fn ports_that_differ_are_one_pool_with_exact_shares() {
    let (sites, _apps) = three().await;
    let mut list = Vec::new();
    for (site, weight) in sites.iter().zip(1..) {
        list.push(format!("{{ name: {}, port: {}, weight: {weight} }}", site.name, site.port("ssh").await));
    }
    let entries: Vec<_> = sites.iter().map(|site| site.entry(false)).collect();
    let pools =
        format!("runtime: {{ workers: 1 }}\npools:\n  - {{ name: ssh, frps: [{}] }}", list.join(", "));
    // One worker: its turns are exact.
    let yaml = raw::yaml(&entries, &[LISTENER], &pools).replacen(
        "runtime: { workers: 2, drain_timeout: 2s }\n",
        "",
        1,
    );
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_frp-gateway"), &yaml).await.expect("it starts");
    let address = gateway.listener("ssh").await.expect("it listens");
    let shares = shares(address, 60).await;
    let expected = BTreeMap::from([("a".into(), 10), ("b".into(), 20), ("c".into(), 30)]);
    assert_eq!(shares, expected);
}

#[tokio::test]
async fn a_tunnel_that_comes_or_goes_is_served_or_not_at_once() {
    let (mut sites, _apps) = three().await;
    let gateway = by_name(&sites, "").await;
    let address = gateway.listener("ssh").await.expect("it listens");
    let all = shares(address, 12).await;
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(!all.contains_key("nobody"), "{all:?}");
    sites[1].frpc.kill9();
    members(&gateway, "ssh", 2).await;
    let left = shares(address, 12).await;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["a", "c"], "{left:?}");
    sites[1].frpc.restart().await.expect("frpc starts again");
    members(&gateway, "ssh", 3).await;
    let back = shares(address, 12).await;
    assert!(back.contains_key("b"), "{back:?}");
}

#[tokio::test]
async fn an_frps_killed_under_new_connections_fails_none() {
    let (mut sites, _apps) = three().await;
    for known in [false, true] {
        let gateway = if known { by_name(&sites, "").await } else { by_port(&sites, "").await };
        let address = gateway.listener("ssh").await.expect("it listens");
        let visitors: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn(async move {
                    let (mut served, end) =
                        (BTreeMap::<String, usize>::new(), Instant::now() + Duration::from_secs(2));
                    while Instant::now() < end {
                        *served
                            .entry(greeting(address).await.unwrap_or_else(|| "nobody".into()))
                            .or_default() += 1;
                    }
                    served
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        sites[2].frps.kill9();
        let mut all = BTreeMap::<String, usize>::new();
        for visitor in visitors {
            for (name, count) in visitor.await.expect("a visitor") {
                *all.entry(name).or_default() += count;
            }
        }
        println!("known by listing: {known}, served: {all:?}");
        let log = gateway.log();
        let odd: Vec<_> = log.lines().filter(|line| !line.contains("\"end\":\"closed\"")).collect();
        assert_eq!(all.get("nobody"), None, "{all:?}\n{}", odd.join("\n"));
        assert!(all.contains_key("c"), "it served before: {all:?}");
        sites[2].frps.restart().await.expect("frps starts again");
        sites[2].frpc.restart().await.expect("frpc starts again");
    }
}

#[tokio::test]
async fn a_dead_application_behind_one_tunnel_is_passed_over_while_nothing_was_sent() {
    let (sites, mut apps) = three().await;
    let gateway = by_port(&sites, "").await;
    let address = gateway.listener("ssh").await.expect("it listens");
    drop(apps.remove(1)); // frps accepts all the same
    let all = shares(address, 20).await;
    assert_eq!(all.get("nobody"), None, "{all:?}");
    assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "c"], "{all:?}");
}

#[tokio::test]
async fn half_closes_are_kept_both_ways() {
    // An FRP tunnel ends as a whole when one side does, so this is between the gateway and a port.
    let app = App::collector("a").await;
    let gateway = direct(&app, LISTENER, "").await;
    let mut stream =
        TcpStream::connect(gateway.listener("ssh").await.expect("it listens")).await.expect("in");
    let sent = vec![b'x'; 300_000];
    stream.write_all(&sent).await.expect("sent");
    stream.shutdown().await.expect("half-closed");
    let (all, reset) = rest(&mut stream).await;
    assert!(!reset && all.len() == 300_002 && all.starts_with(b"a\n"), "{} bytes, reset {reset}", all.len());
    let bytes = async |direction| {
        gateway
            .metric("frp_gateway_relayed_bytes_total", &[&format!("direction=\"{direction}\"")])
            .await
            .ok()
            .flatten()
    };
    until("the count", SOON, async || (bytes("in").await == Some(300_000.0)).then_some(()))
        .await
        .expect("counted");
    assert_eq!(bytes("out").await, Some(300_002.0));
}

/// An application on the gateway's own machine, as the port of an frps would be.
async fn direct(app: &App, listener: &str, pool: &str) -> Gateway {
    let entry = "{ name: a, host: 127.0.0.1 }".to_owned();
    let rest = format!("pools:\n  - {{ name: ssh, port: {}{pool} }}", app.address.port());
    gateway(&[entry], &[listener], &rest).await
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset_both_ways() {
    let app = App::start(|mut stream| {
        tokio::spawn(async move {
            let mut byte = [0];
            drop(stream.write_all(b"ready\n").await);
            if matches!(stream.read(&mut byte).await, Ok(1..)) {
                drop(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
            } else {
                println!("the application saw an end or reset");
            }
        })
    })
    .await;
    let gateway = direct(&app, LISTENER, "").await;
    let address = gateway.listener("ssh").await.expect("it listens");
    let mut stream = TcpStream::connect(address).await.expect("in");
    assert_eq!(line(&mut stream).await.as_deref(), Some("ready"));
    stream.write_all(b"x").await.expect("sent");
    assert_eq!(rest(&mut stream).await, (Vec::new(), true), "the endpoint's reset");
    let mut stream = TcpStream::connect(address).await.expect("in");
    assert_eq!(line(&mut stream).await.as_deref(), Some("ready"));
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(stream);
    for end in ["endpoint_reset", "visitor_reset"] {
        until(end, SOON, async || {
            let count =
                gateway.metric("frp_gateway_relays_total", &[&format!("end=\"{end}\"")]).await.ok()?;
            (count == Some(1.0)).then_some(())
        })
        .await
        .expect("counted");
    }
}

#[tokio::test]
async fn a_silent_connection_ends_after_stream_idle_and_one_that_speaks_does_not() {
    let app = App::greeter("a").await;
    let listener = LISTENER.replace("60s", "400ms");
    let gateway = direct(&app, &listener, "").await;
    let address = gateway.listener("ssh").await.expect("it listens");
    let (mut silent, mut speaks) =
        (TcpStream::connect(address).await.expect("in"), TcpStream::connect(address).await.expect("in"));
    line(&mut speaks).await.expect("greeted");
    let begun = Instant::now();
    let silent = tokio::spawn(async move { (rest(&mut silent).await, begun.elapsed()) });
    while begun.elapsed() < Duration::from_millis(1500) {
        speaks.write_all(b"x\n").await.expect("sent");
        assert_eq!(line(&mut speaks).await.as_deref(), Some("x"), "after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ((bytes, reset), took) = silent.await.expect("it ends");
    assert_eq!((bytes.as_slice(), reset), (&b"a\n"[..], true), "a cut must not look like an end");
    assert!((400..1400).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn visitors_of_one_address_stay_at_one_member_through_a_reload() {
    let (sites, _apps) = three().await;
    let gateway = by_port(&sites, ", affinity: source_ip").await;
    let address = gateway.listener("ssh").await.expect("it listens");
    let first = shares(address, 10).await;
    assert_eq!(first.len(), 1, "{first:?}");
    let file = std::fs::read_to_string(gateway.file()).expect("its file");
    gateway
        .edit(&file.replace("affinity: source_ip", "affinity: source_ip, connect_timeout: 1s"))
        .expect("edited");
    until("the reload", SOON, async || gateway.log().contains("reloaded").then_some(()))
        .await
        .expect("it reloads");
    assert_eq!(shares(address, 10).await, first);
}

#[tokio::test]
async fn least_request_counts_open_connections() {
    let (sites, _apps) = three().await;
    let gateway = by_port(&sites, ", balance: least_request").await;
    let address = gateway.listener("ssh").await.expect("it listens");
    let mut open = Vec::new();
    let mut served = BTreeMap::<String, usize>::new();
    for _ in 0..9 {
        let mut stream = TcpStream::connect(address).await.expect("in");
        *served.entry(line(&mut stream).await.expect("greeted")).or_default() += 1;
        open.push(stream);
    }
    assert!(served.values().all(|count| *count == 3), "{served:?}");
}

#[tokio::test]
async fn a_full_pool_queues_and_then_refuses() {
    let app = App::greeter("a").await;
    let pool = ", limits: { in_flight: 1, queue: { size: 1, timeout: 10s } }";
    let gateway = direct(&app, LISTENER, pool).await;
    let address = gateway.listener("ssh").await.expect("it listens");
    let mut first = TcpStream::connect(address).await.expect("in");
    assert_eq!(line(&mut first).await.as_deref(), Some("a"));
    let mut second = TcpStream::connect(address).await.expect("in");
    until("the queue", SOON, async || {
        let waiting = gateway.metric("frp_gateway_pool_queue_length", &["pool=\"ssh\""]).await.ok()?;
        (waiting == Some(1.0)).then_some(())
    })
    .await
    .expect("the second waits");
    // The reset may come before the connect has looked.
    if let Ok(mut third) = TcpStream::connect(address).await {
        assert_eq!(rest(&mut third).await, (Vec::new(), true), "the line is full");
    }
    until("the refusal to be counted", SOON, async || {
        let refused =
            gateway.metric("frp_gateway_own_answers_total", &["class=\"overloaded\""]).await.ok()?;
        (refused == Some(1.0)).then_some(())
    })
    .await
    .expect("it is counted");
    drop(first);
    assert_eq!(line(&mut second).await.as_deref(), Some("a"), "its turn");
}

#[tokio::test]
async fn a_removed_listener_and_a_drain_let_connections_go_on_until_the_deadline() {
    let app = App::greeter("a").await;
    let mut gateway = direct(&app, LISTENER, "").await;
    let address = gateway.listener("ssh").await.expect("it listens");
    let mut stream = TcpStream::connect(address).await.expect("in");
    line(&mut stream).await.expect("greeted");
    let file = std::fs::read_to_string(gateway.file()).expect("its file");
    gateway.edit(&file.replace("name: ssh, bind", "name: other, bind")).expect("edited");
    until("the old listener to close", SOON, async || {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await
    .expect("it closes");
    let begun = Instant::now();
    stream.write_all(b"still\n").await.expect("sent");
    assert_eq!(line(&mut stream).await.as_deref(), Some("still"));
    assert_eq!(rest(&mut stream).await, (Vec::new(), true), "cut at the deadline");
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());

    let mut stream =
        TcpStream::connect(gateway.listener("other").await.expect("it listens")).await.expect("in");
    line(&mut stream).await.expect("greeted");
    gateway.sigterm();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        stream.write_all(b"on\n").await.expect("sent");
        assert_eq!(line(&mut stream).await.as_deref(), Some("on"), "after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rest(&mut stream).await, (Vec::new(), true), "cut at the deadline");
    let exit = timeout(SOON, gateway.wait_exit(SOON)).await.expect("in time").expect("it ends");
    assert!(exit.success(), "{exit}");
}

#[tokio::test]
async fn a_connection_waits_for_a_tunnel_that_is_away() {
    let app = App::greeter("a").await;
    let mut sites = vec![Site::start("a", vec![Proxy::tcp("ssh", app.address, 0)]).await];
    let gateway = by_name(&sites, ", hold: 10s").await;
    let address = gateway.listener("ssh").await.expect("it listens");
    assert_eq!(greeting(address).await.as_deref(), Some("a"));
    sites[0].frpc.kill9();
    members(&gateway, "ssh", 0).await;
    let waiting = tokio::spawn(greeting(address));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "it waits");
    sites[0].frpc.restart().await.expect("frpc starts again");
    assert_eq!(waiting.await.expect("a visitor").as_deref(), Some("a"));
}

#[tokio::test]
async fn a_slow_application_gets_less_under_peak_ewma_and_a_standby_only_what_others_leave() {
    let (mut sites, mut apps) = (Vec::new(), Vec::new());
    for (name, delay) in [("quick", 1), ("slow", 100), ("standby", 1)] {
        let app = App::start(move |mut stream| {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                drop(stream.write_all(format!("{name}\n").as_bytes()).await);
                drop(stream.shutdown().await);
            })
        })
        .await;
        sites.push(Site::start(name, vec![Proxy::tcp("ssh", app.address, 0)]).await);
        apps.push(app);
    }
    let mut list = Vec::new();
    for (site, priority) in sites.iter().zip([0, 0, 1]) {
        let port = site.port("ssh").await;
        list.push(format!("{{ name: {}, port: {port}, priority: {priority} }}", site.name));
    }
    let entries: Vec<_> = sites.iter().map(|site| site.entry(false)).collect();
    let pools = format!("pools:\n  - {{ name: ssh, balance: peak_ewma, frps: [{}] }}", list.join(", "));
    let gateway = gateway(&entries, &[LISTENER], &pools).await;
    let address = gateway.listener("ssh").await.expect("it listens");
    let all = shares(address, 100).await;
    let of = |name: &str| all.get(name).copied().unwrap_or_default();
    assert!(of("slow") < 20 && of("quick") > 80 && of("standby") == 0, "{all:?}");
    sites[0].frps.kill9();
    sites[1].frps.kill9();
    let left = shares(address, 10).await;
    assert_eq!(left, BTreeMap::from([("standby".to_owned(), 10)]), "{left:?}");
}

#[tokio::test]
async fn tcp_probes_leave_out_an_frps_that_is_gone() {
    let (sites, _apps) = three().await;
    let gateway = by_port(&sites, ", health: { tcp: {}, interval: 100ms, timeout: 100ms, fall: 1 }").await;
    let address = gateway.listener("ssh").await.expect("it listens");
    assert_eq!(shares(address, 12).await.len(), 3);
    let dead = gateway
        .metric("frp_gateway_endpoint_up", &["pool=\"ssh\"", "endpoint=\"b\""])
        .await
        .expect("metrics");
    assert_eq!(dead, Some(1.0));
    let mut sites = sites;
    sites[1].frps.kill9();
    until("the probes to tell", SOON, async || {
        let up = gateway.metric("frp_gateway_endpoint_up", &["pool=\"ssh\"", "endpoint=\"b\""]).await.ok()?;
        (up == Some(0.0)).then_some(())
    })
    .await
    .expect("they tell");
    assert_eq!(shares(address, 12).await.keys().collect::<Vec<_>>(), ["a", "c"]);
}

#[tokio::test]
async fn a_port_that_passes_to_another_tunnel_unseen_gets_no_connection() {
    let (app, other) = (App::greeter("ours").await, App::greeter("theirs").await);
    let mut sites = [Site::start("a", vec![Proxy::tcp("ssh", app.address, 0)]).await];
    let port = sites[0].port("ssh").await;
    // Nobody lists for a minute.
    let entry = sites[0].entry(true).replace("200ms", "60s");
    let rest = "pools:\n  - { name: ssh, hold: off, tunnels: { name: ssh } }";
    let gateway = gateway(&[entry], &[LISTENER], rest).await;
    members(&gateway, "ssh", 1).await;
    let address = gateway.listener("ssh").await.expect("it listens");
    assert_eq!(greeting(address).await.as_deref(), Some("ours"));
    sites[0].frpc.kill9();
    sites[0].frps.wait_offline(&["ssh"], SOON).await.expect("frps forgets it");
    let options = FrpcOptions::new(&sites[0].frps).proxy(Proxy::tcp("db", other.address, port));
    let _theirs = Frpc::start(options).await.expect("another has the port");
    let direct = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(greeting(direct).await.as_deref(), Some("theirs"), "it does have it");
    for _ in 0..20 {
        assert_eq!(greeting(address).await, None, "{}", gateway.log());
    }
}

#[tokio::test]
async fn each_connection_is_one_line_of_the_access_log() {
    let (sites, _apps) = three().await;
    let gateway = by_port(&sites, "").await;
    let address = gateway.listener("ssh").await.expect("it listens");
    let mut stream = TcpStream::connect(address).await.expect("in");
    stream.write_all(b"12345").await.expect("sent");
    stream.shutdown().await.expect("ended");
    let (got, _) = rest(&mut stream).await;
    let logged = until("the line", SOON, async || {
        let log = gateway.log();
        log.lines().find(|line| line.contains("\"protocol\":\"tcp\"")).map(str::to_owned)
    });
    let logged = logged.await.expect("it is logged");
    for part in [
        "\"listener\":\"ssh\"",
        "\"peer\":\"127.0.0.1\"",
        "\"pool\":\"ssh\"",
        "\"attempts\":1",
        "\"pick\":\"turn\"",
        "\"bytes_in\":5",
        &format!("\"bytes\":{}", got.len()),
        "\"end\":\"closed\"",
    ] {
        assert!(logged.contains(part), "{part} in {logged}");
    }
}
