//! What frps's vhost does to requests and a takeover doesn't: the table of `docs/grpc.md`, line by line; and gRPC by the one way
//! that FRP's vhosts have for it. Real frps and frpc; needs `frp-lab/build`.

#![allow(clippy::panic, reason = "a failed test shows why")]

#[path = "common/grpc.rs"]
mod grpc;
#[path = "common/raw.rs"]
mod raw;
#[path = "common/takeover.rs"]
mod takeover;
#[path = "common/tls.rs"]
mod tls;
#[path = "common/ways.rs"]
mod ways;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use frp_gateway_loadtest::lab::{Proxy, until};
use futures_util::{future::join_all, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::{HeaderMap, body::Frame};
use hyper_util::rt::TokioIo;
use raw::App;
use takeover::{SOON, World, app};
use tls::{Authority, dial};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use ways::{Ground, HOST, Speech, Way, nothing, text};

async fn seen(ground: &Ground, request: hyper::Request<ways::Body>) -> serde_json::Value {
    let mut visitor = ground.visitor(Speech::Http2Tls).await;
    let answer = visitor.send(request).await.expect("an answer");
    let said = text(answer).await;
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn field<'a>(seen: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    seen["headers"].as_array()?.iter().find(|field| field[0] == name)?[1].as_str()
}

#[tokio::test]
async fn an_application_gets_http_2_by_takeover_and_http_1_by_the_vhost() {
    for (way, version) in [(Way::Takeover, "HTTP/2.0"), (Way::Vhost, "HTTP/1.1")] {
        let app = app("one");
        let proxy = Proxy::http("web", app.addr(), &[HOST]).metadata("gw_protocol", "h2c");
        let ground = Ground::start(way, &["a"], vec![proxy], "hold: off").await;
        let request = Speech::Http2Tls.request("GET", "/echo").body(nothing()).expect("a request");
        assert_eq!(seen(&ground, request).await["version"], version, "{way:?}");
    }
}

#[tokio::test]
async fn a_call_of_grpc_through_the_vhost_is_refused_in_its_own_words() {
    let app = grpc::App::start("one").await;
    let proxy = Proxy::http("rpc", app.address, &[HOST]).metadata("gw_protocol", "h2c");
    let ground = Ground::start(Way::Vhost, &["a"], vec![proxy], "hold: off").await;
    let config = ground.authority.visitor(&["h2"]);
    let caller = grpc::speak(dial(ground.secure, HOST, &config).await.expect("a handshake")).await;
    let request = http::Request::post(format!("https://{HOST}/t.T/Echo"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let ended = grpc::ask(&caller, request, &["x"]).await.expect("an answer");
    assert_eq!((ended.http, ended.status), (200, Some(14)), "{:?}", ended.head);
    assert_eq!(app.calls.load(SeqCst), 0, "it has not understood a word");
}

#[tokio::test]
async fn trailers_of_a_request_arrive_by_takeover_and_get_lost_in_the_vhost() {
    for way in Way::ALL {
        let app = app("one");
        let ground =
            Ground::start(way, &["a"], vec![Proxy::http("web", app.addr(), &[HOST])], "hold: off").await;
        for speech in Speech::ALL {
            let mut fields = HeaderMap::new();
            fields.insert("x-sum", 7.into());
            let parts = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(fields)];
            let body = StreamBody::new(stream::iter(parts.map(Ok::<_, Infallible>))).boxed();
            let request = speech.request("POST", "/echo").header("trailer", "x-sum").body(body);
            let mut visitor = ground.visitor(speech).await;
            let answer = visitor.send(request.expect("a request")).await.expect("an answer");
            let said: serde_json::Value = serde_json::from_str(&text(answer).await).expect("JSON");
            assert_eq!(said["body_length"], 4, "{way:?}, {speech:?}");
            let value = said["trailers"][0][1].as_str().unwrap_or_default();
            let expected = if way == Way::Takeover { "7" } else { "" };
            assert_eq!(value, expected, "{way:?}, {speech:?}: {said}");
        }
    }
}

#[tokio::test]
async fn the_application_knows_that_its_visitor_came_by_https() {
    for (way, told) in [(Way::Takeover, "https"), (Way::Vhost, "http")] {
        let app = app("one");
        let ground =
            Ground::start(way, &["a"], vec![Proxy::http("web", app.addr(), &[HOST])], "hold: off").await;
        let request = Speech::Http2Tls.request("GET", "/echo").body(nothing()).expect("a request");
        let seen = seen(&ground, request).await;
        assert_eq!(field(&seen, "x-forwarded-proto"), Some(told), "{way:?}: {seen}");
        if way == Way::Vhost {
            assert_eq!(field(&seen, "x-gateway-proto"), Some("https"), "{seen}");
        }
    }
}

/// Grants every upgrade; says "late" when the visitor has ended its direction, and tells what it has heard until then.
async fn late_talker() -> (App, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (tell, told) = mpsc::unbounded_channel();
    let app = App::start(move |mut stream| {
        let tell = tell.clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            if !head.starts_with(b"GET /ws") {
                drop(stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await);
                return;
            }
            let granted =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            let mut heard = Vec::new();
            drop(stream.write_all(granted).await);
            drop(stream.read_to_end(&mut heard).await);
            drop(stream.write_all(b"late").await);
            drop(tell.send(heard));
        })
    })
    .await;
    (app, told)
}

