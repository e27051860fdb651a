//! The seeds of the corpora: small, made up, and one of each kind. Nothing here was captured, and nothing is a secret.

use super::committed::Corpus;

/// All that are made here.
pub(crate) fn all() -> [Corpus; 6] {
    [
        ("h2_request", texts(REQUESTS)),
        ("h2_answer", texts(ANSWERS)),
        ("h2_guard", guard()),
        ("h2c_request", texts(H1_REQUESTS)),
        ("admin_api", texts(ADMIN)),
        ("config_file", texts(FILES)),
    ]
}

fn texts(all: &[(&'static str, &str)]) -> Vec<(&'static str, Vec<u8>)> {
    all.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect()
}

const REQUESTS: &[(&str, &str)] = &[
    ("plain", "GET app.test /"),
    ("fields", "GET app.test /a?b=c&d\naccept: */*\nuser-agent: x y\nx-empty:"),
    ("host", "GET app.test:8080 /\nhost: app.test:8080"),
    ("other_host", "GET app.test /\nhost: other.test"),
    ("two_hosts", "GET app.test /\nhost: app.test\nhost: app.test"),
    ("user", "GET a@app.test /"),
    ("length", "POST app.test /up\ncontent-length: 5\ncontent-type: text/plain"),
    ("lengths", "POST app.test /up\ncontent-length: 5\ncontent-length: 6"),
    ("connection", "GET app.test /\nconnection: close"),
    ("transfer_encoding", "POST app.test /\ntransfer-encoding: chunked"),
    ("crumbs", "GET app.test /\ncookie: a=1\nx: y\ncookie: b=2"),
    ("te", "POST app.test /rpc\nte: trailers\ncontent-type: application/grpc\ngrpc-timeout: 1S"),
    ("connect", "CONNECT app.test:443 /"),
    ("star", "OPTIONS app.test *"),
    ("space_in_value", "GET app.test /\nx:  a b\t "),
    ("high_bytes", "GET app.test /\nx: \u{e9}\u{4e2d}"),
    ("lookalike", "POST app.test /\ncontent_length: 5"),
    ("forwarded", "GET app.test /\nx-forwarded-for: 192.0.2.1\nforwarded: for=1.2.3.4"),
];

/// `g` before an answer to GET, `H` before one to HEAD.
const ANSWERS: &[(&str, &str)] = &[
    ("length", "gHTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"),
    (
        "chunked",
        "gHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n",
    ),
    (
        "trailers",
        "gHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\nX-T: u\r\n\r\n",
    ),
    ("until_close", "gHTTP/1.1 200 OK\r\nConnection: close\r\n\r\nas long as it comes"),
    ("interim", "gHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
    ("continue", "gHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"),
    ("not_modified", "gHTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n"),
    ("head", "HHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    ("cut_body", "gHTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"),
    ("cut_chunk", "gHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello"),
    ("bad_chunk", "gHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\nhello\r\n0\r\n\r\n"),
    ("cut_head", "gHTTP/1.1 200 OK\r\nContent-Le"),
    (
        "hop_fields",
        "gHTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nUpgrade: x\r\nProxy-Connection: y\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "switching",
        "gHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nraw",
    ),
];

const H1_REQUESTS: &[(&str, &str)] = &[
    ("plain", "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"),
    ("fields", "GET /a?b=c HTTP/1.1\r\nHost: app.test:81\r\nAccept: */*\r\nX-Empty:\r\n\r\n"),
    ("body", "POST /up HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello"),
    (
        "chunked",
        "POST /up HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    ),
    (
        "hop_fields",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-gone, keep-alive\r\nX-Gone: 1\r\nKeep-Alive: 5\r\nTE: trailers, deflate\r\n\r\n",
    ),
    (
        "websocket",
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    ),
    (
        "grpc",
        "POST /t.T/Echo HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 250m\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    ("star", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("connect", "CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\n\r\n"),
    ("cookies", "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; b=2\r\nCookie: c=3\r\n\r\n"),
    ("absolute", "GET http://app.test/x HTTP/1.1\r\nHost: app.test\r\n\r\n"),
    ("expect", "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"),
];

const ADMIN: &[(&str, &str)] = &[
    (
        "v2",
        r#"{"code":0,"data":{"total":2,"items":[{"name":"web","user":"u","clientID":"c","spec":{"type":"http","http":{"customDomains":["A.test","b.test"],"locations":["/b","/a","/a"],"subdomain":"s"}},"status":{"phase":"online","lastStartAt":5}},{"name":"db","spec":{"type":"tcp","tcp":{"remotePort":5}},"status":{"phase":"online"}}]}}"#,
    ),
    (
        "v2_offline",
        r#"{"data":{"total":1,"items":[{"name":"web","spec":{"type":"http","http":{}},"status":{"phase":"offline"}}]}}"#,
    ),
    (
        "v2_odd",
        r#"{"data":{"total":3,"items":[1,null,{"name":"x","spec":{"type":"new","http":null},"status":{"phase":"online"}}]}}"#,
    ),
    ("v2_error", r#"{"code":500,"data":null,"message":"no"}"#),
    (
        "v1",
        r#"{"proxies":[{"name":"web","conf":{"customDomains":["a.test"],"metadatas":{"k":"v"},"loadBalancer":{"group":"g"}},"status":"online","lastStartTime":"11-23 02:12:04"},{"name":"off","conf":null,"status":"offline"}]}"#,
    ),
    ("v1_null", r#"{"proxies":null}"#),
    ("v1_one", r#"{"name":"db","conf":{"remotePort":20001,"annotations":{"a":"b"}},"status":"online"}"#),
    ("server", r#"{"version":"0.71.0","subdomainHost":"Lab.test","bindPort":7000}"#),
    ("port", r#"{"name":"db","conf":{"remotePort":65536},"status":"online"}"#),
    ("broken", r#"{"proxies":[{"name":"#),
];

const FILES: &[(&str, &str)] = &[
    (
        "minimal",
        "frps: [ { name: a, host: 10.0.0.1, vhost_http_port: 80 } ]\nlisteners: [ { name: w, bind: \"0.0.0.0:80\" } ]\npools: [ { name: p } ]\n",
    ),
    (
        "routes",
        "frps:\n  - { name: a, host: a.test, vhost_http_port: 80 }\nlisteners:\n  - { name: w, bind: \"[::]:80\" }\npools:\n  - { name: p, frps: [a], balance: maglev, affinity: source_ip, health: { tcp: {} } }\nroutes:\n  - { match: { host: \"*.x.test\", path: { prefix: /a } }, pools: [p] }\n",
    ),
    (
        "https",
        "frps: [ { name: a, host: a.test, vhost_http_port: 80 } ]\nlisteners:\n  - { name: s, bind: \"0.0.0.0:443\", protocol: https, tls: { certificates: [ { cert: a.pem, key: b.pem } ], min_version: \"1.3\" } }\npools: [ { name: p } ]\n",
    ),
    ("anchors", "x: &a { name: a, host: h, vhost_http_port: 80 }\nfrps: [ *a ]\n"),
    ("bomb", "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nfrps: *c\n"),
    (
        "faults",
        "frps: [ { nam: a, host: 1, vhost_http_port: 99999 } ]\nlisteners: { }\npools: []\nroutes: x\n",
    ),
    (
        "variables",
        "frps: [ { name: a, host: \"${HOST}\", vhost_http_port: 80, admin: { url: \"http://a:7500\", password: \"${PW}\" } } ]\n",
    ),
    ("no_yaml", "frps: [ {\n"),
    (
        "tunnels",
        "frps:\n  - { name: a, host: a, admin: { url: \"http://a:7500\", password: \"${PW}\" } }\ntunnels: { serve: true }\nlisteners: [ { name: w, bind: \"0.0.0.0:80\", protocol: http, http2: on } ]\n",
    ),
    ("empty", ""),
];

/// Frames after the preface.
fn guard() -> Vec<(&'static str, Vec<u8>)> {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let settings = frame(4, 0, 0, &[]);
    let ping = frame(6, 0, 0, &[1; 8]);
    let reset = frame(3, 0, 1, &[0, 0, 0, 8]);
    vec![
        ("settings", settings.clone()),
        ("pings", ping.repeat(300)),
        ("flood_of_pings", ping.repeat(4100)),
        ("flood_of_settings", settings.repeat(300)),
        ("resets", reset.repeat(100)),
        ("flood_of_resets", reset.repeat(600)),
        ("data", frame(0, 0, 1, &[7; 300]).repeat(3)),
        ("empty_data", frame(0, 0, 1, &[]).repeat(200)),
        ("continuation", [frame(1, 0, 1, &[0x82]), frame(9, 0, 1, &[]).repeat(50)].concat()),
        ("long_frame", frame(0, 0, 1, &[1; 20_000])),
        ("cut_frame", frame(0, 0, 1, &[1; 200])[..100].to_vec()),
    ]
}
