//! What `explain` says of a connection is where the next one goes: by port, and by server name.

#![allow(clippy::panic, reason = "helpers of tests are outside of them")]

#[path = "common/cli.rs"]
mod cli;
#[path = "common/raw.rs"]
mod raw;

use std::{net::SocketAddr, process::Output};

use cli::{run, text};
use frp_gateway_loadtest::lab::{Gateway, until};
use raw::{App, SOON, gateway, greeting, line};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Asks for `shop.example.com`; the fuzz targets' seed.
const HELLO: &[u8] = include_bytes!("../fuzz/corpus/client_hello/named");

/// Reads the ClientHello, says `name`, and keeps the connection.
async fn tls_greeter(name: &'static str) -> App {
    App::start(move |mut stream| {
        tokio::spawn(async move {
            let mut hello = vec![0; HELLO.len()];
            if stream.read_exact(&mut hello).await.is_ok() && hello == HELLO {
                drop(stream.write_all(format!("{name}\n").as_bytes()).await);
                drop(stream.read_u8().await);
            }
        })
    })
    .await
}

fn explained(gateway: &Gateway, arguments: &[&str]) -> Output {
    run(gateway, &[&["explain"], arguments].concat())
}

/// Exit code and answer.
fn explain(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = explained(gateway, &[arguments, &["--format", "json"]].concat());
    let said = text(&output.stdout);
    let told = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", text(&output.stderr)));
    (output.status.code(), told)
}

