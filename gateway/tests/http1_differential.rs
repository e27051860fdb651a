//! Against hyper: what we accept, hyper understands as we do. That it refuses some of it is fine; that it reads
//! something else would be request smuggling.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![allow(clippy::print_stdout, reason = "shown when a test fails")]

#[path = "corpus/http1/invariants.rs"]
mod invariants;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use frp_gateway::http1::{
    Field, Known, Method, RequestBody, RequestHead, ResponseBody, ResponseHead, TargetForm,
};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{HeaderMap, Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select,
    test_runner::{RngSeed, contextualize_config},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Name (lower case) and values in order of first appearance; values of one name in order.
type Fields = Vec<(String, Vec<Vec<u8>>)>;

#[derive(Debug, PartialEq, Eq)]
struct Message {
    /// Method and target, or status.
    start: String,
    fields: Fields,
    body: Vec<u8>,
}

// --- what we see

fn grouped<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Fields {
    let mut out = Fields::new();
    for (name, value) in fields {
        let name = String::from_utf8(name.to_ascii_lowercase()).unwrap();
        match out.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value.to_vec()),
            None => out.push((name, vec![value.to_vec()])),
        }
    }
    out.sort();
    out
}

fn ours(fields: &[Field], bytes: &[u8]) -> Fields {
    grouped(fields.iter().map(|field| (field.name.of(bytes), field.value.of(bytes))))
}

/// Body and where the message ends; `None` = refused or incomplete.
fn body(bytes: &[u8], at: usize, length: Option<u64>, chunked: bool) -> Option<(Vec<u8>, usize)> {
    let rest = &bytes[at..];
    if chunked {
        let decoded = invariants::chunked(rest).ok().filter(|decoded| decoded.done)?;
        return Some((decoded.payload, at + decoded.consumed));
    }
    let length = usize::try_from(length.unwrap_or(0)).ok()?;
    Some((rest.get(..length)?.to_vec(), at + length))
}

fn our_request(bytes: &[u8]) -> Option<(Message, RequestHead, usize)> {
    let head = invariants::request(bytes).ok().flatten()?;
    let length = if let RequestBody::Length(length) = head.body { Some(length) } else { None };
    let (body, end) = body(bytes, head.len, length, head.body == RequestBody::Chunked)?;
    let text = |span: frp_gateway::http1::Span| String::from_utf8(span.of(bytes).to_vec()).unwrap();
    let query = head.query.map(|query| format!("?{}", text(query))).unwrap_or_default();
    let path = text(head.path);
    let target = match head.form {
        TargetForm::Origin | TargetForm::Asterisk => format!("{path}{query}"),
        TargetForm::Absolute => format!("{}{path}{query}", text(head.host)),
        TargetForm::Authority => text(head.host),
    };
    let start = format!("{} {target} {:?}", text(head.method_span), head.version);
    Some((Message { start, fields: ours(&head.fields, bytes), body }, head, end))
}

// --- what hyper sees

fn theirs(headers: &HeaderMap) -> Fields {
    grouped(headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())))
}

fn version(version: hyper::Version) -> &'static str {
    match version {
        hyper::Version::HTTP_10 => "Http10",
        hyper::Version::HTTP_11 => "Http11",
        other => panic!("{other:?}"),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Whole(Message),
    /// The head was taken, the body was not all there: hyper sees another length.
    Broken(String),
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(10), future).await.expect("hyper hangs") })
}

/// Sends bytes to hyper's server, then ends; everything that its service was given.
fn hyper_requests(bytes: &[u8]) -> Vec<Seen> {
    let seen = Arc::new(Mutex::new(vec![]));
    let into = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = Arc::clone(&into);
        async move {
            let (parts, body) = request.into_parts();
            let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let authority = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
            let start = format!("{} {authority}{path} {}", parts.method, version(parts.version));
            let body = body.collect().await;
            seen.lock().unwrap().push(match body {
                Ok(body) => Seen::Whole(Message {
                    start,
                    fields: theirs(&parts.headers),
                    body: body.to_bytes().to_vec(),
                }),
                Err(error) => Seen::Broken(format!("{start}: {error}")),
            });
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    run(async {
        let (mut visitor, server) = tokio::io::duplex(256 * 1024);
        visitor.write_all(bytes).await.unwrap();
        visitor.shutdown().await.unwrap();
        let drain = async { visitor.read_to_end(&mut vec![]).await };
        let connection = async {
            // An error is a refusal; what came before it is in `seen`.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .half_close(true)
                    .serve_connection(TokioIo::new(server), service)
                    .await,
            );
        };
        let (_, _) = tokio::join!(drain, connection);
    });
    Arc::into_inner(seen).unwrap().into_inner().unwrap()
}