#[tokio::test]
async fn no_tunnel_of_frp_keeps_a_direction_whose_other_one_has_ended() {
    for way in Way::ALL {
        let (app, mut told) = late_talker().await;
        let proxy = Proxy::http("web", app.address, &[HOST]);
        let ground = Ground::start(way, &["a"], vec![proxy], "hold: off").await;
        for speech in [Speech::Http1, Speech::Http1Tls, Speech::Http2Tls] {
            let what = format!("{way:?}, {speech:?}");
            let mut visitor = ground.visitor(speech).await;
            let answer = visitor.send(speech.websocket("/ws")).await.expect("an answer");
            let upgraded = hyper::upgrade::on(answer).await.expect("bytes flow");
            let mut bytes = TokioIo::new(upgraded);
            bytes.write_all(b"early").await.expect("sent");
            bytes.flush().await.expect("sent");
            bytes.shutdown().await.expect("ended");
            let mut heard = Vec::new();
            drop(timeout(SOON, bytes.read_to_end(&mut heard)).await.expect("it ends"));
            assert_eq!(timeout(SOON, told.recv()).await.expect("in time"), Some(b"early".to_vec()), "{what}");
            // If this ever fails, a line of docs/grpc.md and docs/tcp.md has become better than it says.
            assert_eq!(heard, b"", "{what}: FRP closes both as soon as one is over");
        }
    }
}

#[tokio::test]
async fn parallel_requests_keep_their_connections_but_for_all_over_five_in_the_vhost() {
    const MANY: usize = 12;
    for way in Way::ALL {
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let app = App::start(move |mut stream| {
            count.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await);
                    }
                }
            })
        })
        .await;
        let ground =
            Ground::start(way, &["a"], vec![Proxy::http("web", app.address, &[HOST])], "hold: off").await;
        let visitor = ground.visitor(Speech::Http2Tls).await;
        let mut new = Vec::new();
        for _ in 0..3 {
            let before = opened.load(SeqCst);
            let all = (0..MANY).map(|_| async {
                text(visitor.twin().ask("GET", "/", nothing()).await.expect("an answer")).await
            });
            let all = timeout(SOON, join_all(all)).await.expect("in time");
            assert!(all.iter().all(|said| said == "ok"), "{all:?}");
            new.push(opened.load(SeqCst) - before);
        }
        match way {
            Way::Takeover => assert_eq!(new[1..], [0, 0], "all are kept: {new:?}"),
            Way::Vhost => assert!(new[1..].iter().all(|new| *new >= MANY - 5), "frps keeps five: {new:?}"),
        }
    }
}

/// TLS at the application, which speaks HTTP/2 in it.
fn tls_of_its_own(authority: &Authority) -> ServerConfig {
    authority.issue("own", &[grpc::HOST]);
    let chain = vec![CertificateDer::from_pem_file(authority.path("own.pem")).expect("PEM")];
    let key = PrivateKeyDer::from_pem_file(authority.path("own.key")).expect("PEM");
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[tokio::test]
async fn an_application_with_tls_of_its_own_has_grpc_by_takeover_and_by_the_https_vhost() {
    for way in Way::ALL {
        let authority = Authority::new();
        let app = grpc::App::over_tls("one", tls_of_its_own(&authority)).await;
        let mut world = World::fleet(&["a"], "", |options| options).await;
        let web = format!("{{ name: web, bind: \"{}\" }}", world.web);
        let sni = format!("{{ name: sni, bind: \"{}\", protocol: tls_passthrough }}", world.web);
        world.instead.push((web, sni));
        world.rest = match way {
            Way::Takeover => "takeover: { https: true }\ntunnels: { serve: true }".to_owned(),
            Way::Vhost => {
                let entry = world.frps[0].yaml();
                let entry = entry.strip_suffix(" }").expect("flow style").to_owned();
                let port = world.frps[0].https().port();
                world.instead.push((entry.clone(), format!("{entry}, vhost_https_port: {port}")));
                "takeover: { http: false }\ntunnels: { serve: true }".to_owned()
            }
        };
        world.start_gateway().await;
        let _frpc = world.frpc(0, "alice", vec![Proxy::https("rpc", app.address, &[grpc::HOST])]).await;
        let config = authority.visitor(&["h2"]);
        let stream =
            until("the tunnel", SOON, async || dial(world.web, grpc::HOST, &config).await.ok()).await;
        let stream = stream.unwrap_or_else(|error| panic!("{way:?}: {error}\n{}", world.gateway().log()));
        let caller = grpc::speak(stream).await;
        let texts = ["a", "bc", &"d".repeat(300_000)];
        let ended = grpc::call(&caller, "Echo", &texts).await.expect("an answer");
        assert_eq!((ended.http, ended.status), (200, Some(0)), "{way:?}");
        assert!(grpc::messages(&ended.body) == texts.map(str::as_bytes), "{way:?}: {}", ended.body.len());
        let failed = grpc::call(&caller, "Fail", &["x"]).await.expect("an answer");
        assert_eq!(failed.status, Some(9), "{way:?}: trailers behind messages");
    }
}
