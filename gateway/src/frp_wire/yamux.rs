//! The first stream of a yamux session, read without taking part in the session.

use super::Taken;

/// Length of a frame's header: version, type, flags (2), stream (4), length (4).
pub const HEADER: usize = 12;
/// Longest data frame that is looked into, bytes: what we read is at the beginning of a stream.
const MOST: usize = 64 * 1024;

/// Frame type of data; 1 is a window update, 2 a ping, 3 the end of the session.
const DATA: u8 = 0;

struct Header {
    kind: u8,
    stream: u32,
    length: u32,
}

fn header(bytes: &[u8]) -> Taken<Header> {
    let Some([version, kind, _, _, s0, s1, s2, s3, l0, l1, l2, l3]) = bytes.first_chunk::<HEADER>() else {
        return Taken::NeedMore;
    };
    if *version != 0 || *kind > 3 {
        return Taken::Invalid;
    }
    let (stream, length) =
        (u32::from_be_bytes([*s0, *s1, *s2, *s3]), u32::from_be_bytes([*l0, *l1, *l2, *l3]));
    Taken::Whole(Header { kind: *kind, stream, length }, HEADER)
}

/// What is known of the first stream that carries data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Begun {
    /// Its data: in order, without frames.
    pub data: Vec<u8>,
    /// What follows is no yamux, so no more will come.
    pub broken: bool,
}

/// The first stream that carries any data, as far as `bytes` hold it.
///
/// O(bytes). Other streams, window updates and pings are skipped. More bytes only ever append to the data, so what was read
/// from it stays true, whether or not what broke the session came along with it.
#[must_use]
pub fn first_stream(bytes: &[u8]) -> Begun {
    let (mut data, mut of) = (Vec::new(), None);
    let mut rest = bytes;
    loop {
        let (frame, used) = match header(rest) {
            Taken::Whole(frame, used) => (frame, used),
            Taken::NeedMore => return Begun { data, broken: false },
            Taken::Invalid => return Begun { data, broken: true },
        };
        rest = &rest[used..];
        if frame.kind != DATA {
            continue;
        }
        let length = usize::try_from(frame.length).unwrap_or(usize::MAX);
        if frame.stream == 0 || length > MOST {
            return Begun { data, broken: true };
        }
        let there = length.min(rest.len());
        if length > 0 && *of.get_or_insert(frame.stream) == frame.stream {
            data.extend_from_slice(&rest[..there]);
        }
        rest = &rest[there..];
        if there < length {
            return Begun { data, broken: false };
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn frame(kind: u8, stream: u32, length: usize, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(length).unwrap();
        [&[0, kind, 0, 1][..], &stream.to_be_bytes(), &length.to_be_bytes(), data].concat()
    }

    proptest! {
        #[test]
        fn the_first_stream_comes_out_whole_however_it_is_cut_and_mixed(
            parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..20)), 0..12),
        ) {
            let mut wire = frame(1, 1, 6_000_000, &[]);
            let mut sent = Vec::new();
            wire.extend(frame(0, 1, 2, b"ab"));
            sent.extend(b"ab");
            for (ours, part) in &parts {
                wire.extend(frame(if part.len() % 3 == 0 { 2 } else { 1 }, 0, 7, &[]));
                wire.extend(frame(0, if *ours { 1 } else { 3 }, part.len(), part));
                if *ours {
                    sent.extend(part);
                }
            }
            prop_assert_eq!(first_stream(&wire), Begun { data: sent.clone(), broken: false });
            for n in 0..wire.len() {
                let seen = first_stream(&wire[..n]);
                prop_assert!(!seen.broken && sent.starts_with(&seen.data), "{} bytes: {:?} of {:?}", n, seen, sent);
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let seen = first_stream(&bytes);
            prop_assert!(seen.data.len() <= bytes.len());
        }
    }
}
