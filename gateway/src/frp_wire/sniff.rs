//! Which wire a connection speaks, by its first bytes.

use serde::{Deserialize, Serialize};

use super::message::{MAGIC, V1_HEADER, V1_MOST};

/// The request line of frpc's websocket, up to the end of its path.
const WEBSOCKET: &[u8] = b"GET /~!frp";

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum First {
    /// Too few bytes to tell.
    NeedMore,
    /// TLS. `custom_byte`: after frp's own first byte 0x17, which frps takes off.
    Tls {
        /// Whether frp's own byte comes first.
        custom_byte: bool,
    },
    /// A yamux session (`tcpMux`), in clear.
    Yamux,
    /// A v1 login, in clear, without yamux.
    V1Login,
    /// A v1 work connection, in clear.
    V1WorkConn,
    /// A v1 visitor of stcp, sudp or xtcp, in clear.
    V1Visitor,
    /// The v2 wire, in clear, without yamux.
    V2,
    /// `GET /~!frp`: what follows is inside websocket frames.
    WebSocket,
    /// Nothing that frps takes.
    Unknown,
}

/// Tells the wire. At most 12 bytes are needed. O(1).
///
/// What is called [`First::Unknown`] stays so whatever follows; anything else but [`First::NeedMore`] is final too.
#[must_use]
pub fn sniff(bytes: &[u8]) -> First {
    match bytes {
        [] => First::NeedMore,
        [0x16, rest @ ..] => tls(rest, false),
        [0x17, 0x16, rest @ ..] => tls(rest, true),
        [0x17] => First::NeedMore,
        [0x00, ..] => yamux(bytes),
        [b'o', ..] => v1(bytes, First::V1Login),
        [b'w', ..] => v1(bytes, First::V1WorkConn),
        [b'v', ..] => v1(bytes, First::V1Visitor),
        [b'F', ..] => prefix(bytes, MAGIC, First::V2),
        [b'G', ..] => prefix(bytes, WEBSOCKET, First::WebSocket),
        _ => First::Unknown,
    }
}

/// After the record type of a handshake: a version 3.x.
fn tls(rest: &[u8], custom_byte: bool) -> First {
    match rest {
        [] => First::NeedMore,
        [3, ..] => First::Tls { custom_byte },
        _ => First::Unknown,
    }
}

fn yamux(bytes: &[u8]) -> First {
    match bytes.get(1) {
        Some(kind) if *kind > 3 => First::Unknown,
        _ if bytes.len() < super::yamux::HEADER => First::NeedMore,
        _ => First::Yamux,
    }
}

fn v1(bytes: &[u8], first: First) -> First {
    let Some(header) = bytes.first_chunk::<V1_HEADER>() else {
        // The length is at most 10,240: its upper six bytes are zero.
        let upper = &bytes[1..bytes.len().min(7)];
        return if upper.iter().all(|byte| *byte == 0) { First::NeedMore } else { First::Unknown };
    };
    let [_, length @ ..] = *header;
    if u64::from_be_bytes(length) <= V1_MOST as u64 { first } else { First::Unknown }
}

fn prefix(bytes: &[u8], wanted: &[u8], first: First) -> First {
    let n = bytes.len().min(wanted.len());
    match (bytes[..n] == wanted[..n], n == wanted.len()) {
        (false, _) => First::Unknown,
        (true, false) => First::NeedMore,
        (true, true) => first,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_wire_is_told_by_its_first_bytes() {
        let login = [b"o".as_slice(), &201u64.to_be_bytes()].concat();
        let cases: [(&[u8], First); 11] = [
            (&[0x16, 3, 1], First::Tls { custom_byte: false }),
            (&[0x17, 0x16, 3, 1], First::Tls { custom_byte: true }),
            (&[0, 1, 0, 1, 0, 0, 0, 1, 0, 0x5c, 0, 0], First::Yamux),
            (&login, First::V1Login),
            (b"w\0\0\0\0\0\0\0\x1d", First::V1WorkConn),
            (b"v\0\0\0\0\0\0\x01\0", First::V1Visitor),
            (b"FRP\0\x02\r\n", First::V2),
            (b"GET /~!frp HTTP/1.1", First::WebSocket),
            (b"GET / HTTP/1.1", First::Unknown),
            (b"SSH-2.0", First::Unknown),
            (b"o\0\0\0\0\0\x01\0\0", First::Unknown),
        ];
        for (bytes, first) in cases {
            assert_eq!(sniff(bytes), first, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_verdict_never_changes_with_further_bytes(
            start in prop::sample::select(vec![
                vec![0x16], vec![0x17], vec![0x17, 0x16], vec![0, 0], vec![0], b"o\0\0\0".to_vec(), b"w\0\0\0\0\0".to_vec(),
                b"FRP\0".to_vec(), b"GET /~!".to_vec(), vec![],
            ]),
            rest in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let bytes = [start, rest].concat();
            let mut before = First::NeedMore;
            for n in 0..=bytes.len() {
                let now = sniff(&bytes[..n]);
                prop_assert!(before == First::NeedMore || before == now, "{n} bytes of {bytes:?}: {before:?} became {now:?}");
                before = now;
            }
            prop_assert!(bytes.len() < 12 || before != First::NeedMore, "{bytes:?}");
        }
    }
}
