//! Where WebSocket frames begin and end (RFC 6455 §5.2), as far as it takes to end a stream properly: a Close frame may only stand between
//! two others.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

/// A Close frame from a server: 1012, "service restart": come back, somebody else will serve.
pub const CLOSE_RESTART: [u8; 4] = [0x88, 0x02, 0x03, 0xF4];

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub struct Frames {
    head: [u8; 14],
    have: usize,
    payload: u64,
    closed: bool,
}

impl Frames {
    /// Takes what was sent.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let n = usize::try_from(self.payload).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.payload -= n as u64;
                bytes = &bytes[n..];
                continue;
            }
            self.head[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if let Some((payload, is_close)) = self.complete() {
                self.payload = payload;
                self.closed |= is_close;
                self.have = 0;
            }
        }
    }

    /// Payload length and whether it is a Close, once the head is whole.
    fn complete(&self) -> Option<(u64, bool)> {
        let head = &self.head[..self.have];
        let [first, second, rest @ ..] = head else { return None };
        let (extended, mask) = match second & 0x7f {
            126 => (2, second & 0x80 != 0),
            127 => (8, second & 0x80 != 0),
            _ => (0, second & 0x80 != 0),
        };
        if rest.len() < extended + if mask { 4 } else { 0 } {
            return None;
        }
        let length = match extended {
            0 => u64::from(second & 0x7f),
            _ => rest[..extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        Some((length, first & 0x0f == 0x8))
    }

    /// Whether a Close frame may be sent now: between frames, and none has been.
    #[must_use]
    pub const fn may_close(&self) -> bool {
        self.have == 0 && self.payload == 0 && !self.closed
    }
}

/// A sink that is listened in on.
#[derive(Debug)]
pub struct Tap<'a, W> {
    /// Where the bytes go.
    pub sink: &'a mut W,
    /// Who listens; `None` = nobody.
    pub frames: Option<&'a mut Frames>,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Tap<'_, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.sink).poll_write(cx, bytes);
        if let (Poll::Ready(Ok(n)), Some(frames)) = (&written, &mut self.frames) {
            frames.feed(&bytes[..*n]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.sink).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.sink).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..126 => bytes.push(mask | u8::try_from(length).unwrap()),
            126..0x1_0000 => {
                bytes.push(mask | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(vec![7; length + if masked { 4 } else { 0 }]);
        bytes
    }

    proptest! {
        #[test]
        fn a_close_may_come_exactly_between_frames(
            lengths in prop::collection::vec((0usize..70_000, any::<bool>()), 1..6),
            pieces in 1usize..5000,
        ) {
            let (mut frames, mut bytes, mut ends) = (Frames::default(), Vec::new(), vec![0]);
            for (length, masked) in &lengths {
                bytes.extend(frame(1, *length, *masked));
                ends.push(bytes.len());
            }
            let mut sent = 0;
            for piece in bytes.chunks(pieces) {
                frames.feed(piece);
                sent += piece.len();
                prop_assert_eq!(frames.may_close(), ends.contains(&sent), "after {} bytes", sent);
            }
            frames.feed(&frame(8, 2, false));
            prop_assert!(!frames.may_close(), "one Close is enough");
        }
    }
}
