//! frpc that dial the gateway are placed on one of several frps, stay while it lives and move when it dies. Real frps and frpc;
//! needs `frp-lab/build`.

#[path = "common/control.rs"]
mod control;
#[path = "common/takeover.rs"]
mod takeover;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use control::Site;
use frp_gateway_loadtest::{
    demo::DemoApp,
    http,
    lab::{Frpc, Proxy, until},
};
use takeover::{SOON, app};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

async fn twelve(site: &Site) -> (Vec<DemoApp>, Vec<Frpc>) {
    let (mut apps, mut clients) = (Vec::new(), Vec::new());
    for n in 0..12 {
        let app = app(&format!("app{n}"));
        let proxy = Proxy::http("web", app.addr(), &[&format!("h{n}.test")]);
        // All at once: nobody waits for the one before.
        clients.push(Frpc::start_unready(site.options(&format!("u{n:02}"), vec![proxy])).expect("it starts"));
        apps.push(app);
    }
    for client in &mut clients {
        client.wait_running(SOON).await.expect("its tunnel is up");
    }
    (apps, clients)
}

/// Waits until each host is answered by its own application, and says when each first was.
async fn until_served(site: &Site, hosts: usize, begun: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    for n in 0..hosts {
        let served = until(&format!("h{n}.test to be served"), SOON, async || {
            let reply = http::get(site.world.web, &format!("h{n}.test"), "/").await.ok()?;
            (reply.app() == Some(&format!("app{n}"))).then_some(())
        })
        .await;
        assert!(served.is_ok(), "{served:?}\n{}", site.world.gateway().log());
        took.push(begun.elapsed());
    }
    took
}

#[tokio::test]
async fn twelve_frpc_that_dial_at_once_are_spread_four_four_four_and_move_when_their_frps_is_killed() {
    let mut site = Site::start(&["a", "b", "c"], "", "").await;
    let (_apps, _clients) = twelve(&site).await;
    let even = BTreeMap::from([("a".into(), 4), ("b".into(), 4), ("c".into(), 4)]);
    assert_eq!(site.spread().await, even, "{:?}", site.clients().await);
    let users: Vec<_> = site.clients().await.into_iter().map(|(user, _)| user).collect();
    let expected: Vec<_> = (0..12).map(|n| format!("u{n:02}")).collect();
    assert_eq!(users, expected, "the Login call names clients whose TLS is passed through");
    until_served(&site, 12, Instant::now()).await;

    let begun = Instant::now();
    site.world.frps[0].kill9();
    let at = site
        .until_clients("all twelve elsewhere", |all| {
            all.len() == 12 && all.iter().all(|(user, frps)| frps != "a" && user != "?")
        })
        .await;
    eprintln!("frps killed: its four frpc were logged in elsewhere after {:?}", at - begun);
    let took = until_served(&site, 12, begun).await;
    eprintln!("all twelve hosts served again after {:?}", took.iter().max());
    let spread = site.spread().await;
    assert_eq!(spread, BTreeMap::from([("b".into(), 6), ("c".into(), 6)]));
    assert!(at - begun < Duration::from_secs(1), "{:?}", at - begun);
}

