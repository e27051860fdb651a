//! Events of the parser → tree, within bounds.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::{Node, Pos, Span, Value, mask};
use crate::read::Fault;

/// Longest text, bytes. Forty frps and a thousand routes are well under 1 MiB.
const MAX_BYTES: usize = 4 << 20;
/// Most nodes after aliases are expanded ("billion laughs" stops here).
const MAX_NODES: usize = 200_000;
/// Longest single value, bytes. A certificate chain has less.
const MAX_VALUE: usize = 16 << 10;
/// Deepest nesting; the schema itself needs 8. Keeps recursion over the tree safe.
const MAX_DEPTH: usize = 64;

/// Reads one YAML document. An empty text is a null node.
///
/// # Errors
/// The one fault that keeps the text from being a tree: bad syntax, more than one document, or a bound exceeded.
pub(crate) fn parse(text: &str) -> Result<Node, Box<Fault>> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than the {MAX_BYTES} that are read", text.len());
        return Err(Fault::error_at(Span::START, "file-too-large", message).into());
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Box::new(syntax_error(&error)))?;
        let span = Span { start: pos(&span.start), end: pos(&span.end) };
        builder.event(event, span)?;
    }
    let mut root = builder.root.unwrap_or_else(|| Node::null(Span::START));
    mask::mark(&mut root);
    Ok(root)
}

#[derive(Default)]
struct Builder {
    open: Vec<Frame>,
    root: Option<Node>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

/// A list or map whose end has not come yet.
struct Frame {
    span: Span,
    anchor: usize,
    is_map: bool,
    /// Elements; for a map keys and values in turn.
    children: Vec<Node>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Fault>> {
        match event {
            Event::Scalar(value, _, _, _) if value.len() > MAX_VALUE => {
                let message = format!("one value of {} bytes, more than {MAX_VALUE}", value.len());
                Err(Fault::error_at(span, "value-too-long", message).into())
            }
            Event::Scalar(value, style, anchor, _) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*value, "" | "~" | "null" | "Null" | "NULL");
                let node = if null { Node::null(span) } else { Node::scalar(&value, span) };
                self.add(node, anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(false, anchor, span),
            Event::MappingStart(anchor, _) => self.begin(true, anchor, span),
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Fault::error_at(
                        span,
                        "recursive-alias",
                        "an alias inside the value it names",
                    )
                    .into());
                };
                if self.nodes + node.size > MAX_NODES {
                    return Err(too_many_nodes(span).into());
                }
                if self.open.len() + node.depth > MAX_DEPTH {
                    return Err(too_deep(span).into());
                }
                let node = node.clone();
                self.add(node, 0)
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Fault::error_at(span, "several-documents", "a second YAML document begins here")
                    .help("one file is one document: remove this \"---\" line")
                    .into())
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, is_map: bool, anchor: usize, span: Span) -> Result<(), Box<Fault>> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(span).into());
        }
        self.open.push(Frame { span, anchor, is_map, children: Vec::new() });
        Ok(())
    }

    fn end(&mut self, end: Span) -> Result<(), Box<Fault>> {
        let Some(frame) = self.open.pop() else { return Ok(()) };
        let size = 1 + frame.children.iter().map(|node| node.size).sum::<usize>();
        let depth = 1 + frame.children.iter().map(|node| node.depth).max().unwrap_or(0);
        let span = container_span(&frame, end);
        let value =
            if frame.is_map { Value::Map(entries(frame.children)) } else { Value::List(frame.children) };
        self.nodes -= size - 1; // the children were counted when they came; `add` counts the whole
        self.add(Node { span, value, secret: false, size, depth }, frame.anchor)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Box<Fault>> {
        self.nodes += node.size;
        if anchor != 0 {
            self.nodes += node.size; // the copy that aliases are made from
            self.anchors.insert(anchor, node.clone());
        }
        if self.nodes > MAX_NODES {
            return Err(too_many_nodes(node.span).into());
        }
        match self.open.last_mut() {
            Some(frame) => frame.children.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }
}

/// Pairs up keys and values, and merges `<<: *base`: keys of the map itself win.
fn entries(children: Vec<Node>) -> Vec<(Node, Node)> {
    let mut own = Vec::new();
    let mut merged = Vec::new();
    let mut children = children.into_iter();
    while let (Some(key), Some(value)) = (children.next(), children.next()) {
        let is_merge = matches!(&key.value, Value::Scalar(text) if &**text == "<<");
        match value.value {
            Value::Map(entries) if is_merge => merged.extend(entries),
            Value::List(maps) if is_merge && maps.iter().all(|n| matches!(n.value, Value::Map(_))) => {
                merged.extend(maps.into_iter().flat_map(|node| match node.value {
                    Value::Map(entries) => entries,
                    Value::Null | Value::Scalar(_) | Value::List(_) => Vec::new(),
                }));
            }
            _ => own.push((key, value)),
        }
    }
    let mut taken: std::collections::BTreeSet<std::rc::Rc<str>> =
        own.iter().filter_map(|(key, _)| name(key)).collect();
    for (key, value) in merged {
        if name(&key).is_none_or(|name| taken.insert(name)) {
            own.push((key, value));
        }
    }
    own
}

fn name(key: &Node) -> Option<std::rc::Rc<str>> {
    match &key.value {
        Value::Scalar(text) => Some(text.clone()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

/// Where to point for a list or map: all of `{…}` or `[…]`, but only the first child of a block, because the
/// parser notices the end of a block far below it.
fn container_span(frame: &Frame, end: Span) -> Span {
    let start = frame.span.start;
    let flow = frame.span.start != frame.span.end; // a block begins with an empty token
    let first = frame.children.first().map(|node| node.span);
    match first {
        _ if flow => Span { start, end: end.end },
        Some(first) if frame.is_map && first.start.line == start.line => Span { start, end: first.end },
        _ => Span { start, end: Pos { line: start.line, column: start.column + 1 } },
    }
}

fn syntax_error(error: &ScanError) -> Fault {
    let start = pos(error.marker());
    let span = Span { start, end: Pos { line: start.line, column: start.column + 1 } };
    let fault = Fault::error_at(span, "yaml-syntax", format!("not YAML: {}", error.info()));
    if error.info().contains("tab") {
        return fault.help("YAML is indented with spaces, never with tabs");
    }
    fault
        .help("look at the indentation, at quotes and brackets that are not closed, and for a missing \": \"")
}

fn too_many_nodes(span: Span) -> Fault {
    Fault::error_at(span, "too-many-values", format!("more than {MAX_NODES} values, aliases expanded"))
}

fn too_deep(span: Span) -> Fault {
    Fault::error_at(span, "too-deep", format!("more than {MAX_DEPTH} levels of lists and maps"))
}

fn pos(marker: &Marker) -> Pos {
    Pos { line: marker.line().max(1), column: marker.col() + 1 }
}