/// Sends bytes to hyper's client as the answer to a request, and [`NEXT_ANSWER`] if it asks again on that connection.
fn hyper_response(bytes: &[u8], method: &hyper::Method, until_close: bool) -> (Option<Seen>, Option<Seen>) {
    run(async {
        let (mut endpoint, client) = tokio::io::duplex(256 * 1024);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(client)).await.unwrap();
        let exchange = async {
            let first = ask(&mut sender, method).await;
            let next = match &first {
                Some(Seen::Whole(_)) if sender.ready().await.is_ok() => {
                    ask(&mut sender, &hyper::Method::GET).await
                }
                _ => None,
            };
            drop(sender);
            (first, next)
        };
        let peer = async {
            let mut request = [0; 1024];
            let _n = endpoint.read(&mut request).await;
            drop(endpoint.write_all(bytes).await);
            // Where hyper waits for more of the body, no second request comes; the end of the connection tells.
            let again = tokio::time::timeout(Duration::from_millis(500), endpoint.read(&mut request));
            if !until_close && matches!(again.await, Ok(Ok(1..))) {
                drop(endpoint.write_all(NEXT_ANSWER).await);
            }
            drop(endpoint.shutdown().await);
        };
        let (seen, (), _end) = tokio::join!(exchange, peer, connection);
        seen
    })
}

/// One exchange on a connection of hyper's client.
async fn ask(
    sender: &mut hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
    method: &hyper::Method,
) -> Option<Seen> {
    let request = Request::builder().method(method).uri("/").header("host", "a").body(Empty::new()).unwrap();
    let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
    let start = format!("{} {}", parts.status.as_u16(), version(parts.version));
    Some(match body.collect().await {
        Ok(body) => {
            Seen::Whole(Message { start, fields: theirs(&parts.headers), body: body.to_bytes().to_vec() })
        }
        Err(error) => Seen::Broken(format!("{start}: {error}")),
    })
}

// --- comparing

/// Follows every request. hyper sees it, and sees it whole, only when it agrees where the request before it ended.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

/// As [`NEXT`], for responses.
const NEXT_ANSWER: &[u8] = b"HTTP/1.1 299 Next\r\nContent-Length: 4\r\n\r\nnext";

/// Whether hyper understood the message too, ended it at the same byte, and went on where we would.
fn compare_request(bytes: &[u8]) -> Result<Verdict, TestCaseError> {
    let Some((message, head, end)) = our_request(bytes) else { return Ok(Verdict::WeRefuse) };
    if head.method == Method::Connect {
        return Ok(Verdict::WeRefuse); // as the gateway does
    }
    let seen = hyper_requests(&[&bytes[..end], NEXT].concat());
    match seen.as_slice() {
        [] => Ok(Verdict::HyperRefuses),
        [Seen::Whole(theirs), next @ ..] if next.len() <= 1 => {
            prop_assert_eq!(theirs, &message, "b\"{}\"", bytes.escape_ascii());
            prop_assert_eq!(next.len() == 1, head.keep_alive, "keep-alive of b\"{}\"", bytes.escape_ascii());
            if let [next] = next {
                let (expected, ..) = our_request(NEXT).expect("it is valid");
                prop_assert_eq!(next, &Seen::Whole(expected), "after b\"{}\"", bytes.escape_ascii());
            }
            Ok(Verdict::Same)
        }
        other => Err(TestCaseError::fail(format!("hyper sees {other:?} in b\"{}\"", bytes.escape_ascii()))),
    }
}

