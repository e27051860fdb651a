//! Who begins a connection: the first message, through yamux or v2 frames if need be, and frps's answer to a login.

use serde::Deserialize;

use super::{
    First, Proof, Taken,
    message::{MAGIC, V2_MESSAGE, v1, v2},
    sniff, yamux,
};

/// v2's number of a login; its answer has the next one.
const V2_LOGIN: u16 = 1;
const V2_LOGIN_ANSWER: u16 = 2;

/// A run id. Whoever has it may take over the client's work, so it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    /// For hashing only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `None` for the empty one that a first login has.
    #[must_use]
    pub fn new(id: String) -> Option<Self> {
        (!id.is_empty()).then_some(Self(id))
    }
}

impl std::fmt::Debug for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunId(…)")
    }
}

/// The first message of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// A client logs in.
    Login {
        /// User of FRP; nobody has checked it.
        user: String,
        /// `clientID`; empty = none.
        client_id: String,
        /// That of its last session, when it had one.
        run_id: Option<RunId>,
        /// Of the token it knows; nobody has checked it.
        proof: Proof,
    },
    /// A work connection of a client, or of its visitor.
    Work {
        /// Whose; `None` when it says nothing.
        run_id: Option<RunId>,
    },
}

/// What can be told from the first bytes of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peeked {
    /// Not yet.
    NeedMore,
    /// All of it.
    Hello(Hello),
    /// It is FRP, and nobody but its frps can read on.
    Opaque,
    /// It isn't FRP.
    Unknown,
}

/// What frps answered to a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Not told yet.
    NeedMore,
    /// It is in.
    In {
        /// Of its session.
        run_id: Option<RunId>,
    },
    /// It is refused.
    Refused,
    /// Something else, or nothing that can be read.
    Other,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    user: String,
    client_id: String,
    run_id: String,
    privilege_key: String,
    timestamp: i64,
    error: String,
}

/// Reads the first message of a client from its first bytes. O(bytes).
#[must_use]
pub fn peek(bytes: &[u8]) -> Peeked {
    match sniff(bytes) {
        First::NeedMore => Peeked::NeedMore,
        First::Unknown => Peeked::Unknown,
        First::Tls { .. } | First::WebSocket => Peeked::Opaque,
        First::Yamux => {
            let stream = yamux::first_stream(bytes);
            let peeked = match sniff(&stream.data) {
                First::NeedMore => Peeked::NeedMore,
                first => in_clear(first, &stream.data),
            };
            // A message that is whole counts, whatever came along behind it.
            if stream.broken && peeked == Peeked::NeedMore { Peeked::Unknown } else { peeked }
        }
        first => in_clear(first, bytes),
    }
}

fn in_clear(first: First, bytes: &[u8]) -> Peeked {
    let message = match first {
        First::V1Login | First::V1WorkConn | First::V1Visitor => match v1(bytes) {
            Taken::Whole(message, _) => Taken::Whole((message.kind == b'o', message.json), 0),
            Taken::NeedMore => Taken::NeedMore,
            Taken::Invalid => Taken::Invalid,
        },
        First::V2 => match v2_message(&bytes[MAGIC.len()..]) {
            Taken::Whole((id, json), _) => Taken::Whole((id == V2_LOGIN, json), 0),
            Taken::NeedMore => Taken::NeedMore,
            Taken::Invalid => Taken::Invalid,
        },
        First::NeedMore | First::Tls { .. } | First::Yamux | First::WebSocket | First::Unknown => {
            Taken::Invalid
        }
    };
    let (is_login, json) = match message {
        Taken::NeedMore => return Peeked::NeedMore,
        Taken::Invalid => return Peeked::Unknown,
        Taken::Whole(message, _) => message,
    };
    let Ok(fields) = serde_json::from_slice::<Fields>(json) else { return Peeked::Opaque };
    let run_id = RunId::new(fields.run_id);
    Peeked::Hello(if is_login {
        let proof = Proof::new(fields.privilege_key, fields.timestamp);
        Hello::Login { user: fields.user, client_id: fields.client_id, run_id, proof }
    } else {
        Hello::Work { run_id }
    })
}

/// The first message in these frames: its number and JSON. Hellos are skipped.
fn v2_message(mut bytes: &[u8]) -> Taken<(u16, &[u8])> {
    loop {
        let (frame, used) = match v2(bytes) {
            Taken::Whole(frame, used) => (frame, used),
            Taken::NeedMore => return Taken::NeedMore,
            Taken::Invalid => return Taken::Invalid,
        };
        if frame.kind == V2_MESSAGE {
            return match frame.payload.split_first_chunk::<2>() {
                Some((id, json)) => Taken::Whole((u16::from_be_bytes(*id), json), used),
                None => Taken::Invalid,
            };
        }
        bytes = &bytes[used..];
    }
}

/// Reads frps's answer to a login from its first bytes; `first` is what the client began with. O(bytes).
#[must_use]
pub fn answer(first: First, bytes: &[u8]) -> Answer {
    if first == First::Yamux {
        let stream = yamux::first_stream(bytes);
        let told = clear_answer(&stream.data);
        return if stream.broken && told == Answer::NeedMore { Answer::Other } else { told };
    }
    clear_answer(bytes)
}

