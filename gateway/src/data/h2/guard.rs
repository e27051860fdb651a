//! What the frames of a connection cost, and when they are too many.
//!
//! Frames that ask for work and bring nothing (PING, SETTINGS, RST_STREAM, …) are cheap to send, and neither flow control nor
//! the limit of streams bounds them. Here they cost points; what we answer earns points, and so does time. Who has none left
//! is flooding: CVE-2019-9512 (PING), -9514 and CVE-2023-44487 (RST_STREAM), -9515 (SETTINGS), CVE-2025-8671 (streams that we
//! are made to reset). The h2 crate bounds what it keeps of such frames, not how often they come.
//!
//! Sees the bytes as they pass, copies none, and reads the clock only when the points have run out.

use std::time::Instant;

use super::PREFACE;

/// Points of a new connection, and the most that it can have: a browser that leaves a page cancels a hundred streams at once,
/// and may do so five times in a row.
const MOST: u32 = 4000;
/// Points that a second is worth.
const PER_SECOND: u32 = 200;
/// Points that a HEADERS or DATA frame of ours is worth: its receiver may answer with WINDOW_UPDATEs for stream and
/// connection, and with a PING that measures the bandwidth.
const OF_ANSWER: u32 = 4;
/// Price of a frame that is looked at and forgotten.
const OF_FRAME: u32 = 1;
/// Price of a SETTINGS frame: it is acknowledged, and a new window walks through all streams.
const OF_SETTINGS: u32 = 20;
/// Price of a stream that is reset: a request may have gone to an endpoint for nothing.
const OF_RESET: u32 = 8;

/// Types of frames (RFC 9113 §6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
}

/// Keeps the points of one connection.
#[derive(Debug)]
pub struct Guard {
    points: u32,
    /// When time was last turned into points.
    paid: Instant,
    inward: Frames,
    outward: Frames,
    flooded: bool,
}

impl Guard {
    /// For a connection that begins `now`, with the visitor's preface.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let inward = Frames { skip: PREFACE.len(), ..Frames::default() };
        Self { points: MOST, paid: now, inward, outward: Frames::default(), flooded: false }
    }

    /// These bytes have come. O(frames).
    pub fn came(&mut self, bytes: &[u8], now: impl Fn() -> Instant) {
        let mut cost = 0;
        self.inward.pass(bytes, |length, kind| {
            cost += match kind {
                // Bounded by flow control, and by the limits of streams and heads; empty ones by the h2 crate.
                kind::DATA if length > 0 => 0,
                kind::HEADERS => 0,
                kind::RST_STREAM => OF_RESET,
                kind::SETTINGS => OF_SETTINGS,
                _ => OF_FRAME,
            }
        });
        self.spend(cost, now);
    }

    /// These bytes are being sent. O(frames).
    pub fn goes(&mut self, bytes: &[u8], now: impl Fn() -> Instant) {
        let (mut gain, mut cost) = (0, 0);
        self.outward.pass(bytes, |_, kind| match kind {
            kind::DATA | kind::HEADERS => gain += OF_ANSWER,
            kind::RST_STREAM => cost += OF_RESET,
            _ => {}
        });
        self.points = self.points.saturating_add(gain).min(MOST);
        self.spend(cost, now);
    }

    /// Whether there were too many. Stays so.
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        self.flooded
    }

    fn spend(&mut self, cost: u32, now: impl Fn() -> Instant) {
        if cost > self.points {
            let now = now();
            let millis = now.saturating_duration_since(self.paid).as_millis();
            let gain = u32::try_from(millis * u128::from(PER_SECOND) / 1000).unwrap_or(MOST);
            self.points = self.points.saturating_add(gain).min(MOST);
            // What isn't worth a point yet is still to come.
            if gain > 0 {
                self.paid = now;
            }
        }
        self.flooded |= cost > self.points;
        self.points = self.points.saturating_sub(cost);
    }
}

/// Where frames begin in the bytes of one direction.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes until the next frame begins.
    skip: usize,
    /// The first `known` bytes of a header that isn't whole: length, type, flags, stream.
    header: [u8; 9],
    known: usize,
}

impl Frames {
    /// Tells the payload's length and the type of each frame whose header ends in `bytes`.
    fn pass(&mut self, mut bytes: &[u8], mut tell: impl FnMut(usize, u8)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let n = bytes.len().min(self.header.len() - self.known);
            self.header[self.known..self.known + n].copy_from_slice(&bytes[..n]);
            self.known += n;
            bytes = &bytes[n..];
            if self.known < self.header.len() {
                return;
            }
            self.known = 0;
            let [a, b, c, kind, ..] = self.header;
            self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            tell(self.skip, kind);
        }
    }
}

#[cfg(test)]
mod tests;
