//! `protocol: udp`: datagrams over udp tunnels of several frps. Real frps and frpc; needs `frp-lab/build`.

#[path = "common/raw.rs"]
mod raw;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use frp_gateway_loadtest::lab::{Gateway, Proxy, until};
use raw::{SOON, Site, gateway, members};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{net::UdpSocket, task::JoinHandle, time::timeout};

/// An application that answers each datagram with its name, a blank, the number of datagrams from that source so far, a
/// blank, and the datagram; to `length N` with N bytes, to `measure` and more with the length of it all.
struct App {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl App {
    async fn start(name: &'static str) -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), name).await
    }

    async fn at(address: SocketAddr, name: &'static str) -> Self {
        let socket = UdpSocket::bind(address).await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            let (mut datagram, mut counts) = (vec![0; 65536], BTreeMap::new());
            loop {
                // An answer that nobody takes is told here.
                let Ok((n, from)) = socket.recv_from(&mut datagram).await else { continue };
                let count: &mut u64 = counts.entry(from).or_default();
                *count += 1;
                let said = String::from_utf8_lossy(&datagram[..n]).into_owned();
                let answer = match said.strip_prefix("length ").and_then(|length| length.parse().ok()) {
                    Some(length) => "x".repeat(length),
                    None if said.starts_with("measure") => n.to_string(),
                    None => format!("{name} {count} {said}"),
                };
                drop(socket.send_to(answer.as_bytes(), from).await);
            }
        });
        Self { address, task }
    }
}

/// A visitor at an address of its own. No two of its datagrams are the same, so that late answers are known as such.
struct Visitor {
    socket: UdpSocket,
    said: AtomicUsize,
}

impl Visitor {
    async fn to(gateway: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        socket.connect(gateway).await.expect("connected");
        Self { socket, said: AtomicUsize::new(0) }
    }

    async fn say(&self, what: &str) {
        self.socket.send(what.as_bytes()).await.expect("sent");
    }

    /// The next answer within `patience`.
    async fn hear(&self, patience: Duration) -> Option<String> {
        let mut answer = vec![0; 65536];
        let n = timeout(patience, self.socket.recv(&mut answer)).await.ok()?.ok()?;
        Some(String::from_utf8_lossy(&answer[..n]).into_owned())
    }

    /// Who answers one datagram within `patience`.
    async fn try_ask(&self, what: &str, patience: Duration) -> Option<String> {
        let unique = format!("{what}-{}", self.said.fetch_add(1, Relaxed));
        self.say(&unique).await;
        let deadline = Instant::now() + patience;
        loop {
            let answer = self.hear(deadline.saturating_duration_since(Instant::now())).await?;
            if answer.ends_with(&unique) {
                return answer.split(' ').next().map(str::to_owned);
            }
        }
    }

    /// Who answers `what`; says it once.
    async fn ask(&self, what: &str) -> String {
        self.try_ask(what, SOON).await.unwrap_or_else(|| "nobody".to_owned())
    }

    /// Who answers, if anybody does; says it again each second, as what speaks UDP must.
    async fn ask_again(&self, what: &str) -> String {
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            if let Some(name) = self.try_ask(what, Duration::from_secs(1)).await {
                return name;
            }
        }
        "nobody".to_owned()
    }
}

/// Two frps with an application behind a udp tunnel `dns` on each.
async fn two() -> (Vec<Site>, Vec<App>) {
    let (mut sites, mut apps) = (Vec::new(), Vec::new());
    for name in ["a", "b"] {
        let app = App::start(name).await;
        let proxy = Proxy::new("dns", "udp", app.address).line("remotePort = 0");
        sites.push(Site::start(name, vec![proxy]).await);
        apps.push(app);
    }
    (sites, apps)
}

const LISTENER: &str =
    "{ name: dns, bind: \"127.0.0.1:0\", protocol: udp, pool: dns, timeouts: { stream_idle: 20s } }";

async fn by_port(sites: &[Site], listener: &str, pool: &str) -> Gateway {
    let mut list = Vec::new();
    for site in sites {
        list.push(format!("{{ name: {}, port: {} }}", site.name, site.port("dns").await));
    }
    let entries: Vec<_> = sites.iter().map(|site| site.entry(false)).collect();
    let rest = format!("access_log: stdout\npools:\n  - {{ name: dns, frps: [{}]{pool} }}", list.join(", "));
    gateway(&entries, &[listener], &rest).await
}

