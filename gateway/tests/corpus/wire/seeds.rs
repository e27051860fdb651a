//! The seeds of the corpora: small, made up, and one of each kind. Nothing here was captured, and nothing is a secret.

use super::committed::Corpus;

/// All of them.
pub(crate) fn all() -> [Corpus; 5] {
    [
        ("proxy_header", proxy_header()),
        ("client_hello", client_hello()),
        ("frp_wire", frp_wire()),
        ("websocket_frames", websocket_frames()),
        ("plugin_call", plugin_call()),
    ]
}

fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn short(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap().to_be_bytes()
}

/// Two bytes of length, then the bytes.
fn sized(bytes: &[u8]) -> Vec<u8> {
    cat(&[&short(bytes.len()), bytes])
}

fn proxy_header() -> Vec<(&'static str, Vec<u8>)> {
    let v2 = |command: u8, family: u8, rest: &[u8]| {
        cat(&[b"\r\n\r\n\0\r\nQUIT\n", &[command, family], &sized(rest)])
    };
    let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 1, 0xbb];
    let v6 = cat(&[
        &[0x20, 1, 0xd, 0xb8],
        &[0; 11],
        &[1],
        &[0x20, 1, 0xd, 0xb8],
        &[0; 11],
        &[2],
        &[0xdc, 4, 1, 0xbb],
    ]);
    let mapped =
        cat(&[&[0; 10], &[0xff, 0xff, 192, 0, 2, 1], &[0; 10], &[0xff, 0xff, 192, 0, 2, 2], &[0, 1, 0, 2]]);
    let tlv = |kind: u8, value: &[u8]| cat(&[&[kind], &sized(value)]);
    let mut summed = v2(0x21, 0x11, &cat(&[&v4, &tlv(4, b"noop"), &tlv(3, &[0; 4])]));
    let sum = crc32c::crc32c(&summed).to_be_bytes();
    let at = summed.len() - 4;
    summed[at..].copy_from_slice(&sum);
    vec![
        ("v1-tcp4", b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET / HTTP/1.1\r\n\r\n".to_vec()),
        ("v1-tcp6", b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n".to_vec()),
        ("v1-mapped", b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 0 65535\r\n".to_vec()),
        ("v1-unknown", b"PROXY UNKNOWN whatever 1 2\r\nx".to_vec()),
        ("v1-leading-zero", b"PROXY TCP4 192.0.2.1 192.0.2.2 01 443\r\n".to_vec()),
        ("v1-endless", cat(&[b"PROXY UNKNOWN ", &[b'x'; 100]])),
        ("v2-tcp4", cat(&[&v2(0x21, 0x11, &v4), b"after"])),
        ("v2-tcp6", v2(0x21, 0x21, &v6)),
        ("v2-mapped", v2(0x21, 0x21, &mapped)),
        ("v2-unix", v2(0x21, 0x31, &[0; 216])),
        ("v2-local", v2(0x20, 0, &[])),
        ("v2-unspecified", v2(0x21, 0, b"anything")),
        ("v2-checksum", summed),
        ("v2-wrong-checksum", v2(0x21, 0x11, &cat(&[&v4, &tlv(3, &[9; 4])]))),
        ("v2-tlv-cut", v2(0x21, 0x11, &cat(&[&v4, &[2, 0, 9, b'x']]))),
        ("none", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

fn client_hello() -> Vec<(&'static str, Vec<u8>)> {
    let extension = |kind: usize, content: &[u8]| cat(&[&short(kind), &sized(content)]);
    let name = |name: &[u8]| extension(0, &sized(&cat(&[&[0], &sized(name)])));
    let message = |extensions: Option<&[u8]>| {
        let mut body = cat(&[&[3, 3], &[7; 32], &[0], &sized(&[0x13, 1, 0x0a, 0x0a]), &[1, 0]]);
        body.extend(extensions.map(sized).unwrap_or_default());
        cat(&[&[1, 0], &sized(&body)])
    };
    let record = |kind: u8, payload: &[u8]| cat(&[&[kind, 3, 1], &sized(payload)]);
    let in_records = |message: &[u8], size: usize| {
        message.chunks(size).flat_map(|part| record(22, part)).collect::<Vec<_>>()
    };
    let grease = extension(0x0a0a, &[]);
    let shop = message(Some(&cat(&[&grease, &name(b"shop.example.com"), &extension(43, &[2, 3, 4])])));
    vec![
        ("named", record(22, &shop)),
        ("upper-case-with-dot", record(22, &message(Some(&name(b"Shop.EXAMPLE.com."))))),
        ("two-dots", record(22, &message(Some(&name(b"shop.."))))),
        ("only-a-dot", record(22, &message(Some(&name(b"."))))),
        ("no-extensions", record(22, &message(None))),
        ("no-name", record(22, &message(Some(&grease)))),
        ("two-names", record(22, &message(Some(&cat(&[&name(b"a.test"), &name(b"b.test")]))))),
        ("in-records-of-seven", in_records(&shop, 7)),
        ("in-records-of-one", in_records(&message(Some(&name(b"a.b"))), 1)),
        ("early-data", cat(&[&record(22, &shop), &record(20, &[1]), &record(23, b"data")])),
        ("another-record-within", cat(&[&record(22, &shop[..20]), &record(23, &shop[20..])])),
        ("empty-record", cat(&[&record(22, &[]), &record(22, &shop)])),
        ("record-too-long", vec![22, 3, 1, 0x40, 1, 1]),
        ("message-too-long", record(22, &[1, 1, 0, 0, 3, 3])),
        ("ssl2", vec![0x80, 0x2e, 1, 3, 1, 0, 0x15]),
        ("alert", record(21, &[2, 40])),
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

const LOGIN: &[u8] =
    br#"{"version":"0.71.0","user":"bob","client_id":"edge-1","run_id":"abc","pool_count":1}"#;
const IN: &[u8] = br#"{"version":"0.71.0","run_id":"abc"}"#;

fn frp_wire() -> Vec<(&'static str, Vec<u8>)> {
    const MAGIC: &[u8] = b"FRP\0\x02\r\n";
    let v1 = |kind: u8, json: &[u8]| cat(&[&[kind], &(json.len() as u64).to_be_bytes(), json]);
    let v2 = |kind: usize, payload: &[u8]| {
        cat(&[&short(kind), &[0, 0], &u32::try_from(payload.len()).unwrap().to_be_bytes(), payload])
    };
    let message = |id: usize, json: &[u8]| v2(16, &cat(&[&short(id), json]));
    let mux = |kind: u8, stream: u32, length: usize, data: &[u8]| {
        let length = u32::try_from(length).unwrap().to_be_bytes();
        cat(&[&[0, kind, 0, 1], &stream.to_be_bytes(), &length, data])
    };
    let data = |stream: u32, data: &[u8]| mux(0, stream, data.len(), data);
    let v2_login = cat(&[MAGIC, &v2(1, b"{}"), &message(1, LOGIN)]);
    let v1_login = v1(b'o', LOGIN);
    let tls = |kind: u8, length: usize| cat(&[&[kind, 3, 3], &short(length), &vec![0xaa; length]]);
    vec![
        ("v1-login", v1_login.clone()),
        ("v1-work", v1(b'w', br#"{"run_id":"abc"}"#)),
        ("v1-visitor", v1(b'v', br#"{"run_id":"","proxy_name":"p"}"#)),
        ("v1-no-json", v1(b'o', b"{")),
        ("v1-too-long", cat(&[b"o", &10_241u64.to_be_bytes()])),
        ("v1-answer", v1(b'1', IN)),
        ("v1-refusal", v1(b'1', br#"{"error":"no"}"#)),
        ("v2-login", v2_login.clone()),
        ("v2-answer", cat(&[&v2(2, b"{}"), &message(2, IN)])),
        ("v2-message-without-id", cat(&[MAGIC, &v2(16, b"x")])),
        ("v2-too-long", cat(&[MAGIC, &[0, 16, 0, 0, 0, 1, 0, 1]])),
        ("yamux-v1", cat(&[&mux(1, 1, 6_000_000, &[]), &data(1, &v1_login)])),
        (
            "yamux-v2-in-pieces",
            cat(&[&data(1, &v2_login[..9]), &mux(2, 0, 7, &[]), &data(3, b"x"), &data(1, &v2_login[9..])]),
        ),
        ("yamux-answer", cat(&[&mux(1, 1, 1, &[]), &data(1, &v1(b'1', IN))])),
        ("yamux-then-garbage", cat(&[&data(1, &v1_login), b"and this is no frame"])),
        ("yamux-cut-then-garbage", cat(&[&data(1, &v1_login[..20]), b"and this is no frame"])),
        ("yamux-stream-0", data(0, b"o")),
        ("yamux-too-long", mux(0, 1, 70_000, b"o")),
        ("websocket", b"GET /~!frp HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec()),
        ("tls-mux", cat(&[&tls(22, 30), &tls(20, 1), &tls(23, 53), &tls(23, 29)])),
        ("tls-work", cat(&[&tls(22, 30), &tls(20, 1), &tls(23, 53), &tls(23, 55)])),
        ("tls12-login", cat(&[&tls(22, 30), &tls(22, 9), &tls(20, 1), &tls(22, 40), &tls(23, 240)])),
        ("tls-own-byte", cat(&[&[0x17], &tls(22, 30)])),
        ("ssh", b"SSH-2.0-x\r\n".to_vec()),
    ]
}

fn websocket_frames() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("text", b"\x81\x05hello".to_vec()),
        ("masked", b"\x81\x85\x01\x02\x03\x04iggnn".to_vec()),
        ("empty", b"\x82\x00\x82\x00".to_vec()),
        ("masked-empty", b"\x82\x80\x01\x02\x03\x04".to_vec()),
        ("two-byte-length", cat(&[&[0x82, 126, 0, 130], &[7; 130]])),
        ("eight-byte-length", cat(&[&[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 3], b"abc"])),
        ("longest", vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 0x88, 0]),
        ("fragments-with-ping", b"\x01\x02he\x89\x01x\x80\x03llo".to_vec()),
        ("close", b"\x88\x02\x03\xe8".to_vec()),
        ("close-without-reason", b"\x88\x00".to_vec()),
        ("close-within-payload", b"\x82\x04\x88\x02\x03\xe8".to_vec()),
    ]
}

fn plugin_call() -> Vec<(&'static str, Vec<u8>)> {
    let call = |op: &str, content: &str| {
        format!(r#"{{"version":"0.1.0","op":"{op}","content":{content}}}"#).into_bytes()
    };
    let user = r#""user":{"user":"alice","metas":{"zone":"seoul"},"run_id":"abc"}"#;
    let proxy = |rest: &str| call("NewProxy", &format!(r#"{{{user},"proxy_name":"alice.web",{rest}}}"#));
    vec![
        (
            "login",
            call(
                "Login",
                r#"{"version":"0.71.0","user":"alice","client_id":"e","metas":{"zone":"seoul"},"client_address":"192.0.2.1:1"}"#,
            ),
        ),
        ("login-of-mallory", call("Login", r#"{"user":"mallory"}"#)),
        ("login-null-metas", call("Login", r#"{"user":"","metas":null}"#)),
        (
            "http",
            proxy(
                r#""proxy_type":"http","metas":{"weight":"5"},"custom_domains":["app.test","APP2.test."],"locations":["/","/api"],"http_user":"u","http_pwd":"p","host_header_rewrite":"h.test","headers":{"x":"y"}"#,
            ),
        ),
        ("http-subdomain", proxy(r#""proxy_type":"http","subdomain":"web""#)),
        (
            "http-group",
            proxy(
                r#""proxy_type":"http","custom_domains":["*.app.test"],"group":"g","group_key":"k","route_by_http_user":"bob""#,
            ),
        ),
        ("https", proxy(r#""proxy_type":"https","custom_domains":["app.test"]"#)),
        ("tcp", proxy(r#""proxy_type":"tcp","remote_port":6000,"annotations":{"note":"n"}"#)),
        (
            "forged",
            proxy(
                r#""proxy_type":"tcp","remote_port":0,"annotations":{"frp-gateway/claim":"v1.forged","note":"n"}"#,
            ),
        ),
        (
            "forged-http",
            proxy(
                r#""proxy_type":"http","custom_domains":["app.test"],"annotations":{"frp-gateway/claim":"v1.forged"}"#,
            ),
        ),
        ("stcp", proxy(r#""proxy_type":"stcp","sk":"x""#)),
        (
            "wrong-types",
            proxy(r#""proxy_type":7,"custom_domains":"app.test","metas":[],"remote_port":"6000""#),
        ),
        ("bad-domain", proxy(r#""proxy_type":"http","custom_domains":["a b","*","","x..test"]"#)),
        ("close", call("CloseProxy", &format!(r#"{{{user},"proxy_name":"alice.web"}}"#))),
        ("ping", call("Ping", r#"{"user":{"user":""}}"#)),
        ("unknown", call("Surprise", "{}")),
        ("no-content", br#"{"op":"Login"}"#.to_vec()),
        (
            "no-op",
            br#"{"content":{"proxy_name":"p","proxy_type":"http","custom_domains":["a.test"]}}"#.to_vec(),
        ),
        ("no-object", b"[]".to_vec()),
        ("deep", cat(&[br#"{"op":"Login","content":"#, &[b'['; 200]])),
    ]
}
