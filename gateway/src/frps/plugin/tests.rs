use std::time::Duration;

use frp_gateway_config::{
    model::{FrpsPlugin, Plugin},
    secret::Secret,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::control::testing::config_with;

const SOON: Duration = Duration::from_secs(10);

struct World {
    address: SocketAddr,
    state: Arc<PluginState>,
    told: mpsc::Receiver<Told>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn world(allow: &str) -> World {
    let config = config_with(|config| {
        config.plugin = Some(Plugin {
            listen: "127.0.0.1:0".parse().unwrap(),
            key: Secret::new("k"),
            old_key: None,
            allow: Vec::new(),
            agent_token: Some(Secret::new("agent-token")),
        });
        config.frps[0].plugin = Some(FrpsPlugin { secret: Secret::new("secret-of-a") });
    });
    let (heard, told) = mpsc::channel(16);
    let state = Arc::new(PluginState {
        rules: ArcSwapOption::from_pointee(Rules::new(&config).unwrap()),
        allow: ArcSwapOption::from_pointee(vec![allow.parse::<IpNet>().unwrap()]),
        stats: PluginStats::default(),
        subdomain_host: Box::new(|_| None),
        conflict: Box::new(|_| None),
        heard,
        leaving: watch::Sender::new(false),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, Arc::clone(&state)));
    World { address, state, told, server }
}

fn post(path: &str, extra: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn close(name: &str) -> String {
    format!(
        r#"{{"version":"0.1.0","op":"CloseProxy","content":{{"user":{{"user":"u"}},"proxy_name":"{name}"}}}}"#
    )
}

/// Sends `text` and gives what one read brings.
async fn exchange(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let n = timeout(SOON, stream.read(&mut buffer)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

#[tokio::test]
async fn an_answer_leaves_in_one_packet_and_the_connection_serves_on() {
    let mut world = world("127.0.0.0/8").await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    for name in ["one", "two"] {
        let request = post("/frps/secret-of-a?version=0.1.0&op=CloseProxy", "", &close(name));
        let answer = exchange(&mut stream, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with(r#"{"reject":false,"unchange":true}"#),
            "head and body in one read: {answer}"
        );
        let told = world.told.recv().await.unwrap();
        assert_eq!((&*told.frps, told.by_agent), ("a", false));
        assert_eq!(told.heard, Heard::Closing { name: name.into(), user: "u".into() });
    }
    assert_eq!(world.state.stats.calls[2][0].load(Relaxed), 2);
}

#[tokio::test]
async fn wrong_paths_and_tokens_get_nothing_and_are_counted() {
    let world = world("127.0.0.0/8").await;
    for request in [
        post("/frps/secret-of-b?op=CloseProxy", "", &close("x")),
        post("/frps/?op=CloseProxy", "", &close("x")),
        post("/", "", ""),
        post("/agent", "", r#"{"frps":"a","heard":[]}"#),
        post("/agent", "Authorization: Bearer wrong\r\n", r#"{"frps":"a","heard":[]}"#),
    ] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let answer = exchange(&mut stream, &request).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("frps"), "{answer}");
    }
    assert_eq!(world.state.stats.unknown.load(Relaxed), 5);
}

#[tokio::test]
async fn an_agent_with_the_token_reports() {
    let mut world = world("127.0.0.0/8").await;
    let report = |frps: &str| {
        let heard = Report {
            frps: frps.into(),
            heard: vec![Heard::Closing { name: "web".into(), user: String::new() }],
        };
        post("/agent", "Authorization: Bearer agent-token\r\n", &serde_json::to_string(&heard).unwrap())
    };
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    assert!(exchange(&mut stream, &report("a")).await.starts_with("HTTP/1.1 204 "));
    let told = world.told.recv().await.unwrap();
    assert!(told.by_agent && told.frps == "a");
    assert!(exchange(&mut stream, &report("b")).await.starts_with("HTTP/1.1 422 "), "no plugin there");
}

#[tokio::test]
async fn too_large_a_body_is_refused_and_a_body_in_pieces_is_not() {
    let world = world("127.0.0.0/8").await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "POST /frps/secret-of-a?op=NewProxy HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        BODY_CAP + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = exchange(&mut stream, &"x".repeat(64 * 1024)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = post("/frps/secret-of-a?op=CloseProxy", "", &close("x"));
    let (first, last) = request.split_at(request.len() - 1);
    for byte in first.as_bytes().chunks(7) {
        stream.write_all(byte).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(exchange(&mut stream, last).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_stranger_is_cut_off_without_a_byte() {
    let world = world("10.0.0.0/8").await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    // The write may or may not get through before the close.
    drop(stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await);
    let mut answer = Vec::new();
    drop(timeout(SOON, stream.read_to_end(&mut answer)).await.expect("closed"));
    assert_eq!(answer, b"");
    assert_eq!(world.state.stats.denied.load(Relaxed), 1);
}

#[tokio::test]
async fn a_call_with_many_domains_is_answered_whole_in_one_packet() {
    let world = world("127.0.0.0/8").await;
    let domains: Vec<String> = (0..20).map(|n| format!("host-{n}.app.test")).collect();
    let body = json!({ "version": "0.1.0", "op": "NewProxy", "content": {
        "user": { "user": "u", "metas": null, "run_id": "r" }, "proxy_name": "u.web", "proxy_type": "http",
        "custom_domains": domains, "from_the_future": [1, { "deep": true }]
    }});
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let answer = exchange(&mut stream, &post("/frps/secret-of-a?op=NewProxy", "", &body.to_string())).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "all of it in one read: {answer}");
    let answer: Value = serde_json::from_str(body).unwrap();
    assert_eq!(answer["content"]["proxy_type"], "tcp");
    assert_eq!(answer["content"]["from_the_future"], json!([1, { "deep": true }]));
}

#[tokio::test]
async fn what_is_not_understood_is_refused_in_words_and_the_connection_serves_on() {
    let world = world("127.0.0.0/8").await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    for (op, body) in [("NewProxy", "{"), ("NewProxy", ""), ("Login", "[]"), ("Surprise", "{}")] {
        let answer = exchange(&mut stream, &post(&format!("/frps/secret-of-a?op={op}"), "", body)).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#""reject":true"#), "{op}: {answer}");
    }
    let invalid = RESULTS.iter().position(|result| *result == "invalid").unwrap();
    let counted: u64 = world.state.stats.calls.iter().map(|op| op[invalid].load(Relaxed)).sum();
    assert_eq!(counted, 4);
    let answer = exchange(&mut stream, "GET /frps/secret-of-a?op=Login HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn unasked_operations_are_complained_of_once_per_frps() {
    let world = world("127.0.0.0/8").await;
    let complaints: Vec<bool> =
        ["a", "a", "b", "a", "b"].iter().map(|frps| is_first_complaint(&world.state, frps)).collect();
    assert_eq!(complaints, [true, false, true, false, false]);
}

/// A connection in memory, so that a paused clock and the bytes keep step.
fn in_memory(world: &World) -> DuplexStream {
    let (near, far) = duplex(64 * 1024);
    let peer = "127.0.0.1:1".parse().unwrap();
    tokio::spawn(converse(TokioIo::new(far), peer, Arc::clone(&world.state)));
    near
}

async fn text_of(stream: &mut DuplexStream) -> String {
    let mut buffer = vec![0; 64 * 1024];
    let n = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_cut_off_and_a_silent_connection_is_not() {
    let world = world("127.0.0.0/8").await;
    let mut stream = in_memory(&world);
    let request = post("/frps/secret-of-a?op=CloseProxy", "", &close("x"));
    for silence in [0, 6, 60, 119] {
        tokio::time::sleep(Duration::from_secs(silence)).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = text_of(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "after {silence} s of silence: {answer:?}");
    }
    let begun = tokio::time::Instant::now();
    stream.write_all(b"POST /frps/secret-of-a?op=CloseProxy HTTP/1.1\r\nX: ").await.unwrap();
    let drip = async {
        // A byte each second is no reason to wait longer.
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(Duration::from_secs(30), drip).await.expect("cut off");
    let after = begun.elapsed();
    assert!((PATIENCE..PATIENCE + Duration::from_secs(2)).contains(&after), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_told_so_in_time() {
    let world = world("127.0.0.0/8").await;
    let mut stream = in_memory(&world);
    let begun = tokio::time::Instant::now();
    let head = b"POST /frps/secret-of-a?op=CloseProxy HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{";
    stream.write_all(head).await.unwrap();
    let answer = text_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
}