async fn by_name(sites: &[Site]) -> Gateway {
    let entries: Vec<_> = sites.iter().map(|site| site.entry(true)).collect();
    let rest = "pools:\n  - { name: dns, tunnels: { name: dns } }";
    let gateway = gateway(&entries, &[LISTENER], rest).await;
    members(&gateway, "dns", sites.len()).await;
    gateway
}

async fn address(gateway: &Gateway) -> SocketAddr {
    gateway.listener("dns").await.expect("it listens")
}

async fn metric(gateway: &Gateway, name: &str, labels: &[&str]) -> f64 {
    gateway.metric(name, labels).await.expect("it answers").unwrap_or_default()
}

async fn counted(gateway: &Gateway, name: &str, labels: &[&str], count: f64) {
    until(&format!("{name} {labels:?} = {count}"), SOON, async || {
        (metric(gateway, name, labels).await.to_string() == count.to_string()).then_some(())
    })
    .await
    .expect("it is counted");
}

/// Whom these many new visitors come to.
async fn shares(address: SocketAddr, count: usize) -> (BTreeMap<String, usize>, Vec<Visitor>) {
    let (mut shares, mut visitors) = (BTreeMap::new(), Vec::new());
    for _ in 0..count {
        let visitor = Visitor::to(address).await;
        *shares.entry(visitor.ask_again("who").await).or_default() += 1;
        visitors.push(visitor);
    }
    (shares, visitors)
}

#[tokio::test]
async fn sources_are_shared_among_frps_and_each_stays_where_it_is() {
    let (sites, _apps) = two().await;
    let gateway = by_port(&sites, LISTENER, ", balance: least_request").await;
    let address = address(&gateway).await;
    let (shares, visitors) = shares(address, 20).await;
    assert_eq!(shares, BTreeMap::from([("a".into(), 10), ("b".into(), 10)]), "open sessions count");
    for visitor in &visitors {
        let first = visitor.ask("again").await;
        for _ in 0..5 {
            assert_eq!(visitor.ask("and again").await, first);
        }
    }
    assert_eq!(metric(&gateway, "frp_gateway_connections_open", &[]).await.to_string(), "20");
    assert_eq!(metric(&gateway, "frp_gateway_connections_accepted_total", &[]).await.to_string(), "20");
}

#[tokio::test]
async fn tunnels_known_by_listing_are_a_pool_and_one_that_goes_takes_its_sessions_elsewhere() {
    let (mut sites, _apps) = two().await;
    let gateway = by_name(&sites).await;
    let (shares, visitors) = shares(address(&gateway).await, 8).await;
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["a", "b"], "{shares:?}");
    sites[0].frpc.kill9();
    members(&gateway, "dns", 1).await;
    for visitor in &visitors {
        assert_eq!(visitor.ask_again("who").await, "b");
    }
    sites[0].frpc.restart().await.expect("frpc starts again");
    members(&gateway, "dns", 2).await;
    for visitor in &visitors {
        assert_eq!(visitor.ask_again("who").await, "b", "they stay");
    }
}

