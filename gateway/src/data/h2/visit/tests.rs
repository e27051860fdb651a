use std::future::{Future, poll_fn};

use bytes::Bytes;
use http::{HeaderMap, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// Bytes on the way between the two ends.
const ROOM: usize = 1 << 20;

type Frames = h2::server::Connection<DuplexStream, Bytes>;

/// A visitor and the frames of the server that it is connected to.
async fn connected() -> (h2::client::SendRequest<Bytes>, Frames) {
    let (ours, theirs) = duplex(ROOM);
    let (client, server) = tokio::join!(h2::client::handshake(theirs), h2::server::handshake(ours));
    let (send, connection) = client.expect("the visitor's handshake");
    tokio::spawn(async move { connection.await.expect("the visitor finds no fault with our frames") });
    (send, server.expect("the server's handshake"))
}

/// Runs `work` while frames are read and written.
async fn moving<T>(frames: &mut Frames, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        let _more = frames.poll_accept(cx).map(|next| assert!(next.is_none(), "one request was sent"));
        work.as_mut().poll(cx)
    })
    .await
}

fn post() -> Request<()> {
    Request::post("http://app.test/").body(()).expect("a request")
}

/// Until the body and the trailers have come, and are there to be read.
async fn until_it_has_come(frames: &mut Frames, visit: &mut Visit) -> Vec<u8> {
    let mut head = vec![0; 4096];
    let n = moving(frames, visit.read(&mut head)).await.expect("the head");
    head.truncate(n);
    // All frames were written before the first of them was read.
    poll_fn(|cx| {
        assert!(frames.poll_accept(cx).is_pending(), "one request was sent");
        Poll::Ready(())
    })
    .await;
    head
}

#[tokio::test]
async fn an_answer_that_doesnt_wait_for_a_request_with_trailers_arrives() {
    for rest_is_read in [true, false] {
        let (mut send, mut frames) = connected().await;
        let (answer, mut body) = send.send_request(post(), false).expect("it is sent");
        body.send_data(Bytes::from_static(b"data"), false).expect("it is sent");
        body.send_trailers(HeaderMap::new()).expect("they are sent");
        let (request, respond) = frames.accept().await.expect("a request").expect("a sound one");
        let mut visit = Visit::new(request, respond).expect("a sound one");
        let head = until_it_has_come(&mut frames, &mut visit).await;
        assert!(head.starts_with(b"POST / HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
        visit.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("it is taken");
        visit.shutdown().await.expect("it ends");
        if rest_is_read {
            poll_fn(|cx| visit.poll_rest(cx)).await;
        }
        drop(visit);
        let answer = moving(&mut frames, answer).await.expect("the answer isn't overtaken by a reset");
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        let part = moving(&mut frames, body.data()).await.expect("a body").expect("it is whole");
        assert_eq!(&part[..], b"ok");
    }
}

#[tokio::test]
async fn a_visitor_that_has_its_answer_is_told_after_it_to_send_no_more() {
    let (mut send, mut frames) = connected().await;
    let (answer, mut upload) = send.send_request(post(), false).expect("it is sent");
    let (request, respond) = frames.accept().await.expect("a request").expect("a sound one");
    let mut visit = Visit::new(request, respond).expect("a sound one");
    visit
        .write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nno!")
        .await
        .expect("it is taken");
    visit.shutdown().await.expect("it ends");
    drop(visit);
    let answer = moving(&mut frames, answer).await.expect("the answer comes first");
    assert_eq!(answer.status(), 413);
    let part = moving(&mut frames, answer.into_body().data()).await.expect("a body").expect("it is whole");
    assert_eq!(&part[..], b"no!");
    let reset = moving(&mut frames, poll_fn(|cx| upload.poll_reset(cx))).await.expect("a reset");
    assert_eq!(reset, Reason::NO_ERROR);
}
