//! The demo application does what its table of paths says.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use frp_gateway_loadtest::{
    demo::{DemoApp, frps_404},
    http::{self, Connection},
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn every_answer_names_the_app() {
    let app = DemoApp::start("shop").unwrap();
    for (path, status, body) in [
        ("/", 200, "hello from shop\n"),
        ("/slow?ms=1", 200, "hello from shop\n"),
        ("/status/404", 404, "shop says 404\n"),
        ("/status/503", 503, "shop says 503\n"),
        ("/nothing", 404, "shop has no /nothing\n"),
        ("/healthz", 200, "ok\n"),
        ("/count", 200, "7\n"),
        ("/trailers", 200, "hello with trailers from shop\n"),
        ("/sse?n=3&ms=1", 200, "data: 1\n\ndata: 2\n\ndata: 3\n\n"),
    ] {
        let reply = http::get(app.addr(), "app.test", path).await.unwrap();
        assert_eq!(
            (reply.status, reply.text().as_str(), reply.app()),
            (status, body, Some("shop")),
            "{path}"
        );
    }
    assert_eq!(app.requests(), 9);
}

#[tokio::test]
async fn the_control_port_steers_it_and_is_loopback_only() {
    let any = |host: [u8; 4]| SocketAddr::from((host, 0));
    let app = DemoApp::start_steered(any([127, 0, 0, 1]), "shop", Some(any([127, 0, 0, 1]))).unwrap();
    let control = app.control_addr().expect("asked for");
    let tell = async |path: &str| {
        let request = format!("POST {path} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(control).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).map(str::to_owned).expect("a status")
    };
    assert_eq!(tell("/fail?percent=100&status=502&ms=1").await, "204");
    assert_eq!(http::get(app.addr(), "app.test", "/").await.unwrap().status, 502);
    assert_eq!(http::get(app.addr(), "app.test", "/healthz").await.unwrap().status, 502, "health fails, too");
    assert_eq!(tell("/fail?percent=0").await, "204");
    assert_eq!(tell("/delay?ms=30&jitter=5").await, "204");
    let begun = Instant::now();
    assert_eq!(http::get(app.addr(), "app.test", "/").await.unwrap().status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(25), "{:?}", begun.elapsed());
    assert_eq!(tell("/nothing").await, "400");
    let reply = http::get(app.addr(), "app.test", "/fail?percent=100").await.unwrap();
    assert_eq!(reply.status, 404, "the application's own port doesn't steer it");
    assert!(DemoApp::start_steered(any([127, 0, 0, 1]), "shop", Some(any([0, 0, 0, 0]))).is_err());
}

#[tokio::test]
async fn health_and_delay_can_be_changed_while_it_runs() {
    let app = DemoApp::start("shop").unwrap();
    app.set_healthy(false);
    assert_eq!(http::get(app.addr(), "app.test", "/healthz").await.unwrap().status, 503);
    app.set_delay(Duration::from_millis(30));
    let start = Instant::now();
    http::get(app.addr(), "app.test", "/").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(30), "took {:?}", start.elapsed());
}

#[tokio::test]
async fn echo_shows_the_request_as_it_arrived() {
    let app = DemoApp::start("shop").unwrap();
    let request =
        http::request("POST", "app.test", "/echo?b=2&a=1").header("x-two", "1").header("x-two", "2");
    let seen = http::send(app.addr(), request.body(http::full("hello"))).await.unwrap().json().unwrap();
    assert_eq!((&seen["method"], &seen["target"]), (&"POST".into(), &"/echo?b=2&a=1".into()));
    assert_eq!((&seen["body_length"], &seen["body_crc32"]), (&5.into(), &0x3610_a686_u32.into()));
    let fields: Vec<_> = seen["headers"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(fields[..2], [r#"["host","app.test"]"#, r#"["x-two","1"]"#], "{seen}");
}

#[tokio::test]
async fn bytes_arrive_counted_and_uncounted() {
    let app = DemoApp::start("shop").unwrap();
    let counted = http::get(app.addr(), "app.test", "/bytes/200000").await.unwrap();
    assert_eq!((counted.body.len(), counted.header("content-length")), (200_000, Some("200000")));
    let uncounted = http::get(app.addr(), "app.test", "/bytes/200000?chunked=1").await.unwrap();
    assert_eq!(uncounted.header("content-length"), None);
    assert_eq!(uncounted.body, counted.body);
}

#[tokio::test]
async fn abort_and_cut_break_the_connection_as_they_should() {
    let app = DemoApp::start("shop").unwrap();
    let patience = Duration::from_secs(10);
    let abort = http::raw(app.addr(), b"GET /abort HTTP/1.1\r\nHost: a\r\n\r\n", patience).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&abort), "", "closes without an answer");
    let cut = http::raw(app.addr(), b"GET /cut/1000 HTTP/1.1\r\nHost: a\r\n\r\n", patience).await.unwrap();
    let cut = String::from_utf8_lossy(&cut);
    let (head, body) = cut.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 1000"), "{head}");
    assert_eq!(body.len(), 500, "half of what was announced");
    http::get(app.addr(), "a", "/cut/1000").await.expect_err("a client must notice");
}

#[tokio::test]
async fn the_fake_404_carries_nothing_of_the_app() {
    let app = DemoApp::start("shop").unwrap();
    let page = http::get(app.addr(), "app.test", "/fake404").await.unwrap();
    assert_eq!((page.status, page.text().as_str(), page.app()), (404, frps_404().as_str(), None));
    let mut names: Vec<_> = page.headers.keys().map(ToString::to_string).collect();
    names.sort();
    assert_eq!(names, ["content-length", "content-type", "date"]);
}

#[tokio::test]
async fn websockets_echo() {
    let app = DemoApp::start("shop").unwrap();
    let (mut socket, answer) = tokio_tungstenite::client_async(
        "ws://app.test/ws",
        tokio::net::TcpStream::connect(app.addr()).await.unwrap(),
    )
    .await
    .unwrap();
    assert_eq!(answer.headers()["x-app"], "shop");
    for message in [Message::text("hello"), Message::binary(vec![0, 1, 2])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
}

#[tokio::test]
async fn stopping_closes_open_connections_and_frees_the_port() {
    let app = DemoApp::start("shop").unwrap();
    let address = app.addr();
    let mut connection = Connection::open(address).await.unwrap();
    connection.send(http::request("GET", "a", "/").body(http::empty())).await.unwrap();
    app.stop();
    connection
        .send(http::request("GET", "a", "/").body(http::empty()))
        .await
        .expect_err("connection is closed");
    http::get(address, "a", "/").await.expect_err("port is closed");
    let again = DemoApp::start_on(address, "again").unwrap();
    assert_eq!(http::get(again.addr(), "a", "/").await.unwrap().text(), "hello from again\n");
}
