//! What holds for any bytes: no panic, spans in bounds, and what comes later never changes a verdict.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "corpus/http1/invariants.rs"]
mod invariants;

use frp_gateway::http1::Method;
use proptest::{collection::vec, prelude::*, sample::select, test_runner::RngSeed};

/// Pieces of messages, so that random sequences of them get far into the parser.
const PIECES: &[&[u8]] = &[
    b"GET",
    b"POST ",
    b"GET / HTTP/1.1\r\n",
    b"POST /a?b HTTP/1.1\r\n",
    b"GET http://a/ HTTP/1.1\r\n",
    b"OPTIONS *",
    b" HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 204\r\n",
    b"HTTP/1.1 101 S\r\n",
    b"Host: a\r\n",
    b"Host:",
    b"Host",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade, x\r\n",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"X: y\r\n",
    b"x:\t \r\n",
    b"X",
    b":",
    b" ",
    b"\t",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"/",
    b"*",
    b"?",
    b"#",
    b"%",
    b"[::1]",
    b"@",
    b",",
    b";",
    b"\0",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"1;a=b\r\nx\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"fffff\r\n",
    b"a",
];

fn messages() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![8 => select(PIECES).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 1..4)];
    prop_oneof![4 => vec(piece, 0..24).prop_map(|pieces| pieces.concat()), 1 => vec(any::<u8>(), 0..200)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, rng_seed: RngSeed::Fixed(9112), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn request_heads_keep_the_invariants(bytes in messages()) {
        drop(invariants::request(&bytes));
        drop(invariants::request(&[b"GET / HTTP/1.1\r\nHost: a\r\n", &*bytes].concat()));
    }

    #[test]
    fn response_heads_keep_the_invariants(bytes in messages(), method in select(&[Method::Get, Method::Head, Method::Connect][..])) {
        drop(invariants::response(&bytes, method));
        drop(invariants::response(&[b"HTTP/1.1 200 OK\r\n", &*bytes].concat(), method));
    }

    #[test]
    fn chunked_bodies_keep_the_invariants(bytes in messages()) {
        drop(invariants::chunked(&bytes));
        drop(invariants::chunked(&[b"0\r\n", &*bytes].concat()));
    }

    #[test]
    fn chunked_payload_comes_out_as_it_went_in(
        chunks in vec((vec(any::<u8>(), 1..400), "(;[a-z]{1,8}(=[a-z0-9]{1,8})?){0,2}", any::<bool>()), 0..8),
        rest in vec(any::<u8>(), 0..8),
    ) {
        let (mut wire, mut payload) = (vec![], vec![]);
        for (chunk, extension, upper) in &chunks {
            let size = if *upper { format!("{:X}", chunk.len()) } else { format!("{:03x}", chunk.len()) };
            wire.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
            payload.extend_from_slice(chunk);
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        let consumed = wire.len();
        wire.extend_from_slice(&rest);
        let expected = invariants::Decoded { payload, consumed, done: true };
        prop_assert_eq!(invariants::chunked(&wire), Ok(expected));
    }
}