fn compare_response(bytes: &[u8], method: Method) -> Result<Verdict, TestCaseError> {
    let parsed: Option<ResponseHead> = invariants::response(bytes, method).ok().flatten();
    let Some(head) = parsed.filter(|head| head.status >= 200) else { return Ok(Verdict::WeRefuse) };
    let length = if let ResponseBody::Length(length) = head.body { Some(length) } else { None };
    let read = match head.body {
        ResponseBody::UntilClose => Some((bytes[head.len..].to_vec(), bytes.len())),
        ResponseBody::None | ResponseBody::Length(_) | ResponseBody::Chunked => {
            body(bytes, head.len, length, head.body == ResponseBody::Chunked)
        }
    };
    let Some((body, end)) = read else { return Ok(Verdict::WeRefuse) };
    let start = format!("{} {:?}", head.status, head.version);
    let message = Message { start, fields: ours(&head.fields, bytes), body };
    let method = if method == Method::Head { hyper::Method::HEAD } else { hyper::Method::GET };
    let until_close = head.body == ResponseBody::UntilClose;
    let (seen, next) = hyper_response(&bytes[..end], &method, until_close);
    match seen {
        None => Ok(Verdict::HyperRefuses),
        Some(Seen::Whole(theirs)) => {
            prop_assert_eq!(theirs, message, "b\"{}\"", bytes.escape_ascii());
            prop_assert_eq!(next.is_some(), head.keep_alive, "keep-alive of b\"{}\"", bytes.escape_ascii());
            if let Some(next) = next {
                let start = "299 Http11".to_owned();
                let fields = grouped([(&b"content-length"[..], &b"4"[..])].into_iter());
                let expected = Seen::Whole(Message { start, fields, body: b"next".to_vec() });
                prop_assert_eq!(next, expected, "after b\"{}\"", bytes.escape_ascii());
            }
            Ok(Verdict::Same)
        }
        other => Err(TestCaseError::fail(format!("hyper sees {other:?} in b\"{}\"", bytes.escape_ascii()))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    WeRefuse,
    HyperRefuses,
    Same,
}

// --- a grammar of valid messages

fn field() -> impl Strategy<Value = String> {
    let name =
        "[A-Za-z][A-Za-z0-9_.!#$%&'*+^`|~-]{0,12}".prop_filter("framing fields are added apart", |name| {
            let known = Known::of(name.as_bytes());
            matches!(known, Known::Other | Known::Via | Known::Server | Known::Cookie | Known::XForwardedFor)
        });
    (name, "[ \t]{0,2}", "([!-~]([ -~\t]{0,20}[!-~])?)?", "[ \t]{0,2}")
        .prop_map(|(name, before, value, after)| format!("{name}:{before}{value}{after}\r\n"))
}

fn chunks() -> impl Strategy<Value = Vec<u8>> {
    let extension = "(;[a-z]{1,5}(=[a-z0-9]{1,5})?)?";
    let trailer = option::of("X-[A-Z]{1,5}: ?[a-z]{0,6}\r\n".prop_filter("allowed late", |line| {
        Known::of(line.split(':').next().unwrap().as_bytes()) == Known::Other
    }));
    (vec((vec(any::<u8>(), 1..40), extension), 0..4), trailer).prop_map(|(chunks, trailer)| {
        let mut out = vec![];
        for (data, extension) in chunks {
            out.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("0\r\n{}\r\n", trailer.unwrap_or_default()).as_bytes());
        out
    })
}

/// Framing field line and the body it announces.
fn framed() -> impl Strategy<Value = (String, Vec<u8>)> {
    prop_oneof![
        Just((String::new(), vec![])),
        vec(any::<u8>(), 0..60).prop_map(|body| (format!("Content-Length: {}\r\n", body.len()), body)),
        chunks().prop_map(|body| ("Transfer-Encoding: chunked\r\n".to_owned(), body)),
    ]
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![3 => select(&["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE"][..]).prop_map(str::to_owned),
        1 => "[A-Z][A-Za-z-]{0,8}".prop_filter("not CONNECT", |method| method != "CONNECT")];
    let host = "([a-z][a-z0-9-]{0,8}(\\.[a-z]{1,4}){0,2}|127\\.0\\.0\\.1|\\[::1\\])(:[1-9][0-9]{0,3})?";
    let path = "/[A-Za-z0-9/._~!$&'()*+,;=:@%-]{0,20}(\\?[A-Za-z0-9/?=&%:@!|^{}\"-]{0,20})?";
    let connection = option::of("Connection: (close|keep-alive|x-a, Keep-Alive)\r\n");
    let version = select(&["1.1", "1.1", "1.1", "1.0"][..]);
    ((method, host, path, any::<bool>()), vec(field(), 0..6), connection, framed(), version, any::<bool>())
        .prop_map(
            |((method, host, path, absolute), fields, connection, (framing, body), version, empty_line)| {
                let target = if absolute { format!("http://{host}{path}") } else { path };
                let (framing, body) = if version == "1.0" && framing.starts_with('T') {
                    (String::new(), vec![])
                } else {
                    (framing, body)
                };
                let half = fields.len() / 2;
                let mut out = if empty_line { "\r\n".to_owned() } else { String::new() };
                out += &format!(
                    "{method} {target} HTTP/{version}\r\n{}Host: {host}\r\n",
                    fields[..half].concat()
                );
                out += &format!("{}{}{framing}\r\n", connection.unwrap_or_default(), fields[half..].concat());
                [out.into_bytes(), body].concat()
            },
        )
}

fn responses() -> impl Strategy<Value = Vec<u8>> {
    let status = prop_oneof![select(&[200u16, 204, 205, 206, 301, 304, 404, 503][..]), 200..600u16];
    let connection = option::of(select(&["close", "keep-alive", "x-a, Keep-Alive"][..]));
    let version = select(&["1.1", "1.1", "1.1", "1.0"][..]);
    (status, "( [A-Za-z ]{0,12})?", vec(field(), 0..6), framed(), connection, version).prop_map(
        |(status, reason, fields, (framing, body), connection, version)| {
            let unframed = status == 204 || (version == "1.0" && framing.starts_with('T'));
            let (framing, body) = if unframed { (String::new(), vec![]) } else { (framing, body) };
            let connection = connection.map(|it| format!("Connection: {it}\r\n")).unwrap_or_default();
            let fields = fields.concat() + &connection + &framing;
            [format!("HTTP/{version} {status}{reason}\r\n{fields}\r\n").into_bytes(), body].concat()
        },
    )
}

/// Small changes, mostly with bytes that mean something.
fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, Vec<u8>)>> {
    const BYTES: &[&[u8]] = &[
        b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b";", b",", b"/", b"?", b"#", b"@", b"\0", b"0", b"5",
        b"\x80",
    ];
    const TEXTS: &[&[u8]] = &[
        b"\r\nContent-Length: 3",
        b"\r\nTransfer-Encoding: chunked",
        b"\r\nHost: b",
        b"chunked",
        b"\r\n\r\n",
        b"\r\nConnection: close",
    ];
    let insert = prop_oneof![
        select(BYTES).prop_map(<[u8]>::to_vec),
        select(TEXTS).prop_map(<[u8]>::to_vec),
        vec(any::<u8>(), 1..3),
    ];
    vec((any::<prop::sample::Index>(), 0..3u8, insert), 1..4)
}

fn mutate(mut bytes: Vec<u8>, edits: &[(prop::sample::Index, u8, Vec<u8>)]) -> Vec<u8> {
    for (at, kind, with) in edits {
        let at = at.index(bytes.len() + 1);
        let upto = bytes.len().min(at + with.len());
        match kind {
            0 => drop(bytes.splice(at..at, with.iter().copied())),
            1 => drop(bytes.splice(at..upto, with.iter().copied())),
            _ => drop(bytes.splice(at..upto, [])),
        }
    }
    bytes
}

/// Every run tries the same cases; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` are for looking further by hand.
const SEED: RngSeed = RngSeed::Fixed(9112);

/// Runs `cases` and wants at least `same` of them understood alike, so that the test can't pass by refusing everything.
fn compare_all<T: std::fmt::Debug>(
    cases: u32,
    same: u32,
    strategy: impl Strategy<Value = T>,
    compare: impl Fn(T) -> Result<Verdict, TestCaseError>,
) {
    let config =
        ProptestConfig { cases, rng_seed: SEED, failure_persistence: None, ..ProptestConfig::default() };
    let config = contextualize_config(config);
    let counts = std::cell::RefCell::new([0; 3]);
    let outcome = proptest::test_runner::TestRunner::new(config).run(&strategy, |case| {
        let verdict = compare(case)?;
        counts.borrow_mut()[verdict as usize] += 1;
        Ok(())
    });
    let counts = counts.into_inner();
    outcome.unwrap_or_else(|error| panic!("{error}"));
    println!("we refuse {}, hyper refuses {}, same {}", counts[0], counts[1], counts[2]);
    assert!(counts[Verdict::Same as usize] >= same, "only {counts:?} (we refuse, hyper refuses, same)");
}

#[test]
fn hyper_understands_valid_requests_as_we_do() {
    compare_all(1_500, 900, requests(), |bytes| {
        prop_assert!(our_request(&bytes).is_some(), "refused: b\"{}\"", bytes.escape_ascii());
        compare_request(&bytes)
    });
}

#[test]
fn hyper_understands_mutated_requests_that_we_accept_as_we_do() {
    compare_all(2_000, 150, (requests(), edits()), |(bytes, edits)| compare_request(&mutate(bytes, &edits)));
}

#[test]
fn hyper_understands_valid_responses_as_we_do() {
    let methods = select(&[Method::Get, Method::Get, Method::Head][..]);
    compare_all(1_500, 1_200, (responses(), methods), |(bytes, method)| {
        let parsed = invariants::response(&bytes, method);
        prop_assert!(matches!(parsed, Ok(Some(_))), "refused: {parsed:?} b\"{}\"", bytes.escape_ascii());
        compare_response(&bytes, method)
    });
}

#[test]
fn hyper_understands_mutated_responses_that_we_accept_as_we_do() {
    let methods = select(&[Method::Get, Method::Get, Method::Head][..]);
    compare_all(2_000, 300, (responses(), edits(), methods), |(bytes, edits, method)| {
        compare_response(&mutate(bytes, &edits), method)
    });
}
