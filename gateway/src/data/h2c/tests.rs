use std::future::Future;

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
};

use super::{request::translate, *};
use crate::data::stream::Conversation as _;
use crate::http1::RequestHead;

type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// A carrier to a server that hands each request to `serve`, then `work` on it.
async fn between<S, F, W, G>(serve: S, work: W)
where
    S: Fn(Asked) -> F + 'static,
    F: Future<Output = ()> + 'static,
    W: FnOnce(std::rc::Rc<Carrier>) -> G,
    G: Future<Output = ()>,
{
    LocalSet::new()
        .run_until(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            spawn_local(async move {
                let (socket, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok(asked)) = connection.accept().await {
                    spawn_local(serve(asked));
                }
            });
            let socket = TcpStream::connect(address).await.unwrap();
            let carrier = Carrier::begin(socket.into(), None).await.unwrap();
            work(carrier).await;
        })
        .await;
}

async fn body_of(mut body: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    (all, body.trailers().await.unwrap())
}

fn head_of(text: &str) -> Request<()> {
    let (used, translated) = translate(&mut RequestHead::default(), text.as_bytes()).unwrap().unwrap();
    assert_eq!(used, text.len(), "{text:?}");
    translated.request
}

#[test]
fn a_head_loses_what_belongs_to_connections_and_keeps_the_rest() {
    let request = head_of(
        "POST /a/b?c=d HTTP/1.1\r\nHost: app.test:81\r\nTransfer-Encoding: chunked\r\nConnection: TE, x-mine\r\n\
         TE: gzip;q=0.5, trailers\r\nKeep-Alive: 5\r\nX-Mine: 1\r\nX-Other: a\r\nx-other: b\r\n\r\n",
    );
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri(), "http://app.test:81/a/b?c=d");
    let fields: Vec<_> =
        request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(fields, [("te", "trailers"), ("x-other", "a"), ("x-other", "b")]);
}

#[test]
fn targets_that_browsers_write_are_escaped_and_the_others_kept() {
    for (target, expected) in [
        ("/", "/"),
        ("/a%2Fb?x=%20", "/a%2Fb?x=%20"),
        ("/a?x=<y>", "/a?x=%3Cy%3E"),
        ("/a?x=\"|{}^`", "/a?x=%22%7C%7B%7D%5E%60"),
    ] {
        let request = head_of(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let path = request.uri().path_and_query().unwrap().as_str();
        // Some of these the http crate takes as they are.
        assert!(path == expected || path == target, "{target:?} became {path:?}");
    }
    assert_eq!(head_of("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").uri().path(), "*");
}

#[test]
fn a_websocket_is_an_extended_connect() {
    let text = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let (_, translated) = translate(&mut RequestHead::default(), text.as_bytes()).unwrap().unwrap();
    assert_eq!(translated.request.method(), "CONNECT");
    assert_eq!(translated.request.uri().path(), "/chat");
    let protocol = translated.request.extensions().get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str);
    assert_eq!(protocol, Some("websocket"));
    assert!(!translated.request.headers().contains_key("sec-websocket-key"), "{:?}", translated.request);
    // RFC 6455 §1.3.
    assert_eq!(translated.websocket.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[tokio::test]
async fn a_request_in_pieces_of_any_size_arrives_whole_with_its_trailers() {
    let echo = |(request, mut respond): Asked| async move {
        let (body, trailers) = body_of(request.into_body()).await;
        let mut answer = Response::builder().header("x-length", body.len());
        answer = answer.header("x-trailer", trailers.unwrap_or_default()["x-sum"].clone());
        let mut send = respond.send_response(answer.body(()).unwrap(), false).unwrap();
        send.send_data(body.into(), true).unwrap();
    };
    between(echo, async |carrier| {
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                        5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nx-sum: 12\r\n\r\n";
        for size in 1..request.len() {
            let mut stream = Exchange::new(carrier.clone());
            for piece in request.chunks(size) {
                stream.write_all(piece).await.unwrap();
            }
            stream.flush().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "in pieces of {size}: {answer}");
            assert!(answer.contains("x-length: 12\r\n") && answer.contains("x-trailer: 12\r\n"), "{answer}");
            assert!(answer.ends_with("\r\nc\r\nhello, world\r\n0\r\n\r\n"), "in pieces of {size}: {answer}");
        }
        assert_eq!(carrier.streams(), 0, "all are over");
    })
    .await;
}

#[tokio::test]
async fn a_large_body_goes_both_ways_no_faster_than_it_is_read() {
    const SIZE: usize = 3 << 20;
    let echo = |(request, mut respond): Asked| async move {
        let mut body = request.into_body();
        let answer = Response::builder().header("content-length", SIZE).body(()).unwrap();
        let mut send = respond.send_response(answer, false).unwrap();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            send.send_data(data, false).unwrap();
        }
        send.send_data(Bytes::new(), true).unwrap();
    };
    between(echo, async |carrier| {
        let stream = Exchange::new(carrier);
        let (mut read, mut write) = tokio::io::split(stream);
        let pattern = |at: usize| u8::try_from(at % 251).unwrap();
        let sent: Vec<u8> = (0..SIZE).map(pattern).collect();
        let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
        let send = async {
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&sent).await.unwrap();
        };
        let receive = async {
            let mut answer = Vec::new();
            read.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let ((), answer) = tokio::join!(send, receive);
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(answer.len() - end, SIZE, "as much came back");
        assert!(answer[end..] == sent, "and the same");
    })
    .await;
}