#[tokio::test]
async fn a_killed_frps_is_a_short_pause_for_its_hosts_and_none_for_the_others() {
    let mut site = Site::start(&["a", "b", "c"], "", "").await;
    let (_apps, _clients) = twelve(&site).await;
    until_served(&site, 12, Instant::now()).await;
    let web = site.world.web;
    let end = Instant::now() + Duration::from_secs(3);
    let visitors: Vec<_> = (0..12)
        .map(|n| {
            tokio::spawn(async move {
                let (mut longest, mut served, mut failed) = (Duration::ZERO, 0, Vec::new());
                let mut last = Instant::now();
                while Instant::now() < end {
                    match http::get(web, &format!("h{n}.test"), "/").await {
                        Ok(reply) if reply.app() == Some(&format!("app{n}")) => {
                            served += 1;
                            longest = longest.max(last.elapsed());
                            last = Instant::now();
                        }
                        Ok(reply) => {
                            failed.push(format!("{} {:?}", reply.status, reply.header("x-frp-gateway")))
                        }
                        Err(error) => failed.push(error.to_string()),
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                (longest, served, failed)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    site.world.frps[0].kill9();
    let (mut longest, mut served, mut failed) = (Duration::ZERO, 0, Vec::new());
    for visitor in visitors {
        let (pause, count, wrong) = visitor.await.expect("a visitor does not panic");
        (longest, served) = (longest.max(pause), served + count);
        failed.extend(wrong);
    }
    eprintln!(
        "frps killed under visitors: {served} GETs served, longest pause {longest:?}, failed {failed:?}"
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[tokio::test]
async fn a_drained_frps_is_emptied_of_clients_with_and_without_tls_and_client_id() {
    let site = Site::start(&["a", "b"], "", "").await;
    let (mut apps, mut clients) = (Vec::new(), Vec::new());
    let named = "clientID = \"edge\"";
    let plain = "transport.tls.enable = false";
    for (n, lines) in
        [vec![], vec![named], vec![plain], vec![plain, named], vec![], vec![]].iter().enumerate()
    {
        let app = app(&format!("app{n}"));
        // The last two are one user.
        let user = format!("u{}", n.min(4));
        let proxy = Proxy::http(&format!("web{n}"), app.addr(), &[&format!("h{n}.test")]);
        let options = lines.iter().fold(site.options(&user, vec![proxy]), |options, line| options.line(line));
        clients.push(site.frpc(options).await);
        apps.push(app);
    }
    until_served(&site, 6, Instant::now()).await;
    assert_eq!(site.spread().await, BTreeMap::from([("a".into(), 3), ("b".into(), 3)]));
    let drained = site.world.yaml().replace("{ name: a, host", "{ name: a, drain: true, host");
    site.world.gateway().edit(&drained).expect("the file is written");
    let begun = Instant::now();
    let at = site
        .until_clients("all to be on b", |all| all.len() == 6 && all.iter().all(|(_, frps)| frps == "b"))
        .await;
    eprintln!("three clients moved by a drain within {:?}", at - begun);
    until_served(&site, 6, begun).await;
    site.world.until_logged("drained").await;
}

/// Stands between an frpc and the gateway. `vanish`: from then on the gateway's packets are not even acknowledged.
async fn between(gateway: SocketAddr) -> (SocketAddr, tokio::sync::oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (vanish, vanished) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut frpc, _) = listener.accept().await.expect("frpc dials");
        let mut onward = TcpStream::connect(gateway).await.expect("it listens");
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut frpc, &mut onward) => {}
            _ = vanished => {
                // What it has sent must be acknowledged first: sent again and again, it would look like life.
                tokio::time::sleep(Duration::from_millis(200)).await;
                // Classic BPF "return 0": the kernel drops every packet before TCP sees it.
                let nothing = [socket2::SockFilter::new(0x06, 0, 0, 0)];
                socket2::SockRef::from(&onward).attach_filter(&nothing).expect("a filter");
                std::future::pending::<()>().await;
            }
        }
    });
    (address, vanish)
}

#[tokio::test]
async fn a_client_whose_network_is_gone_is_replaced_in_seconds_and_one_that_lives_is_not() {
    let site = Site::start(&["a", "b"], "", "").await;
    let (app, stranger) = (app("app0"), app("stranger"));
    let (detour, vanish) = between(site.frp).await;
    let options = |to: SocketAddr, app: &DemoApp| {
        frp_gateway_loadtest::lab::FrpcOptions::to(to)
            .user("u")
            .line("clientID = \"edge\"")
            .line("transport.tls.enable = false")
            .proxy(Proxy::http("web", app.addr(), &["h0.test"]))
    };
    let mut first = site.frpc(options(detour, &app)).await;
    until_served(&site, 1, Instant::now()).await;

    // Somebody says the name of a client that lives: it waits, and changes nothing.
    let mut other = Frpc::start_unready(options(site.frp, &stranger)).expect("it starts");
    until("the stranger to have waited", SOON, async || {
        site.world.gateway().log().contains("gone=false").then_some(())
    })
    .await
    .expect("it waits");
    other.kill9();
    until_served(&site, 1, Instant::now()).await;

    let begun = Instant::now();
    vanish.send(()).expect("it stands between");
    first.kill9();
    let _second = site.frpc(options(site.frp, &app)).await;
    until_served(&site, 1, begun).await;
    let took = begun.elapsed();
    eprintln!("a client whose network is gone was replaced after {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(site.world.gateway().log().contains("gone=true"), "{}", site.world.gateway().log());
}

#[tokio::test]
async fn a_gateway_that_stops_keeps_clients_until_the_last_request_has_ended() {
    let mut site = Site::start(&["a"], "", "").await;
    let app = app("app0");
    let _frpc = site.frpc(site.options("u", vec![Proxy::http("web", app.addr(), &["h0.test"])])).await;
    until_served(&site, 1, Instant::now()).await;
    app.set_delay(Duration::from_secs(2));
    let (web, before) = (site.world.web, app.requests());
    let slow = tokio::spawn(async move { http::get(web, "h0.test", "/").await });
    until("the request to arrive", SOON, async || (app.requests() > before).then_some(()))
        .await
        .expect("it arrives");
    let begun = Instant::now();
    let gateway = site.world.gateway.as_mut().expect("it runs");
    gateway.sigterm();
    let reply = slow.await.expect("no panic").expect("an answer");
    assert_eq!(reply.app(), Some("app0"), "{}", reply.text());
    let status = gateway.wait_exit(SOON).await.expect("it ends");
    let took = begun.elapsed();
    assert!(
        status.success() && took < Duration::from_secs(5),
        "{status:?} after {took:?}\n{}",
        gateway.log()
    );
}

#[tokio::test]
async fn every_wire_is_placed_and_served() {
    let site = Site::start(&["a", "b"], "", "").await;
    let wires: [(&str, &[&str]); 6] = [
        ("default", &[]),
        ("plain", &["transport.tls.enable = false"]),
        ("custom-byte", &["transport.tls.disableCustomTLSFirstByte = false"]),
        ("v2", &["transport.wireProtocol = \"v2\""]),
        ("v2-plain", &["transport.wireProtocol = \"v2\"", "transport.tls.enable = false"]),
        ("websocket", &["transport.protocol = \"websocket\""]),
    ];
    let (mut apps, mut clients) = (Vec::new(), Vec::new());
    for (n, (name, lines)) in wires.into_iter().enumerate() {
        let app = app(&format!("app{n}"));
        let proxy = Proxy::http("web", app.addr(), &[&format!("h{n}.test")]);
        let options = lines.iter().fold(site.options(name, vec![proxy]), |options, line| options.line(line));
        clients.push(site.frpc(options).await);
        apps.push(app);
    }
    until_served(&site, wires.len(), Instant::now()).await;
    let known = site.clients().await;
    let mut expected: Vec<_> = wires.iter().map(|(name, _)| (*name).to_owned()).collect();
    // For a websocket, frps tells its plugin the address in the Origin header, which is the gateway's own listener.
    expected.retain(|name| name != "websocket");
    expected.push("?".into());
    expected.sort();
    assert_eq!(known.iter().map(|(user, _)| user.clone()).collect::<Vec<_>>(), expected, "{known:?}");
}

/// Opens a visitor's connection and echoes a byte through it.
async fn visit(address: SocketAddr) -> Result<Duration, String> {
    let begun = Instant::now();
    let echo = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    match timeout(Duration::from_secs(5), echo).await {
        Ok(Ok(text)) if text.starts_with("HTTP/1.1 200") => Ok(begun.elapsed()),
        Ok(answer) => Err(format!("{answer:?}")),
        Err(_late) => Err("no answer in 5 s".into()),
    }
}

async fn hundred_visitors_without_mux(lines: &[&str]) {
    let site = Site::with(&["a", "b", "c"], "", "", "transport.tcpMux = false").await;
    let (mut apps, mut clients) = (Vec::new(), Vec::new());
    for n in 0..3 {
        let app = app(&format!("app{n}"));
        let options = site.options(&format!("u{n}"), vec![Proxy::tcp("raw", app.addr(), 0)]);
        let options = lines.iter().fold(options, |options, line| options.line(line));
        clients.push(site.frpc(options.line("transport.tcpMux = false")).await);
        apps.push(app);
    }
    let mut addresses = Vec::new();
    for client in &clients {
        let status = client.statuses().await.expect("frpc's admin API");
        let port = status[0].remote_address.rsplit(':').next().and_then(|port| port.parse().ok());
        addresses.push(SocketAddr::from(([127, 0, 0, 1], port.expect("a port"))));
    }
    let visits: Vec<_> = (0..100).map(|n| tokio::spawn(visit(addresses[n % addresses.len()]))).collect();
    let (mut slowest, mut failed) = (Duration::ZERO, Vec::new());
    for visit in visits {
        match visit.await.expect("a visitor does not panic") {
            Ok(took) => slowest = slowest.max(took),
            Err(why) => failed.push(why),
        }
    }
    eprintln!("{lines:?}: 100 TCP visitors, {} failed, the slowest took {slowest:?}", failed.len());
    assert!(failed.is_empty(), "{} failed: {failed:?}\n{:?}", failed.len(), site.clients().await);
    for client in &clients {
        assert!(!client.log().contains("no client control found"), "{}", client.log());
    }
    let spread = site.spread().await;
    if lines.is_empty() {
        assert_eq!(spread.len(), 1, "one source address without mux, TLS hides the rest: {spread:?}");
    } else {
        assert_eq!(spread.len(), 3, "where logins can be read, clients are spread: {spread:?}");
    }
}

#[tokio::test]
async fn without_mux_none_of_a_hundred_visitors_fails_where_the_wire_is_plain() {
    hundred_visitors_without_mux(&["transport.tls.enable = false"]).await;
}

#[tokio::test]
async fn without_mux_none_of_a_hundred_visitors_fails_on_the_v2_wire() {
    hundred_visitors_without_mux(&["transport.tls.enable = false", "transport.wireProtocol = \"v2\""]).await;
}

#[tokio::test]
async fn without_mux_none_of_a_hundred_visitors_fails_behind_tls_that_is_passed_through() {
    hundred_visitors_without_mux(&[]).await;
}

#[tokio::test]
async fn clients_without_mux_that_dial_at_once_behind_tls_gather_and_move_together_when_drained() {
    let line = "transport.tcpMux = false";
    let site = Site::with(&["a", "b", "c"], "", "", line).await;
    let (mut apps, mut clients) = (Vec::new(), Vec::new());
    for n in 0..3 {
        let app = app(&format!("app{n}"));
        let options =
            site.options(&format!("u{n}"), vec![Proxy::http("web", app.addr(), &[&format!("h{n}.test")])]);
        clients.push(Frpc::start_unready(options.line(line)).expect("it starts"));
        apps.push(app);
    }
    let together = |all: &[(String, String)]| {
        all.len() == 3 && all.iter().all(|(user, frps)| user != "?" && *frps == all[0].1)
    };
    let begun = Instant::now();
    let at = site.until_clients("all to be on one frps", together).await;
    eprintln!("three clients without mux behind TLS were together after {:?}", at - begun);
    until_served(&site, 3, begun).await;
    for client in &mut clients {
        assert!(client.exit_status().is_none(), "cut in the middle of its login: {}", client.log());
    }
    let home = site.clients().await[0].1.clone();
    let drained = site
        .world
        .yaml()
        .replace(&format!("{{ name: {home}, host"), &format!("{{ name: {home}, drain: true, host"));
    site.world.gateway().edit(&drained).expect("the file is written");
    let begun = Instant::now();
    let at = site.until_clients("all to be elsewhere", |all| together(all) && all[0].1 != home).await;
    eprintln!("they moved together within {:?}", at - begun);
    until_served(&site, 3, begun).await;
}

#[tokio::test]
async fn a_login_is_replayed_elsewhere_until_some_frps_answers() {
    // Three impostors come first by weight: one that refuses, one that hangs up, one that is silent.
    let hangs_up = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (rude, mute) = (hangs_up.local_addr().expect("bound"), silent.local_addr().expect("bound"));
    let seen = tokio::spawn(async move {
        let mut count = 0;
        while let Ok((stream, _)) = hangs_up.accept().await {
            count += 1;
            drop(stream);
            if count == 2 {
                break;
            }
        }
        count
    });
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let mut world = takeover::World::fleet(&["a"], "", |options| options).await;
    let mut ports = frp_gateway_loadtest::lab::FreePorts::new();
    let frp = SocketAddr::from(([127, 0, 0, 1], ports.take().expect("a port")));
    let refused = ports.take().expect("a port");
    let impostor = |name: &str, port: u16| {
        format!("  - {{ name: {name}, host: 127.0.0.1, control_port: {port}, weight: 1000 }}\n")
    };
    let fleet = format!(
        "frps:\n{}{}{}",
        impostor("x-refuses", refused),
        impostor("x-rude", rude.port()),
        impostor("x-mute", mute.port())
    );
    world.instead.push(("frps:\n".into(), fleet));
    world.instead.push((
        "listeners:\n".into(),
        format!("listeners:\n  - {{ name: frp, protocol: frp, bind: \"{frp}\" }}\n"),
    ));
    world.start_gateway().await;
    let app = app("app");
    for (user, line) in [("plain", "transport.tls.enable = false"), ("tls", "transport.tls.enable = true")] {
        let options = frp_gateway_loadtest::lab::FrpcOptions::to(frp)
            .user(user)
            .line(line)
            .proxy(Proxy::http("web", app.addr(), &[&format!("{user}.test")]));
        let begun = Instant::now();
        let _frpc =
            Frpc::start(options).await.unwrap_or_else(|error| panic!("{error}\n{}", world.gateway().log()));
        eprintln!("{user}: up after {:?} over three that don't answer", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    }
    assert!(timeout(SOON, seen).await.expect("it was dialed").expect("no panic") >= 1);
    held.abort();
    let log = world.gateway().log();
    assert!(log.contains("frps does not take clients frps=\"x-mute\""), "{log}");
    let replayed = world
        .gateway()
        .metric("frp_gateway_control_connections_replayed_total", &["frps=\"x-mute\""])
        .await
        .expect("metrics");
    assert!(replayed.unwrap_or_default() >= 1.0, "{replayed:?}");
}

#[tokio::test]
async fn a_draining_frps_gets_no_new_client_and_clients_of_one_user_stay_together() {
    let settings = "together: user";
    let mut site = Site::start(&["a", "b", "c"], settings, "").await;
    let yaml = site.world.yaml();
    let drained = yaml.replace("{ name: a, host", "{ name: a, drain: true, host");
    site.world.gateway().edit(&drained).expect("the file is written");
    site.world.until_logged("reloaded").await;
    let app = app("app");
    let plain = |user: &str, table: &str| {
        site.options(user, Vec::new()).line("transport.tls.enable = false").table(table)
    };
    let mut held = Vec::new();
    // Provider and visitor of stcp must be on the same frps.
    for user in ["one", "two", "three", "four"] {
        let provider = Proxy::new("secret", "stcp", app.addr()).line("secretKey = \"k\"");
        let options = site.options(user, vec![provider]).line("transport.tls.enable = false");
        held.push(site.frpc(options).await);
    }
    let mut ports = frp_gateway_loadtest::lab::FreePorts::new();
    for user in ["four", "two", "one", "three"] {
        let port = ports.take().expect("a port");
        let visitor = format!(
            "[[visitors]]\nname = \"visitor\"\ntype = \"stcp\"\nserverName = \"secret\"\nsecretKey = \"k\"\n\
             bindAddr = \"127.0.0.1\"\nbindPort = {port}\n"
        );
        let frpc = Frpc::start_unready(plain(user, &visitor)).expect("it starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until(&format!("the visitor of {user} to be served"), SOON, async || visit(address).await.ok())
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}\n{:?}", frpc.log(), site.world.gateway().log()));
        held.push(frpc);
    }
    let clients = site.clients().await;
    assert_eq!(clients.len(), 8, "{clients:?}");
    assert!(clients.iter().all(|(_, frps)| frps != "a"), "a is draining: {clients:?}");
    assert!(clients.chunks(2).all(|pair| pair[0] == pair[1]), "pairs are together: {clients:?}");
    let spread = site.spread().await;
    assert_eq!(spread, BTreeMap::from([("b".into(), 4), ("c".into(), 4)]));
    site.world.gateway.take();
}

#[tokio::test]
async fn slow_and_foreign_dialers_are_turned_away_and_reach_no_frps() {
    let site = Site::start(&["a"], "timeouts: { header: 300ms }", "").await;
    for bytes in [&b""[..], b"\0\x01\0\x01\0\0\0\x01\0\x5c\0\0", b"o\0\0\0\0\0\0\0\xc9{", b"\x16", b"FRP\0"] {
        let mut slow = TcpStream::connect(site.frp).await.expect("it listens");
        slow.write_all(bytes).await.expect("sent");
        let begun = Instant::now();
        let mut rest = Vec::new();
        let read = timeout(SOON, slow.read_to_end(&mut rest)).await.expect("it is closed");
        assert!(read.is_ok_and(|n| n == 0) && begun.elapsed() < Duration::from_secs(2), "{bytes:?}");
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"o\xff\xff\xff\xff\xff\xff\xff\xff",
        b"PROXY TCP4",
    ] {
        let mut foreign = TcpStream::connect(site.frp).await.expect("it listens");
        foreign.write_all(bytes).await.expect("sent");
        let mut rest = Vec::new();
        let read = timeout(SOON, foreign.read_to_end(&mut rest)).await.expect("it is closed");
        assert!(rest.is_empty(), "{bytes:?}: {read:?} {rest:?}");
    }
    // Bytes without end are cut off too.
    let mut flood = TcpStream::connect(site.frp).await.expect("it listens");
    let pings = [0u8, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1].repeat(20_000);
    let flooded = timeout(SOON, async {
        let wrote = flood.write_all(&pings).await;
        let mut rest = Vec::new();
        (wrote.is_err(), flood.read_to_end(&mut rest).await.map(|_| rest.len()))
    });
    let flooded = flooded.await.expect("it is closed");
    eprintln!("flood: {flooded:?}");
    let refused =
        async |reason: &str| site.metric("_refused_total", &[&format!("reason=\"{reason}\"")]).await;
    let (slow, unknown) = (refused("slow").await, refused("unknown").await);
    assert!((slow - 5.0).abs() < 0.5 && (unknown - 5.0).abs() < 0.5, "slow {slow}, unknown {unknown}");
    let placed = site.metric("_placed_total", &[]).await;
    assert!(placed.abs() < 0.5, "{placed} reached frps");
    assert!(site.clients().await.is_empty());
}
