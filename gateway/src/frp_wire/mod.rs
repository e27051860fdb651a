//! The first bytes on an frps's control port, read without answering anything: which wire it is, who logs in, and whose work
//! connection it is.
//!
//! Pure: bytes in, facts out; what is read is never consumed, so it can be passed on as it came. Everything is bounded by the
//! slice that the caller gives. Formats are those of frp 0.71 (v1, v2, yamux), as seen on the wire.
//!
//! Reading order: [`sniff()`], [`message`] (v1 and v2), [`yamux`], [`hello`] (all of it together), [`proof`] (who knows the token), [`records`] (what the sizes of
//! TLS records give away).

pub mod hello;
pub mod message;
pub mod proof;
pub mod records;
pub mod sniff;
pub mod yamux;

pub use self::{
    hello::{Answer, Hello, Peeked, RunId, answer, peek},
    proof::Proof,
    records::{Purpose, Records},
    sniff::{First, sniff},
};

/// What came of reading from a slice that may not hold all of it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken<T> {
    /// The slice ends before the thing does.
    NeedMore,
    /// The thing, and how many bytes it took.
    Whole(T, usize),
    /// No continuation of these bytes makes it valid.
    Invalid,
}
