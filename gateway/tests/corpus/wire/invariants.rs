//! What holds for any bytes that arrive at the parsers beside HTTP. Shared by the replay of the fuzz corpora and the fuzz
//! targets.
//!
//! One promise is common to all: a verdict doesn't depend on how the bytes were cut on their way.

use std::{
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
};

use frp_gateway::{
    data::{
        frames::Frames,
        l4::{
            client_hello::{self, Parsed},
            proxy_header::{self, Decoded},
        },
    },
    frp_wire::{Answer, First, Peeked, Records, answer, message, peek, sniff, yamux},
    frps::decide::{Call, Context, Rules},
};
use frp_gateway_config::{NoResolver, load, model::ProxyHeader};
use serde_json::Value;

/// Where bytes are cut: everywhere in short inputs, at up to some two hundred places in long ones.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let step = (bytes.len() / 100).max(1);
    (0..=bytes.len()).filter(move |cut| cut % step == 0 || *cut < 100)
}

/// `read` of every beginning of `bytes` is `more`, or what it is of all of them.
fn cut_alike<T: PartialEq + Debug>(bytes: &[u8], more: &T, read: impl Fn(&[u8]) -> T) -> T {
    let whole = read(bytes);
    let mut told = false;
    for cut in cuts(bytes) {
        let part = read(&bytes[..cut]);
        told |= part != *more;
        assert!(!told || part == whole, "{part:?} of {cut} bytes, {whole:?} of {}", bytes.len());
    }
    whole
}

/// A PROXY protocol header.
pub(crate) fn proxy_header(bytes: &[u8]) {
    let decoded = cut_alike(bytes, &Decoded::Incomplete, proxy_header::decode);
    match decoded {
        Decoded::Incomplete => {
            assert!(bytes.len() < proxy_header::LONGEST, "{} bytes and no verdict", bytes.len());
        }
        Decoded::Invalid(why) => assert!(!why.is_empty()),
        Decoded::Header { len, source } => {
            assert!((8..=bytes.len().min(proxy_header::LONGEST)).contains(&len), "{len} of {}", bytes.len());
            if let Some((from, to)) = source {
                written_is_read(from, to);
            }
        }
    }
}

/// What one gateway tells, another understands.
fn written_is_read(from: SocketAddr, to: SocketAddr) {
    let plain = |(from, to): (SocketAddr, SocketAddr)| -> [(IpAddr, u16); 2] {
        [from, to].map(|address| (address.ip().to_canonical(), address.port()))
    };
    for version in [ProxyHeader::V1, ProxyHeader::V2] {
        let mut written = Vec::new();
        proxy_header::encode(version, from, to, &mut written);
        match proxy_header::decode(&written) {
            Decoded::Header { len, source: Some(source) } => {
                assert_eq!((len, plain(source)), (written.len(), plain((from, to))), "{version:?}");
            }
            other => panic!("{version:?} of {from} to {to}: {other:?}"),
        }
    }
}

/// A TLS ClientHello.
pub(crate) fn client_hello(bytes: &[u8]) {
    // Nobody reads more.
    let bytes = &bytes[..bytes.len().min(client_hello::LONGEST)];
    match cut_alike(bytes, &Parsed::Incomplete, client_hello::parse) {
        Parsed::Incomplete => assert!(bytes.len() < client_hello::LONGEST, "{} bytes", bytes.len()),
        Parsed::Foreign => {}
        Parsed::Broken(alert) => assert!(alert.is_all_of(&alert.record()), "{alert:?}"),
        Parsed::Hello { name: None } => {}
        Parsed::Hello { name: Some(name) } => {
            assert!((1..=255).contains(&name.len()) && !name.ends_with('.'), "{name:?}");
            let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
            assert!(name.bytes().all(plain), "{name:?}");
        }
    }
    // Early data, once seen, stays.
    let mut handshake_only = true;
    for cut in cuts(bytes) {
        let now = client_hello::is_handshake_only(&bytes[..cut]);
        assert!(handshake_only || !now, "early data forgotten at {cut} bytes");
        handshake_only = now;
    }
}

/// What an FRP client, or its frps, begins with.
pub(crate) fn frp_wire(bytes: &[u8]) {
    let first = cut_alike(bytes, &First::NeedMore, sniff);
    assert!(first != First::NeedMore || bytes.len() < 12, "{} bytes and no wire", bytes.len());
    let peeked = cut_alike(bytes, &Peeked::NeedMore, peek);
    match (first, &peeked) {
        (First::NeedMore, Peeked::NeedMore) | (First::Unknown, Peeked::Unknown) => {}
        (First::Tls { .. } | First::WebSocket, Peeked::Opaque) => {}
        (First::V1Login | First::V1WorkConn | First::V1Visitor | First::Yamux | First::V2, _) => {}
        (_, _) => panic!("{first:?}, but {peeked:?}"),
    }
    for of in [First::V1Login, First::V2, First::Yamux] {
        cut_alike(bytes, &Answer::NeedMore, |part| answer(of, part));
    }
    let taken =
        |used: usize, inside: usize| assert!(inside <= used && used <= bytes.len(), "{inside} of {used}");
    if let frp_gateway::frp_wire::Taken::Whole(one, used) = message::v1(bytes) {
        taken(used, one.json.len());
        assert!(one.json.len() <= message::V1_MOST);
    }
    if let frp_gateway::frp_wire::Taken::Whole(one, used) = message::v2(bytes) {
        taken(used, one.payload.len());
        assert!(one.payload.len() <= message::V2_MOST);
    }
    let data = |part: &[u8]| yamux::first_stream(part).data;
    let whole = data(bytes);
    assert!(whole.len() <= bytes.len());
    for cut in cuts(bytes) {
        let part = data(&bytes[..cut]);
        assert!(whole.starts_with(&part), "{part:?} of {cut} bytes, then {whole:?}");
    }
    record_sizes(bytes);
}

