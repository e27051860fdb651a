//! What holds for any bytes at the adapters between HTTP/2 and HTTP/1, at what reads certificates, frps's admin API and
//! configurations. Shared by the replay of the fuzz corpora and the fuzz targets.

use std::{
    future::{Future, poll_fn},
    str,
    sync::LazyLock,
    task::Poll,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use frp_gateway::{
    data::{
        grpc,
        h2::{PREFACE, guard::Guard, render, visit::Visit},
        h2c::request::translate,
    },
    frps::{
        Listing, ProxyKind,
        wire::{ServerInfo, V1List, V1Proxy, V2Envelope, V2Page},
    },
    http1::{HeadLimits, Known, RequestBody, RequestHead},
    tls::{ClientIdentity, leaf::Leaf, ocsp},
};
use frp_gateway_config::{NoResolver, Severity, load};
use http::{HeaderMap, Request, header};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream, duplex},
    runtime::Runtime,
};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 1 << 20, line_bytes: 64 * 1024, fields: 500 };

/// Longest input of the targets that go through connections.
const MOST: usize = 8 * 1024;

/// A request as the h2 crate gives it: `METHOD AUTHORITY TARGET`, then fields, a line each. `None` = it would have refused it.
fn request_of(bytes: &[u8]) -> Option<Request<()>> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.splitn(3, |byte| *byte == b' ');
    let (method, authority, target) = (first.next()?, first.next()?, first.next()?);
    let mut uri = http::Uri::builder().scheme("https").path_and_query(target);
    if !authority.is_empty() {
        uri = uri.authority(authority);
    } else {
        return None;
    }
    let mut request = Request::builder().method(method).uri(uri.build().ok()?);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // Upper case is malformed in HTTP/2 (RFC 9113 §8.2.1).
        if name.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        request = request.header(name, value);
    }
    request.body(()).ok()
}

/// A request over HTTP/2 becomes one of HTTP/1 that says the same and nothing else, or none.
pub(crate) fn h2_request(bytes: &[u8]) {
    let Some(request) = request_of(bytes) else { return };
    for ended in [true, false] {
        let mut out = Vec::new();
        let Ok(framing) = render::head(&request, ended, [7; 16], &mut out) else { continue };
        let mut head = RequestHead::default();
        // The strict parser has the last word; what it refuses goes nowhere.
        let Ok(whole) = head.parse(&out, &LIMITS) else { continue };
        let shown = out.escape_ascii();
        assert!(whole && head.len == out.len(), "{} of {} bytes: {shown}", head.len, out.len());
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let first = out.split(|byte| *byte == b'\r').next().unwrap_or_default();
        assert_eq!(first, format!("{} {target} HTTP/1.1", request.method()).as_bytes());
        let hosts: Vec<_> = head.fields.iter().filter(|field| field.known == Known::Host).collect();
        let authority = request.uri().authority().map_or("", |authority| authority.as_str());
        assert!(
            hosts.len() == 1 && hosts[0].value.of(&out).eq_ignore_ascii_case(authority.as_bytes()),
            "{shown}"
        );
        for field in &head.fields {
            let (name, value) = (field.name.of(&out), field.value.of(&out));
            let name = str::from_utf8(name).expect("a token").to_ascii_lowercase();
            let ours = matches!(name.as_str(), "host" | "cookie")
                || (name == "transfer-encoding" && value == b"chunked");
            let trimmed = |sent: &http::HeaderValue| trim(sent.as_bytes()) == value;
            assert!(
                ours || request.headers().get_all(&name).iter().any(trimmed),
                "{name} is nobody's: {shown}"
            );
        }
        let said = request.headers().get_all(header::CONTENT_LENGTH).iter().count();
        match framing {
            render::Framing::None | render::Framing::Length if said > 0 => {
                assert!(matches!(head.body, RequestBody::Length(_)), "{:?}: {shown}", head.body);
            }
            render::Framing::None => assert_eq!(head.body, RequestBody::None, "{shown}"),
            render::Framing::Length => panic!("a length that nobody said: {shown}"),
            render::Framing::Chunked => assert_eq!(head.body, RequestBody::Chunked, "{shown}"),
            render::Framing::Raw => panic!("no protocol was asked for: {shown}"),
        }
    }
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// What a visitor gets.
#[derive(Debug, PartialEq)]
struct Got {
    status: u16,
    fields: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

/// An answer in HTTP/1 reaches the visitor whole, and the same however it is cut, or not at all. The first byte says whether
/// it answers HEAD.
pub(crate) fn h2_answer(bytes: &[u8]) {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
    let Some((first, answer)) = bytes.split_first() else { return };
    if answer.len() > MOST {
        return;
    }
    let head = first.is_ascii_uppercase();
    RUNTIME.block_on(async {
        let whole = carried(head, answer, answer.len()).await;
        for cut in [answer.len() / 3, answer.len() / 2, answer.len().saturating_sub(1)] {
            assert_eq!(carried(head, answer, cut).await, whole, "cut at {cut}: {}", answer.escape_ascii());
        }
        assert_eq!(carried(head, answer, 0).await, whole, "byte by byte: {}", answer.escape_ascii());
        if let Some(got) = whole {
            assert!((200..1000).contains(&got.status), "{}", got.status);
            let hop = ["connection", "transfer-encoding", "keep-alive", "upgrade", "proxy-connection"];
            assert!(hop.iter().all(|name| !got.fields.contains_key(*name)), "{:?}", got.fields);
            assert!(!head || got.body.is_empty(), "a body for HEAD");
        }
    });
}

/// `None` = the visitor gets no whole answer. Written up to `cut`, then the rest; byte by byte where that is 0.
async fn carried(head: bool, answer: &[u8], cut: usize) -> Option<Got> {
    let (ours, theirs) = duplex(1 << 20);
    let (client, server) = tokio::join!(h2::client::handshake(theirs), h2::server::handshake(ours));
    let ((mut send, connection), mut frames) = (client.expect("a handshake"), server.expect("a handshake"));
    let mut connection = std::pin::pin!(connection);
    let method = if head { http::Method::HEAD } else { http::Method::GET };
    let request = Request::builder().method(method).uri("http://app.test/").body(()).expect("a request");
    let (response, _) = send.send_request(request, true).expect("sent");
    let visitor = async {
        let (head, mut body) = response.await.ok()?.into_parts();
        let mut bytes = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.ok()?;
            drop(body.flow_control().release_capacity(piece.len()));
            bytes.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await.ok()?;
        Some(Got { status: head.status.as_u16(), fields: head.headers, body: bytes, trailers })
    };
    let gateway = async {
        let (request, respond) =
            poll_fn(|cx| frames.poll_accept(cx)).await.expect("a request").expect("a request");
        let mut visit = Visit::new(request, respond).expect("a sound request");
        let write = async {
            let parts =
                if cut == 0 { answer.chunks(1).collect() } else { vec![&answer[..cut], &answer[cut..]] };
            for part in parts {
                visit.write_all(part).await?;
            }
            visit.shutdown().await
        };
        let _broken = moving(&mut frames, write).await;
        drop(visit);
        // For as long as the visitor wants.
        moving(&mut frames, std::future::pending::<()>()).await;
    };
    let (mut visitor, mut gateway) = (std::pin::pin!(visitor), std::pin::pin!(gateway));
    poll_fn(|cx| {
        let _moved = gateway.as_mut().poll(cx);
        let _moved = connection.as_mut().poll(cx);
        visitor.as_mut().poll(cx)
    })
    .await
}

/// Runs `work` while frames are read and written.
async fn moving<T>(
    frames: &mut h2::server::Connection<DuplexStream, Bytes>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        let _none = frames.poll_accept(cx);
        Poll::Pending
    })
    .await
}

