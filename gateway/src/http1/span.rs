//! Places in a buffer, and bounds.

/// A range of a buffer. 32 bits are enough: heads are bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// A span of positions that the parser has bounded (see [`HeadLimits::window`]).
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "parsers look at 1 GiB at most")]
    pub(super) const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes, in the buffer that was parsed. In a shorter one: none (and a panic in debug builds).
    #[must_use]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        let bytes = buffer.get(self.start as usize..self.end as usize);
        debug_assert!(bytes.is_some(), "{self:?} is not of this buffer of {} bytes", buffer.len());
        bytes.unwrap_or_default()
    }

    /// Number of bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Bounds on a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// First line, fields and all line ends together, bytes; at most 1 GiB. Beyond: 431.
    pub head_bytes: usize,
    /// First line without its line end, bytes. Beyond: 414.
    pub line_bytes: usize,
    /// Number of fields. Beyond: 431.
    pub fields: usize,
}

impl HeadLimits {
    /// The part of `buffer` in which a head has to end.
    pub(super) fn window(self, buffer: &[u8]) -> &[u8] {
        &buffer[..buffer.len().min(self.head_bytes).min(1 << 30)]
    }
}