fn clear_answer(bytes: &[u8]) -> Answer {
    let json = match bytes {
        [] => return Answer::NeedMore,
        [b'1', ..] => match v1(bytes) {
            Taken::Whole(message, _) => message.json,
            Taken::NeedMore => return Answer::NeedMore,
            Taken::Invalid => return Answer::Other,
        },
        [b'F', ..] if bytes.len() < MAGIC.len() => return Answer::NeedMore,
        [0 | b'F', ..] => match v2_message(bytes.strip_prefix(MAGIC).unwrap_or(bytes)) {
            Taken::Whole((V2_LOGIN_ANSWER, json), _) => json,
            Taken::NeedMore => return Answer::NeedMore,
            Taken::Whole(..) | Taken::Invalid => return Answer::Other,
        },
        _ => return Answer::Other,
    };
    match serde_json::from_slice::<Fields>(json) {
        Ok(fields) if fields.error.is_empty() => Answer::In { run_id: RunId::new(fields.run_id) },
        Ok(_) => Answer::Refused,
        Err(_) => Answer::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{
            message::tests::{v1_bytes, v2_bytes},
            yamux::tests::frame,
        },
        *,
    };

    const LOGIN: &str = r#"{"version":"0.71.0","user":"bob","client_id":"edge-1","privilege_key":"k","timestamp":1795399924,"run_id":"abc","metas":{"k":"v"},"pool_count":1}"#;

    fn in_yamux(data: &[u8]) -> Vec<u8> {
        [frame(1, 1, 6_000_000, &[]), frame(0, 1, data.len(), data)].concat()
    }

    fn v2_login() -> Vec<u8> {
        let message = [&[0, 1][..], LOGIN.as_bytes()].concat();
        [MAGIC, &v2_bytes(1, b"{}"), &v2_bytes(16, &message)].concat()
    }

    #[test]
    fn a_login_is_read_in_every_wire_that_is_in_clear() {
        let expected = Peeked::Hello(Hello::Login {
            user: "bob".into(),
            client_id: "edge-1".into(),
            run_id: RunId::new("abc".into()),
            proof: Proof::new("k".into(), 1_795_399_924),
        });
        let v1 = v1_bytes(b'o', LOGIN);
        for wire in [v1.clone(), v2_login(), in_yamux(&v1), in_yamux(&v2_login())] {
            assert_eq!(peek(&wire), expected, "{wire:?}");
            for n in 0..wire.len() {
                assert_eq!(peek(&wire[..n]), Peeked::NeedMore, "{n} of {}", wire.len());
            }
        }
    }

    #[test]
    fn a_work_connection_says_whose_it_is() {
        let json = r#"{"run_id":"014238be0b20eb15"}"#;
        let message = [&[0, 6][..], json.as_bytes()].concat();
        let expected = Peeked::Hello(Hello::Work { run_id: RunId::new("014238be0b20eb15".into()) });
        assert_eq!(peek(&v1_bytes(b'w', json)), expected);
        assert_eq!(peek(&v1_bytes(b'v', json)), expected);
        assert_eq!(peek(&[MAGIC, &v2_bytes(16, &message)].concat()), expected);
    }

    #[test]
    fn the_answer_tells_the_run_id_or_the_refusal() {
        let run_id = || RunId::new("014238be0b20eb15".into());
        let json = r#"{"version":"0.71.0","run_id":"014238be0b20eb15"}"#;
        let v1 = v1_bytes(b'1', json);
        let v2 = [v2_bytes(2, b"{}"), v2_bytes(16, &[&[0, 2][..], json.as_bytes()].concat())].concat();
        let inside = |data: &[u8]| [frame(1, 1, 1, &[]), frame(0, 1, data.len(), data)].concat();
        for (first, bytes) in [
            (First::V1Login, v1.clone()),
            (First::V2, v2.clone()),
            (First::V2, [MAGIC, &v2].concat()),
            (First::Yamux, inside(&v1)),
            (First::Yamux, inside(&v2)),
        ] {
            assert_eq!(answer(first, &bytes), Answer::In { run_id: run_id() }, "{first:?}");
            for n in 0..bytes.len() {
                assert_eq!(answer(first, &bytes[..n]), Answer::NeedMore, "{first:?}, {n}");
            }
        }
        assert_eq!(answer(First::V1Login, &v1_bytes(b'1', r#"{"error":"token"}"#)), Answer::Refused);
    }

    #[test]
    fn garbage_behind_a_whole_message_changes_nothing_and_in_its_place_ends_it() {
        let garbage = b"and this is no frame";
        let login = v1_bytes(b'o', LOGIN);
        let whole = [&in_yamux(&login)[..], garbage].concat();
        assert_eq!(peek(&whole), peek(&in_yamux(&login)), "as if it had come a moment later");
        let cut = [&in_yamux(&login[..20])[..], garbage].concat();
        assert_eq!((peek(&cut), answer(First::Yamux, &cut)), (Peeked::Unknown, Answer::Other));
    }

    #[test]
    fn a_run_id_is_not_shown() {
        let peeked = peek(&v1_bytes(b'o', LOGIN));
        assert!(!format!("{peeked:?}").contains("abc"), "{peeked:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            start in prop::sample::select(vec![vec![], v1_bytes(b'o', "{"), v2_login(), in_yamux(b"o\0\0\0\0\0\0\0\x02{}")]),
            cut in 0usize..80,
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [&start[..start.len().saturating_sub(cut)], &rest].concat();
            let _ = (peek(&bytes), answer(First::Yamux, &bytes), answer(First::V2, &bytes));
        }
    }
}
