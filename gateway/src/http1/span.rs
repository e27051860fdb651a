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
    /// A span of positions that the parser has bounded.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        let position = |at| u32::try_from(at).expect("heads are bounded far below 4 GiB");
        Self { start: position(start), end: position(end) }
    }

    /// The bytes, in the buffer that was parsed.
    ///
    /// # Panics
    /// When `buffer` is shorter than the one that was parsed.
    #[must_use]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.end as usize]
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Bounds on a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// First line and fields together, bytes. Beyond: 431.
    pub head_bytes: usize,
    /// First line, bytes. Beyond: 414.
    pub line_bytes: usize,
    /// Number of fields. Beyond: 431.
    pub fields: usize,
}