/// Who floods is found out after the same bytes however they are cut.
pub(crate) fn h2_guard(bytes: &[u8]) {
    let now = Instant::now();
    let flooded = |cut: usize| {
        let mut guard = Guard::new(now);
        guard.came(PREFACE, || now);
        for part in [&bytes[..cut], &bytes[cut..]] {
            guard.came(part, || now);
        }
        guard.is_flooded()
    };
    let whole = flooded(0);
    let step = (bytes.len() / 20).max(1);
    for cut in (0..=bytes.len()).step_by(step) {
        assert_eq!(flooded(cut), whole, "cut at {cut} of {}", bytes.len());
    }
    let mut alone = Guard::new(now);
    alone.came(PREFACE, || now);
    for byte in bytes {
        alone.came(&[*byte], || now);
    }
    assert_eq!(alone.is_flooded(), whole, "byte by byte");
}

/// A request in HTTP/1 becomes one of HTTP/2 that, as HTTP/1 again, is the same.
pub(crate) fn h2c_request(bytes: &[u8]) {
    let mut head = RequestHead::default();
    let Ok(Some((len, there))) = translate(&mut head, bytes) else { return };
    assert!(len <= bytes.len() && head.len == len, "{len} of {}", bytes.len());
    for (name, value) in there.request.headers() {
        let hop = [
            "connection",
            "transfer-encoding",
            "keep-alive",
            "upgrade",
            "proxy-connection",
            "http2-settings",
        ];
        assert!(!hop.contains(&name.as_str()), "{name} is of a connection");
        assert!(name != "te" || value == "trailers", "TE: {value:?}");
    }
    // A WebSocket's handshake becomes something else (RFC 8441).
    if there.websocket.is_some() {
        return;
    }
    let mut out = Vec::new();
    let ended = matches!(head.body, RequestBody::None | RequestBody::Length(0));
    if render::head(&there.request, ended, [7; 16], &mut out).is_err() {
        return;
    }
    let mut back = RequestHead::default();
    match back.parse(&out, &LIMITS) {
        Ok(whole) => assert!(whole && back.len == out.len(), "{}", out.escape_ascii()),
        // A target that HTTP/1 has in another form, as OPTIONS *.
        Err(_) => return,
    }
    let again = translate(&mut RequestHead::default(), &out);
    let Ok(Some((_, again))) = again else { panic!("{again:?}: {}", out.escape_ascii()) };
    let (one, other) = (&there.request, &again.request);
    assert_eq!((one.method(), one.uri()), (other.method(), other.uri()));
    for name in one.headers().keys().filter(|name| **name != header::COOKIE) {
        let of =
            |request: &Request<()>| -> Vec<_> { request.headers().get_all(name).iter().cloned().collect() };
        assert_eq!(of(one), of(other), "{name}");
    }
    assert_eq!(there.timeout, again.timeout);
    if let Some(timeout) = grpc::parse_timeout(bytes) {
        assert!(timeout <= Duration::from_secs(99_999_999 * 3600), "{timeout:?}");
    }
}