/// What it complains of; the exit code is 2.
fn complaint(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = explained(gateway, arguments);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

async fn says(address: SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(HELLO).await.expect("sent");
    let name = line(&mut stream).await.expect("a name");
    (stream, name)
}

#[tokio::test]
async fn a_tcp_connection_goes_where_explain_says_and_a_dead_member_is_told() {
    let (a, b) = (App::greeter("a").await, App::greeter("b").await);
    let entry = |name: &str| format!("{{ name: {name}, host: 127.0.0.1 }}");
    let member = |name: &str, app: &App| format!("{{ name: {name}, port: {} }}", app.address.port());
    let rest = format!(
        "pools:\n  - {{ name: ssh, frps: [{}, {}], balance: least_request }}",
        member("a", &a),
        member("b", &b)
    );
    let listeners = ["{ name: ssh, bind: \"127.0.0.1:0\", protocol: tcp, pool: ssh }"];
    let gateway = gateway(&[entry("a"), entry("b")], &listeners, &rest).await;
    let address = gateway.listener("ssh").await.expect("it listens");
    let url = format!("tcp://{address}");

    let mut busy = TcpStream::connect(address).await.expect("a connection");
    let at = line(&mut busy).await.expect("a greeting");
    let idle = if at == "a" { "b" } else { "a" };
    for arguments in [&[url.as_str()][..], &["--listener", "ssh"], &[&url, "--listener", "ssh"]] {
        let (code, told) = explain(&gateway, arguments);
        assert_eq!((code, &told["pool"], &told["route"]), (Some(0), &"ssh".into(), &Value::Null), "{told}");
        assert_eq!(told["ending"]["endpoint"], idle, "{told}");
        assert_eq!(told["ending"]["certain"], true, "{told}");
    }
    let shown = text(&explained(&gateway, &[&url]).stdout);
    let first = format!("{url} → pool ssh → {idle} (least loaded of 2)");
    assert_eq!(shown.lines().next(), Some(first.as_str()), "{shown}");
    assert!(!shown.contains("routes") && shown.contains("pool ssh, least_request"), "{shown}");
    assert_eq!(greeting(address).await.as_deref(), Some(idle));

    let certain = || explain(&gateway, &[&url]).1["ending"]["certain"] == true;
    until("it is idle again", SOON, async || certain().then_some(())).await.expect("its visitor has gone");
    let (dead, port) = if idle == "a" { (a, "b") } else { (b, "a") };
    let gone = dead.address;
    drop(dead);
    let refused = async || TcpStream::connect(gone).await.is_err().then_some(());
    until("its port is closed", SOON, refused).await.expect("it is dead");
    // The connect that fails tells the gateway; the visitor is served elsewhere.
    assert_eq!(greeting(address).await.as_deref(), Some(port));
    let (_, told) = explain(&gateway, &[&url]);
    let all = told["pools"][0]["candidates"].as_array().expect("candidates");
    let one = all.iter().find(|one| one["endpoint"] == idle).expect("the dead one");
    assert_eq!((&one["why_not"], &told["ending"]["endpoint"]), (&"down".into(), &port.into()), "{told}");
}

#[tokio::test]
async fn a_server_name_leads_to_its_route_and_what_nobody_has_is_refused() {
    let (a, b, c) = (tls_greeter("a").await, tls_greeter("b").await, tls_greeter("c").await);
    let entry = |name: &str, app: &App| {
        format!("{{ name: {name}, host: 127.0.0.1, vhost_https_port: {} }}", app.address.port())
    };
    let rest = "pools:\n  - { name: shop, frps: [a, b], balance: maglev }\n  - { name: other, frps: [c] }\n\
                routes:\n  - { name: shop, match: { host: \"*.example.com\" }, pool: shop, listeners: [tls] }\n  - { name: other, match: { host: other.test }, pool: other, listeners: [tls] }";
    let listeners = ["{ name: tls, bind: \"127.0.0.1:0\", protocol: tls_passthrough }"];
    let gateway = gateway(&[entry("a", &a), entry("b", &b), entry("c", &c)], &listeners, rest).await;
    let address = gateway.listener("tls").await.expect("it listens");

    let (_held, serving) = says(address).await;
    for url in [format!("tls://Shop.Example.COM.:{}", address.port()), "tls://shop.example.com".to_owned()] {
        let (code, told) = explain(&gateway, &[&url]);
        assert_eq!(
            (code, &told["route"], &told["pool"]),
            (Some(0), &"shop".into(), &"shop".into()),
            "{told}"
        );
        assert_eq!(told["ending"]["endpoint"], serving.as_str(), "{told}");
        assert_eq!(
            (&told["ending"]["reason"], &told["ending"]["certain"]),
            (&"hash".into(), &true.into()),
            "{told}"
        );
    }
    let (_, told) = explain(&gateway, &["other.test", "--listener", "tls"]);
    assert_eq!(
        (&told["url"], &told["ending"]["endpoint"]),
        (&"tls://other.test".into(), &"c".into()),
        "{told}"
    );
    for url in ["tls://nobody.test", "tls://127.0.0.1"] {
        let (code, told) = explain(&gateway, &[url]);
        assert_eq!((code, &told["ending"]["class"]), (Some(1), &"no_route".into()), "{told}");
        assert_eq!(
            (&told["ending"]["status"], told["routes"].as_array().map(Vec::len)),
            (&Value::Null, Some(2))
        );
        let shown = text(&explained(&gateway, &[url]).stdout);
        assert!(shown.starts_with(&format!("{url} → closed, no_route (")), "{shown}");
    }
}

#[tokio::test]
async fn a_question_about_a_connection_that_makes_no_sense_is_told_what_is_wrong() {
    let app = App::greeter("a").await;
    let rest = format!("pools:\n  - {{ name: ssh, frps: [{{ name: a, port: {} }}] }}", app.address.port());
    let listeners = ["{ name: ssh, bind: \"127.0.0.1:0\", protocol: tcp, pool: ssh }"];
    let gateway = gateway(&["{ name: a, host: 127.0.0.1 }".to_owned()], &listeners, &rest).await;
    let address = gateway.listener("ssh").await.expect("it listens");
    let at = format!("ssh ({address})");
    for (arguments, parts) in [
        (&["tcp://127.0.0.1:1"][..], &["no tcp listener is on port 1", &at][..]),
        (&["tcp://127.0.0.1"], &["it names no port", &at]),
        (&["tcp://127.0.0.1:99999"], &["url: "]),
        (&["tcp://127.0.0.1:22/path"], &["a connection has no path"]),
        (&["tcp://127.0.0.1:22", "-H", "x: y"], &["no method and no headers"]),
        (&["tcp://127.0.0.1:22", "-X", "POST"], &["no method and no headers"]),
        (&["tls://shop.test"], &["there is no tls_passthrough listener"]),
        (&["udp://127.0.0.1:53"], &["there is no udp listener"]),
        (&["tcp://127.0.0.1:22", "--listener", "shh"], &["no tcp listener is called \"shh\"", &at]),
        (&["http://shop.test/", "--listener", "ssh"], &["protocol: tcp", "tcp://HOST:PORT"]),
        (&["tls://shop.test", "--listener", "ssh"], &["no tls_passthrough listener is called \"ssh\""]),
        (&["http://shop.test/"], &["there is no http listener"]),
        (&[], &["<URL>"]),
    ] {
        let said = complaint(&gateway, arguments);
        assert!(parts.iter().all(|part| said.contains(part)), "{arguments:?}: {said}");
    }
}
