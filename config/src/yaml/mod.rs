//! YAML text as a tree in which every node knows its place.
//!
//! serde stops at the first fault and knows no place inside tagged enums; this tree lets the readers go on and
//! point at what they mean. The YAML grammar itself is `saphyr-parser`'s.

mod mask;
mod parse;

use std::rc::Rc;

pub(crate) use mask::{is_secret_word, secret_spans};
pub(crate) use parse::parse;

/// A place: line and column, both from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pos {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// From `start` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start: Pos,
    pub(crate) end: Pos,
}

impl Span {
    /// The very first character of a file.
    pub(crate) const START: Self =
        Self { start: Pos { line: 1, column: 1 }, end: Pos { line: 1, column: 2 } };
}

/// One node. Text is shared, so that copies made by aliases cost no more than the node itself.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
    /// Must not be shown in a message or an excerpt.
    pub(crate) secret: bool,
    /// Nodes in this subtree, itself included: what an alias to it costs.
    size: usize,
    /// Levels in this subtree, itself included.
    depth: usize,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Scalar(Rc<str>),
    List(Vec<Node>),
    /// In file order; keys may repeat and need not be scalars.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// A scalar that stands nowhere of its own: a default.
    pub(crate) fn scalar(text: &str, span: Span) -> Self {
        Self { span, value: Value::Scalar(text.into()), secret: false, size: 1, depth: 1 }
    }

    /// A map that no one wrote: an implicit item.
    pub(crate) fn map(entries: &[(&str, &str)], span: Span) -> Self {
        let entries = entries.iter().map(|(k, v)| (Self::scalar(k, span), Self::scalar(v, span))).collect();
        Self { value: Value::Map(entries), ..Self::null(span) }
    }

    /// An empty value.
    pub(crate) fn null(span: Span) -> Self {
        Self { span, value: Value::Null, secret: false, size: 1, depth: 1 }
    }
}
