//! PROXY protocol out: what an application behind a real frpc sees of its visitor. Needs `frp-lab/build`.

#[path = "common/raw.rs"]
mod raw;

use frp_gateway_loadtest::lab::{Gateway, Proxy};
use raw::{App, Site, gateway, members};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Gives back everything it gets until the visitor's word `hello`, that included.
async fn mirror() -> App {
    App::start(|mut stream| {
        tokio::spawn(async move {
            let mut all = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                all.push(byte);
                if all.ends_with(b"hello") {
                    drop(stream.write_all(&all).await);
                    drop(stream.shutdown().await);
                    return;
                }
            }
        })
    })
    .await
}

const LISTENER: &str = "{ name: raw, bind: \"127.0.0.1:0\", protocol: tcp, pool: raw }";

/// What the application got of a visitor, and the visitor's port and the one it dialled.
async fn visit(gateway: &Gateway) -> (Vec<u8>, u16, u16) {
    let address = gateway.listener("raw").await.expect("it listens");
    let mut stream = TcpStream::connect(address).await.expect("in");
    let port = stream.local_addr().expect("connected").port();
    stream.write_all(b"hello").await.expect("sent");
    let mut got = Vec::new();
    drop(timeout(raw::SOON, stream.read_to_end(&mut got)).await.expect("an answer in time"));
    (got, port, address.port())
}

fn v1(from: u16, to: u16) -> Vec<u8> {
    format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n").into_bytes()
}

fn v2(from: u16, to: u16) -> Vec<u8> {
    let begin = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0, 12, 127, 0, 0, 1, 127, 0, 0, 1]].concat();
    [&begin[..], &from.to_be_bytes(), &to.to_be_bytes()].concat()
}

#[tokio::test]
async fn an_application_behind_frpc_sees_the_visitor_by_either_version() {
    let app = mirror().await;
    let site = Site::start("a", vec![Proxy::tcp("raw", app.address, 0)]).await;
    for version in ["v1", "v2"] {
        let rest = format!(
            "pools:\n  - {{ name: raw, proxy_protocol: {version}, frps: [ {{ name: a, port: {} }} ] }}",
            site.port("raw").await
        );
        let gateway = gateway(&[site.entry(false)], &[LISTENER], &rest).await;
        let (got, from, to) = visit(&gateway).await;
        let header = if version == "v1" { v1(from, to) } else { v2(from, to) };
        assert_eq!(got, [&header[..], b"hello"].concat(), "{version}: {:?}", got.escape_ascii().to_string());
    }
}

#[tokio::test]
async fn a_tunnel_asks_for_its_own_version_in_its_metadata() {
    let app = mirror().await;
    let asks = Proxy::tcp("raw", app.address, 0).metadata("gw_proxy_protocol", "v2");
    let site = Site::start("a", vec![asks]).await;
    let rest = "pools:\n  - { name: raw, proxy_protocol: v1, tunnels: { name: raw } }";
    let gateway = gateway(&[site.entry(true)], &[LISTENER], rest).await;
    members(&gateway, "raw", 1).await;
    let (got, from, to) = visit(&gateway).await;
    assert_eq!(got, [&v2(from, to)[..], b"hello"].concat(), "{:?}", got.escape_ascii().to_string());
}

#[tokio::test]
async fn what_frpc_adds_of_its_own_names_the_gateway_and_comes_first() {
    let app = mirror().await;
    let both = Proxy::tcp("raw", app.address, 0).line("transport.proxyProtocolVersion = \"v1\"");
    let site = Site::start("a", vec![both]).await;
    let port = site.port("raw").await;
    let rest =
        format!("pools:\n  - {{ name: raw, proxy_protocol: v1, frps: [ {{ name: a, port: {port} }} ] }}");
    let gateway = gateway(&[site.entry(false)], &[LISTENER], &rest).await;
    let (got, from, to) = visit(&gateway).await;
    let text = String::from_utf8(got).expect("text");
    let lines: Vec<_> = text.split("\r\n").collect();
    assert_eq!(lines.len(), 3, "{text:?}");
    let words: Vec<_> = lines[0].split(' ').collect();
    assert_eq!(
        (words[0], words[2], words[5]),
        ("PROXY", "127.0.0.1", &*port.to_string()),
        "frpc's: {text:?}"
    );
    assert_ne!(words[4], from.to_string(), "its source is the gateway's connection: {text:?}");
    let ours = String::from_utf8(v1(from, to)).expect("text");
    assert_eq!((lines[1], lines[2]), (ours.trim_end(), "hello"), "ours, then the visitor's first byte");
}
