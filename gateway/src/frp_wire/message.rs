//! Single messages: v1 (type, length, JSON) and v2 (frames).

use super::Taken;

/// Length of what stands before the JSON of a v1 message: one byte of type, eight of length.
pub const V1_HEADER: usize = 9;
/// Longest JSON of a v1 message, bytes: frp takes no longer one.
pub const V1_MOST: usize = 10_240;
/// What a v2 connection begins with.
pub const MAGIC: &[u8] = b"FRP\0\x02\r\n";
/// Length of what stands before the payload of a v2 frame: type, flags, length.
pub const V2_HEADER: usize = 8;
/// Longest payload of a v2 frame, bytes.
pub const V2_MOST: usize = 64 * 1024;
/// Frame type of a v2 message.
pub const V2_MESSAGE: u16 = 16;

/// A v1 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V1<'a> {
    /// `o` Login, `1` its answer, `w` work connection, `v` visitor.
    pub kind: u8,
    /// The message.
    pub json: &'a [u8],
}

/// A v2 frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// 1 ClientHello, 2 ServerHello, 16 message.
    pub kind: u16,
    /// Its payload.
    pub payload: &'a [u8],
}

/// Reads the v1 message at the beginning of `bytes`.
#[must_use]
pub fn v1(bytes: &[u8]) -> Taken<V1<'_>> {
    let Some(([kind, length @ ..], rest)) = bytes.split_first_chunk::<V1_HEADER>() else {
        return Taken::NeedMore;
    };
    match usize::try_from(u64::from_be_bytes(*length)) {
        Ok(length) if length <= V1_MOST => match rest.get(..length) {
            Some(json) => Taken::Whole(V1 { kind: *kind, json }, V1_HEADER + length),
            None => Taken::NeedMore,
        },
        Ok(_) | Err(_) => Taken::Invalid,
    }
}

/// Reads the v2 frame at the beginning of `bytes`; the magic is not part of it.
#[must_use]
pub fn v2(bytes: &[u8]) -> Taken<Frame<'_>> {
    let Some(([k0, k1, _, _, length @ ..], rest)) = bytes.split_first_chunk::<V2_HEADER>() else {
        return Taken::NeedMore;
    };
    match usize::try_from(u32::from_be_bytes(*length)) {
        Ok(length) if length <= V2_MOST => match rest.get(..length) {
            Some(payload) => {
                Taken::Whole(Frame { kind: u16::from_be_bytes([*k0, *k1]), payload }, V2_HEADER + length)
            }
            None => Taken::NeedMore,
        },
        Ok(_) | Err(_) => Taken::Invalid,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn v1_bytes(kind: u8, json: &str) -> Vec<u8> {
        [&[kind][..], &(json.len() as u64).to_be_bytes(), json.as_bytes()].concat()
    }

    pub(crate) fn v2_bytes(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&kind.to_be_bytes()[..], &[0, 0], &length.to_be_bytes(), payload].concat()
    }

    proptest! {
        #[test]
        fn a_message_is_whole_with_its_last_byte_and_not_before(json in "[ -~]{0,80}", kind in any::<u8>(), more in 0usize..9) {
            let whole = v1_bytes(kind, &json);
            let length = whole.len();
            for n in 0..length {
                prop_assert_eq!(v1(&whole[..n]), Taken::NeedMore);
            }
            let longer = [whole, vec![b'x'; more]].concat();
            prop_assert_eq!(v1(&longer), Taken::Whole(V1 { kind, json: json.as_bytes() }, length));
            let frame = v2_bytes(16, json.as_bytes());
            for n in 0..frame.len() {
                prop_assert_eq!(v2(&frame[..n]), Taken::NeedMore);
            }
            prop_assert_eq!(v2(&frame), Taken::Whole(Frame { kind: 16, payload: json.as_bytes() }, frame.len()));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let (_, _) = (v1(&bytes), v2(&bytes));
        }
    }

    #[test]
    fn what_frp_would_not_take_is_invalid() {
        assert_eq!(v1(&[b"o".as_slice(), &10_241u64.to_be_bytes()].concat()), Taken::Invalid);
        assert_eq!(v1(&[b"o".as_slice(), &u64::MAX.to_be_bytes()].concat()), Taken::Invalid);
        assert_eq!(v2(&[0, 16, 0, 0, 0, 1, 0, 1]), Taken::Invalid, "65,537 bytes");
    }
}