#[tokio::test]
async fn answers_are_framed_as_http_1_needs_it() {
    let serve = |(request, mut respond): Asked| async move {
        let answer = |status: u16| Response::builder().status(status);
        match request.uri().path() {
            "/length" => {
                let head = answer(200).header("content-length", 2).body(()).unwrap();
                respond.send_response(head, false).unwrap().send_data("ok".into(), true).unwrap();
            }
            "/none" => drop(respond.send_response(answer(204).body(()).unwrap(), true).unwrap()),
            "/head" => {
                let head = answer(200).header("content-length", 5).body(()).unwrap();
                drop(respond.send_response(head, true).unwrap());
            }
            "/refusal" => {
                let head = answer(200).header("content-type", "application/grpc").header("grpc-status", 5);
                drop(respond.send_response(head.body(()).unwrap(), true).unwrap());
            }
            "/grpc" => {
                let head = answer(200).header("content-type", "application/grpc+proto").body(()).unwrap();
                let mut send = respond.send_response(head, false).unwrap();
                send.send_data("message".into(), false).unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "7".parse().unwrap());
                trailers.insert("content-length", "1".parse().unwrap());
                trailers.insert("transfer_encoding", "x".parse().unwrap());
                send.send_trailers(trailers).unwrap();
            }
            "/cut" => {
                let head = answer(200).header("content-type", "application/grpc").body(()).unwrap();
                let mut send = respond.send_response(head, false).unwrap();
                send.send_data("message".into(), false).unwrap();
                // Sent before the end.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                send.send_reset(Reason::INTERNAL_ERROR);
            }
            _ => {
                respond.send_informational(answer(103).header("link", "x").body(()).unwrap()).unwrap();
                respond.send_response(answer(200).body(()).unwrap(), true).unwrap();
            }
        }
    };
    between(serve, async |carrier| {
        let ask = async |method: &str, path: &str| {
            let mut stream = Exchange::new(carrier.clone());
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            (answer, stream)
        };
        let text = |answer: &str| answer.to_owned();
        assert_eq!(ask("GET", "/length").await.0, text("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
        assert_eq!(ask("GET", "/none").await.0, text("HTTP/1.1 204 No Content\r\n\r\n"));
        assert_eq!(ask("HEAD", "/head").await.0, text("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"));
        assert_eq!(
            ask("GET", "/interim").await.0,
            text("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        );
        let (refusal, stream) = ask("POST", "/refusal").await;
        assert!(refusal.ends_with("grpc-status: 5\r\nContent-Length: 0\r\n\r\n"), "{refusal}");
        assert_eq!(stream.grpc_status(), Some(5));
        let (answer, stream) = ask("POST", "/grpc").await;
        assert!(
            answer.ends_with("Transfer-Encoding: chunked\r\n\r\n7\r\nmessage\r\n0\r\ngrpc-status: 7\r\n\r\n"),
            "trailers that would frame are left out: {answer}"
        );
        assert!(stream.grpc_status() == Some(7) && !stream.is_mended());
        let (answer, stream) = ask("POST", "/cut").await;
        assert!(answer.contains("\r\n7\r\nmessage\r\n0\r\ngrpc-status: 14\r\n"), "{answer}");
        assert!(stream.grpc_status() == Some(14) && stream.is_mended(), "{stream:?}");
    })
    .await;
}

#[tokio::test]
async fn what_the_endpoint_has_not_touched_is_told_apart_from_what_broke() {
    let serve = |(request, mut respond): Asked| async move {
        respond.send_reset(match request.uri().path() {
            "/refused" => Reason::REFUSED_STREAM,
            _ => Reason::INTERNAL_ERROR,
        });
    };
    between(serve, async |carrier| {
        for (path, expected) in [("/refused", Some(Untouched::Refused)), ("/broken", None)] {
            let mut stream = Exchange::new(carrier.clone());
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let error = stream.read(&mut [0; 100]).await.unwrap_err();
            assert_eq!(untouched(&error), expected, "{path}: {error}");
        }
        assert!(!carrier.is_ending(), "the connection goes on");
    })
    .await;
}

#[tokio::test]
async fn streams_beyond_the_last_of_a_goaway_were_not_touched() {
    LocalSet::new()
        .run_until(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            spawn_local(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut block = vec![0; 4096];
                let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
                socket.write_all(&settings).await.unwrap();
                let mut seen = Vec::new();
                // Our PING, by its type and length.
                let ping = loop {
                    let n = socket.read(&mut block).await.unwrap();
                    seen.extend_from_slice(&block[..n]);
                    if let Some(at) = seen.windows(5).position(|window| window == [0, 0, 8, 6, 0]) {
                        break seen[at + 9..at + 17].to_vec();
                    }
                };
                let mut pong = vec![0, 0, 8, 6, 1, 0, 0, 0, 0];
                pong.extend_from_slice(&ping);
                socket.write_all(&pong).await.unwrap();
                // The request's head, whatever it is; then GOAWAY with 0 as the last stream.
                let mut seen = Vec::new();
                while !seen.windows(4).any(|window| window == b"x-me") {
                    let n = socket.read(&mut block).await.unwrap();
                    assert!(n > 0, "it asks");
                    seen.extend_from_slice(&block[..n]);
                    if seen.len() > 40 {
                        break;
                    }
                }
                socket.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
                while socket.read(&mut block).await.is_ok_and(|n| n > 0) {}
            });
            let socket = TcpStream::connect(address).await.unwrap();
            let carrier = Carrier::begin(socket.into(), None).await.unwrap();
            let mut stream = Exchange::new(carrier.clone());
            let head =
                b"POST /some/path/that/is/long/enough HTTP/1.1\r\nHost: a.long.name.test\r\nx-me: 1\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let error = stream.read(&mut [0; 100]).await.unwrap_err();
            assert_eq!(untouched(&error), Some(Untouched::Closing), "{error}");
            assert!(carrier.is_ending() && !carrier.has_room(), "nothing more is sent there");
            let error = Exchange::new(carrier).write(head).await.unwrap_err();
            assert_eq!(untouched(&error), Some(Untouched::Closing), "{error}");
        })
        .await;
}

#[tokio::test]
async fn an_endpoint_that_speaks_something_else_is_found_out_before_a_request_is_sent() {
    LocalSet::new()
        .run_until(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            spawn_local(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                socket.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.unwrap();
            });
            let socket = TcpStream::connect(address).await.unwrap();
            let error = Carrier::begin(socket.into(), None).await.map(drop);
            assert!(error.is_err(), "{error:?}");
        })
        .await;
}