/// The same purpose, or none, in whatever pieces the records come.
fn record_sizes(bytes: &[u8]) {
    let told = |pieces: usize| {
        let mut records = Records::default();
        let told: Vec<_> = bytes.chunks(pieces).filter_map(|piece| records.feed(piece)).collect();
        assert!(told.len() <= 1 && (told.is_empty() || records.is_done()), "{told:?}");
        (told, records.is_done())
    };
    let whole = told(bytes.len().max(1));
    for pieces in [1, 2, 5, 7] {
        assert_eq!(told(pieces), whole, "in pieces of {pieces}");
    }
}

/// WebSocket frames, against a reader that sees all of them at once.
pub(crate) fn websocket_frames(bytes: &[u8]) {
    for pieces in [1, 3, 16, bytes.len().max(1)] {
        let (mut frames, mut sent) = (Frames::default(), 0);
        for piece in bytes.chunks(pieces) {
            frames.feed(piece);
            sent += piece.len();
            let expected = is_between_frames(&bytes[..sent]);
            assert_eq!(frames.may_close(), expected, "{sent} bytes in pieces of {pieces}");
        }
    }
}

/// Whether `bytes` are whole frames, none of them a Close.
fn is_between_frames(mut bytes: &[u8]) -> bool {
    while let [first, second, rest @ ..] = bytes {
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return false,
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return false,
            },
            length => (u64::from(length), rest),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let Some(after) = usize::try_from(length).ok().and_then(|length| rest.get(mask..)?.get(length..))
        else {
            return false;
        };
        if first & 0xf == 8 {
            return false;
        }
        bytes = after;
    }
    bytes.is_empty()
}

const KEY: &str = "key-qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";
const SECRET: &str = "secret-zzzzzzzzzzzzzzzzzzzzzzzzzzzz";
static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let text = format!(
        "plugin: {{ key: {KEY}, listen: '127.0.0.1:9901' }}\nfrps:\n  - {{ name: a, host: a.test, admin: {{ url: 'http://a.test:7500', password: pw }}, plugin: {{ secret: {SECRET} }} }}\nlisteners:\n  - {{ name: web, bind: '127.0.0.1:80' }}\nclaims:\n  rules:\n    - {{ users: mallory, refuse: nobody likes mallory }}\n"
    );
    let loaded = load(&text, "fuzz.yaml", &NoResolver);
    let config = loaded.config.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
    Rules::new(&config).expect("it has a plugin")
});

/// A call of frps's plugin.
pub(crate) fn plugin_call(bytes: &[u8]) {
    for (op, host, taken) in
        [("", None, false), ("NewProxy", Some("frp.test"), false), ("NewProxy", Some(""), true)]
    {
        let conflict = |_: &frp_gateway::frps::decide::Question<'_>| taken.then(|| "it is taken".to_owned());
        let context =
            Context { subdomain_host: host, conflict: &conflict, now: std::time::SystemTime::UNIX_EPOCH };
        let call = Call { op, id: "29c3", body: bytes };
        let decision = RULES.decide("a", call, &context);
        let again = RULES.decide("a", call, &context);
        assert_eq!(decision.answer, again.answer, "gateway and agents answer alike");
        let answer: Value = serde_json::from_slice(&decision.answer).expect("an answer is JSON");
        let reason = answer["reject_reason"].as_str();
        match (&answer["reject"], &answer["unchange"], decision.result) {
            (Value::Bool(true), _, "refused" | "invalid") => {
                assert!(reason.is_some_and(|why| !why.is_empty()))
            }
            (Value::Bool(false), Value::Bool(true), "unchanged" | "left") => assert_eq!(reason, None),
            (Value::Bool(false), Value::Bool(false), "taken_over" | "left") => {
                changed(bytes, &answer, decision.result)
            }
            (_, _, result) => panic!("{result}: {answer}"),
        }
        assert!(decision.result != "invalid" || decision.heard.is_none(), "{decision:?}");
        let told = format!("{decision:?}{answer}");
        assert!(!told.contains(KEY) && !told.contains(SECRET), "a secret of ours: {told}");
    }
}

/// frps decodes a changed content onto an empty value: what was there must come back.
fn changed(bytes: &[u8], answer: &Value, result: &str) {
    // Only these: what else stands in the body is skipped, even where it is no text.
    #[derive(serde::Deserialize)]
    struct Given {
        content: serde_json::Map<String, Value>,
    }
    let Given { content: given } = serde_json::from_slice(bytes).expect("it was understood");
    let content = answer["content"].as_object().expect("a changed content");
    assert_eq!((&content["proxy_name"], content.get("user")), (&given["proxy_name"], given.get("user")));
    let ours = |key: &&String| key.starts_with("frp-gateway/");
    let annotations = content.get("annotations").and_then(Value::as_object);
    let count = annotations.map_or(0, |all| all.keys().filter(ours).count());
    if result == "left" {
        assert_eq!(count, 0, "forged: {answer}");
        for (key, value) in given.iter().filter(|(key, _)| *key != "annotations") {
            assert_eq!(content.get(key), Some(value), "{key}");
        }
    } else {
        assert_eq!(content["proxy_type"], "tcp");
        assert!(count > 0, "nothing to know it by: {answer}");
    }
}