#[tokio::test]
async fn sessions_of_a_killed_frps_go_on_at_another_within_one_datagram() {
    let (mut sites, _apps) = two().await;
    for known in [false, true] {
        let gateway = if known { by_name(&sites).await } else { by_port(&sites, LISTENER, "").await };
        let address = address(&gateway).await;
        let (before, visitors) = shares(address, 8).await;
        assert_eq!(before.len(), 2, "known by listing: {known}: {before:?}");
        sites[1].frps.kill9();
        for visitor in &visitors {
            let begun = Instant::now();
            // Said once: what the dead one refused is sent again.
            assert_eq!(visitor.ask("who").await, "a", "known by listing: {known}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
        let (after, _) = shares(address, 4).await;
        assert_eq!(after, BTreeMap::from([("a".into(), 4)]), "known by listing: {known}");
        sites[1].frps.restart().await.expect("frps starts again");
        sites[1].frpc.restart().await.expect("frpc starts again");
    }
}

#[tokio::test]
async fn sessions_of_a_frozen_frps_move_once_that_is_known() {
    let (mut sites, _apps) = two().await;
    let gateway = by_name(&sites).await;
    let (before, visitors) = shares(address(&gateway).await, 8).await;
    assert_eq!(before.len(), 2, "{before:?}");
    sites[1].frps.sigstop();
    let begun = Instant::now();
    for visitor in &visitors {
        assert_eq!(visitor.ask_again("who").await, "a", "{}", gateway.log());
    }
    println!("all moved after {:?}", begun.elapsed());
    sites[1].frps.sigcont();
}

#[tokio::test]
async fn without_a_member_datagrams_are_dropped_and_counted_and_later_ones_served() {
    let app = App::start("a").await;
    let port = app.address.port();
    let gateway = direct(&app, ", fail_timeout: 100ms").await;
    let visitor = Visitor::to(address(&gateway).await).await;
    assert_eq!(visitor.ask("who").await, "a");
    drop(app);
    until("the drop", SOON, async || {
        visitor.say("lost").await;
        (metric(&gateway, "frp_gateway_datagrams_dropped_total", &[]).await >= 1.0).then_some(())
    })
    .await
    .expect("counted");
    until("the end", SOON, async || {
        (metric(&gateway, "frp_gateway_relays_total", &["end=\"refused\""]).await >= 1.0).then_some(())
    })
    .await
    .expect("counted");
    counted(&gateway, "frp_gateway_endpoint_in_flight", &[], 0.0).await;
    let _app = App::at(SocketAddr::from(([127, 0, 0, 1], port)), "a").await;
    assert_eq!(visitor.ask_again("who").await, "a", "{}", gateway.log());
}

/// An application on the gateway's own machine, as the port of an frps would be.
async fn direct(app: &App, pool: &str) -> Gateway {
    let rest = format!("pools:\n  - {{ name: dns, port: {}{pool} }}", app.address.port());
    gateway(&["{ name: a, host: 127.0.0.1 }".to_owned()], &[LISTENER], &rest).await
}

#[tokio::test]
async fn a_silent_session_ends_and_the_next_datagram_begins_another() {
    let app = App::start("a").await;
    let rest = format!("access_log: stdout\npools:\n  - {{ name: dns, port: {} }}", app.address.port());
    let listener = LISTENER.replace("20s", "400ms");
    let gateway = gateway(&["{ name: a, host: 127.0.0.1 }".to_owned()], &[&listener], &rest).await;
    let visitor = Visitor::to(address(&gateway).await).await;
    visitor.ask_again("one").await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        visitor.ask("two").await;
    }
    assert_eq!(metric(&gateway, "frp_gateway_connections_accepted_total", &[]).await.to_string(), "1");
    counted(&gateway, "frp_gateway_connections_open", &[], 0.0).await;
    counted(&gateway, "frp_gateway_relays_total", &["end=\"idle\""], 1.0).await;
    counted(&gateway, "frp_gateway_endpoint_in_flight", &[], 0.0).await;
    let sent = metric(&gateway, "frp_gateway_relayed_bytes_total", &["direction=\"in\""]).await;
    assert!((40.0..=80.0).contains(&sent), "{sent} bytes of nine datagrams");
    visitor.ask("three").await;
    assert_eq!(metric(&gateway, "frp_gateway_connections_accepted_total", &[]).await.to_string(), "2");
    let line = until("a line in the access log", SOON, async || {
        gateway.log().lines().find(|line| line.contains("\"end\":\"idle\"")).map(str::to_owned)
    });
    let line = line.await.expect("logged");
    assert!(line.contains("\"protocol\":\"udp\"") && line.contains("\"pool\":\"dns\""), "{line}");
}

#[tokio::test]
async fn more_sources_than_the_limit_are_not_served_until_others_end() {
    let (sites, _apps) = two().await;
    let listener = LISTENER.replace("stream_idle: 20s }", "stream_idle: 1s }, limits: { connections: 2 }");
    let gateway = by_port(&sites[..1], &listener, "").await;
    let address = address(&gateway).await;
    let (_, visitors) = shares(address, 2).await;
    let third = Visitor::to(address).await;
    third.say("who").await;
    counted(&gateway, "frp_gateway_connections_refused_total", &[], 1.0).await;
    assert_eq!(third.hear(Duration::from_millis(100)).await, None);
    visitors[0].ask("still").await;
    drop(visitors);
    assert_eq!(third.ask_again("who").await, "a", "once the others are silent");
}

#[tokio::test]
async fn a_reload_keeps_sessions_and_takes_them_off_a_member_that_is_removed() {
    let (sites, _apps) = two().await;
    let gateway = by_port(&sites, LISTENER, "").await;
    let address = address(&gateway).await;
    let mut before = Vec::new();
    for _ in 0..8 {
        let visitor = Visitor::to(address).await;
        before.push((visitor.ask_again("who").await, visitor));
    }
    assert_eq!(before.iter().map(|(name, _)| &**name).collect::<BTreeSet<_>>().len(), 2);
    let yaml = std::fs::read_to_string(gateway.file()).expect("its file");
    let reloaded = async |yaml: &str, times: usize| {
        gateway.edit(yaml).expect("edited");
        until("the reload", SOON, async || {
            (gateway.log().matches("\"reloaded\"").count().max(gateway.log().matches("reloaded").count())
                >= times)
                .then_some(())
        })
        .await
        .expect("it reloads");
    };
    reloaded(&yaml.replace("name: dns, frps", "name: dns, connect_timeout: 1s, frps"), 1).await;
    for (name, visitor) in &before {
        assert_eq!(visitor.ask("who").await, *name, "nothing changed for it");
    }
    let only_a = format!("frps: [{{ name: a, port: {} }}]", sites[0].port("dns").await);
    let start = yaml.find("frps: [{ name: a, port").expect("the members");
    let end = start + yaml[start..].find(']').expect("their end") + 1;
    reloaded(&yaml.replace(&yaml[start..end], &only_a), 2).await;
    for (_, visitor) in &before {
        assert_eq!(visitor.ask_again("who").await, "a");
    }
}

#[tokio::test]
async fn a_listener_that_is_renamed_serves_everybody_on() {
    let (sites, _apps) = two().await;
    let taken = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let fixed = taken.local_addr().expect("bound");
    drop(taken);
    let listener = LISTENER.replace("127.0.0.1:0", &fixed.to_string());
    let gateway = by_port(&sites[..1], &listener, "").await;
    let (_, old) = shares(fixed, 4).await;
    let yaml = std::fs::read_to_string(gateway.file()).expect("its file");
    gateway.edit(&yaml.replace("name: dns, bind", "name: other, bind")).expect("edited");
    until("the reload", SOON, async || gateway.listener("other").await.ok()).await.expect("it is there");
    for visitor in &old {
        assert_eq!(visitor.ask_again("who").await, "a");
    }
    let (shares, _) = shares(fixed, 8).await;
    assert_eq!(shares, BTreeMap::from([("a".into(), 8)]));
}

#[tokio::test]
async fn a_drain_lets_sessions_go_on_until_the_deadline_and_begins_none() {
    let (sites, _apps) = two().await;
    let mut gateway = by_port(&sites[..1], LISTENER, "").await;
    let address = address(&gateway).await;
    let visitor = Visitor::to(address).await;
    visitor.ask_again("who").await;
    gateway.sigterm();
    until("the drain", SOON, async || gateway.log().contains("drain").then_some(()))
        .await
        .expect("it drains");
    let stranger = Visitor::to(address).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1200) {
        assert_eq!(visitor.ask("still").await, "a", "after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(stranger.socket.send(b"who").await);
    assert_eq!(stranger.hear(Duration::from_millis(200)).await, None);
    let exit = timeout(SOON, gateway.wait_exit(SOON)).await.expect("in time").expect("it ends");
    assert!(exit.success(), "{exit}");
}

#[tokio::test]
async fn sources_of_one_address_stay_together_by_source_ip() {
    let (sites, _apps) = two().await;
    let gateway = by_port(&sites, LISTENER, ", affinity: source_ip").await;
    let (shares, _) = shares(address(&gateway).await, 10).await;
    assert_eq!(shares.len(), 1, "{shares:?}");
}

#[tokio::test]
async fn frp_cuts_datagrams_at_1500_bytes_and_the_gateway_does_not() {
    let (sites, apps) = two().await;
    let gateway_by_frp = by_port(&sites[..1], LISTENER, "").await;
    let visitor = Visitor::to(address(&gateway_by_frp).await).await;
    visitor.ask_again("who").await;
    visitor.say("length 1500").await;
    assert_eq!(visitor.hear(SOON).await.expect("an answer").len(), 1500);
    visitor.say("length 1501").await;
    assert_eq!(visitor.hear(SOON).await.expect("an answer").len(), 1500, "by FRP, silently");
    visitor.say(&format!("{:x<2000}", "measure")).await;
    assert_eq!(visitor.hear(SOON).await.as_deref(), Some("1500"), "the same way there");
    let direct = direct(&apps[0], "").await;
    let visitor = Visitor::to(address(&direct).await).await;
    for length in [0, 1501, 9000, 60000] {
        visitor.say(&format!("length {length}")).await;
        assert_eq!(visitor.hear(SOON).await.expect("an answer").len(), length);
        visitor.say(&format!("{:x<1$}", "measure", length.max(7))).await;
        assert_eq!(visitor.hear(SOON).await, Some(length.max(7).to_string()));
    }
}

#[tokio::test]
async fn an_upgrade_leaves_no_datagram_unanswered() {
    let app = App::start("a").await;
    let gateway = direct(&app, "").await;
    let address = address(&gateway).await;
    let visitors: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let visitor = Visitor::to(address).await;
                let (mut lost, begun) = (0, Instant::now());
                let mut asked = 0;
                while begun.elapsed() < Duration::from_secs(3) {
                    asked += 1;
                    lost += usize::from(visitor.try_ask("who", Duration::from_secs(2)).await.is_none());
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (asked, lost)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let admin = format!("http://{}", gateway.admin());
    let binary = env!("CARGO_BIN_EXE_frp-gateway");
    let done = tokio::process::Command::new(binary).args(["upgrade", "--admin", &admin]).output().await;
    let done = done.expect("it runs");
    let log = gateway.log();
    let pid =
        log.lines().find_map(|line| line.split_once("upgrade: the new process starts")?.1.split_once("pid="));
    let pid = pid.and_then(|(_, pid)| pid.split(' ').next()?.parse().ok()).and_then(Pid::from_raw);
    let mut total = (0, 0);
    for visitor in visitors {
        let (asked, lost) = visitor.await.expect("a visitor");
        total = (total.0 + asked, total.1 + lost);
    }
    // Nobody's child here.
    let killed = pid.map(|pid| kill_process(pid, Signal::KILL));
    assert_eq!(killed, Some(Ok(())), "the new process serves");
    assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), gateway.log());
    assert!(total.0 > 1000 && total.1 == 0, "asked and lost {total:?}\n{}", gateway.log());
}

#[tokio::test]
async fn what_frpc_adds_of_its_own_is_in_the_first_datagram_and_names_the_gateway_or_nobody() {
    let app = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let at = app.local_addr().expect("bound");
    let hear = async || {
        let mut got = vec![0; 2048];
        let (n, from) = timeout(SOON, app.recv_from(&mut got)).await.expect("in time").expect("received");
        app.send_to(b"answer", from).await.expect("sent");
        got[..n].to_vec()
    };
    for version in ["v1", "v2"] {
        let proxy = Proxy::new("dns", "udp", at).line("remotePort = 0");
        let proxy = proxy.line(&format!("transport.proxyProtocolVersion = {version:?}"));
        let sites = [Site::start("a", vec![proxy]).await];
        let gateway = by_port(&sites, LISTENER, "").await;
        let visitor = Visitor::to(address(&gateway).await).await;
        visitor.say("hello").await;
        let first = hear().await;
        if version == "v1" {
            assert_eq!(first, b"PROXY UNKNOWN\r\nhello");
        } else {
            let begin =
                [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x12, 0, 12, 127, 0, 0, 1, 127, 0, 0, 1]].concat();
            assert_eq!((&first[..24], &first[28..]), (&begin[..], &b"hello"[..]));
            let visitors = visitor.socket.local_addr().expect("bound").port().to_be_bytes();
            assert_ne!(first[24..26], visitors, "the port of the gateway's session");
        }
        visitor.say("hello").await;
        assert_eq!(hear().await, b"hello", "once a session");
    }
}