/// Whatever is said to be a certificate: what is told of it is text without control characters, and fits a field.
pub(crate) fn certificate(bytes: &[u8]) {
    let der = CertificateDer::from(bytes.to_vec());
    if let Ok(client) = ClientIdentity::of(&[der.clone(), der.clone()]) {
        for text in [&client.name, &client.serial, &client.issuer, &client.fingerprint] {
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        // These are lines of a head, as they are.
        let fields = client.fields.escape_ascii();
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        head.extend_from_slice(&client.fields);
        head.extend_from_slice(b"\r\n");
        let mut parsed = RequestHead::default();
        let whole = parsed.parse(&head, &HeadLimits { line_bytes: 1 << 20, ..LIMITS });
        assert_eq!(whole, Ok(true), "{fields}");
        assert!(parsed.len == head.len() && parsed.fields.len() <= 4, "{fields}");
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    if let Ok(leaf) = Leaf::of(&der) {
        assert!(
            leaf.names.iter().all(|name| !name.chars().any(|c| c.is_control() || c.is_ascii_uppercase())),
            "{:?}",
            leaf.names
        );
        assert!(!leaf.primary_name().chars().any(char::is_control), "{:?}", leaf.primary_name());
        let (_, _) = (leaf.validity(now), leaf.seconds_left(now));
        let _stapled = ocsp::check(bytes, &leaf, Some(&der), now);
    }
    static LEAF: LazyLock<Leaf> = LazyLock::new(|| {
        let file = include_bytes!("../../../fuzz/corpus/certificate/ecdsa_server");
        Leaf::of(&CertificateDer::from(file.to_vec())).expect("a certificate")
    });
    let _stapled = ocsp::check(bytes, &LEAF, None, now);
}

/// Whatever an admin API says: every proxy has a name that it said, and domains and locations that are sorted, each once.
pub(crate) fn admin_api(bytes: &[u8]) {
    let v2 = serde_json::from_slice::<V2Envelope<V2Page>>(bytes).ok().and_then(|envelope| envelope.data);
    let v2 = v2.into_iter().flat_map(|page| page.items).filter_map(|item| item.known()?.live());
    let listings = [
        v2.collect(),
        serde_json::from_slice::<V1List>(bytes)
            .map(|list| list.live(ProxyKind::Http).collect())
            .unwrap_or_default(),
        serde_json::from_slice::<V1Proxy>(bytes)
            .ok()
            .and_then(|one| one.live(ProxyKind::Tcp))
            .into_iter()
            .collect(),
    ];
    let subdomain_host = serde_json::from_slice::<ServerInfo>(bytes).unwrap_or_default().subdomain_host;
    for live in listings {
        let count = Vec::len(&live);
        let listing = Listing::new(live, &subdomain_host);
        assert!(listing.proxies.len() <= count, "{} of {count}", listing.proxies.len());
        for proxy in &listing.proxies {
            assert!(proxy.domains.is_sorted_by(|one, other| one < other), "{:?}", proxy.domains);
            assert!(proxy.locations.is_sorted_by(|one, other| one < other), "{:?}", proxy.locations);
            assert!(proxy.port != Some(0), "port 0");
        }
    }
}

/// Whatever the file: a configuration, or errors that name a place in it.
pub(crate) fn config_file(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let loaded = load(text, "any.yaml", &NoResolver);
    let failed = loaded.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    assert_eq!(loaded.config.is_none(), failed, "a configuration without errors, or errors without one");
    let lines = text.lines().count().max(1);
    for diagnostic in &loaded.diagnostics {
        assert!((1..=lines).contains(&diagnostic.line) && diagnostic.column >= 1, "{diagnostic}");
    }
}
