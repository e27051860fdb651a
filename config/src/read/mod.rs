//! Typed readers over the tree. Each pushes a fault and goes on; none stops the run.

mod address;
mod fields;
mod identity;
mod interpolate;
mod names;
mod scalar;
mod token;

pub(crate) use address::{
    address, authority, domain, host_name, host_pattern, https_url, is_host_name, network,
    regular_expression, subdomain_host, url,
};
pub(crate) use fields::Fields;
pub(crate) use identity::identity;
pub(crate) use names::{Names, declare_all};
pub(crate) use scalar::{
    duration, duration_or_off, factor, factor_or_off, integer, is_name, name, path, percent, secret, size,
    text, url_path, word, wrong_type,
};
pub(crate) use token::{is_token, statuses, token};

use crate::{
    diagnostic::Severity,
    resolver::Resolver,
    yaml::{Node, Span, Value},
};

/// What all readers share: where faults go and where references are looked up.
pub(crate) struct Ctx<'a> {
    resolver: &'a dyn Resolver,
    faults: Vec<Fault>,
    errors: usize,
}

impl<'a> Ctx<'a> {
    pub(crate) fn new(resolver: &'a dyn Resolver) -> Self {
        Self { resolver, faults: Vec::new(), errors: 0 }
    }

    pub(crate) fn push(&mut self, fault: Fault) {
        self.errors += usize::from(fault.severity == Severity::Error);
        self.faults.push(fault);
    }

    /// Errors so far; the readers compare two counts to keep from reporting what follows from another fault.
    pub(crate) fn error_count(&self) -> usize {
        self.errors
    }

    pub(crate) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }
}

/// One fault, before it is put beside its source line.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) severity: Severity,
    pub(crate) code: &'static str,
    pub(crate) span: Span,
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Fault {
    pub(crate) fn error(at: &At<'_>, code: &'static str, message: impl Into<String>) -> Self {
        Self { path: at.path.clone(), ..Self::error_at(at.node.span, code, message) }
    }

    pub(crate) fn warning(at: &At<'_>, code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(at, code, message) }
    }

    /// An error that belongs to no key.
    pub(crate) fn error_at(span: Span, code: &'static str, message: impl Into<String>) -> Self {
        let (path, help) = (String::new(), None);
        Self { severity: Severity::Error, code, span, path, message: message.into(), help }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// A node and the path of keys that leads to it.
#[derive(Debug, Clone)]
pub(crate) struct At<'t> {
    pub(crate) node: &'t Node,
    pub(crate) path: String,
}

impl<'t> At<'t> {
    pub(crate) fn root(node: &'t Node) -> Self {
        Self { node, path: String::new() }
    }

    pub(crate) fn key(&self, name: &str, node: &'t Node) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { node, path }
    }

    pub(crate) fn index(&self, index: usize, node: &'t Node) -> Self {
        Self { node, path: format!("{}[{index}]", self.path) }
    }

    /// The elements of a list; a single value is a list of one. Null has no elements.
    pub(crate) fn one_or_many(&self) -> Vec<Self> {
        match &self.node.value {
            Value::Null => Vec::new(),
            Value::List(items) => items.iter().enumerate().map(|(i, node)| self.index(i, node)).collect(),
            Value::Scalar(_) | Value::Map(_) => vec![self.clone()],
        }
    }

    /// The elements of a list; anything else but null is a fault.
    pub(crate) fn items(&self, ctx: &mut Ctx<'_>) -> Vec<Self> {
        if let Value::Scalar(_) | Value::Map(_) = self.node.value {
            wrong_type::<()>(ctx, self, "a list");
            return Vec::new();
        }
        self.one_or_many()
    }

    /// The text as written, `${…}` not replaced; `None` when this is no scalar.
    pub(crate) fn raw(&self) -> Option<&'t str> {
        match &self.node.value {
            Value::Scalar(text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The value in a form that may be shown: as written, shortened, secrets masked.
    ///
    /// As written, because what a `${VAR}` stands for may be a secret wherever it is used.
    pub(crate) fn seen(&self) -> String {
        let mut seen = self.shown();
        if self.raw().is_some_and(|text| text.contains("${")) && !self.node.secret {
            seen.push_str(" (with its variables replaced)");
        }
        seen
    }

    /// Like [`At::seen`], for a message about the very text.
    pub(crate) fn shown(&self) -> String {
        if self.node.secret {
            return "***".to_owned();
        }
        match &self.node.value {
            Value::Null => "an empty value".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Scalar(text) => quoted(text),
        }
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub(crate) fn is_null_or_empty_list(&self) -> bool {
        matches!(&self.node.value, Value::Null)
            || matches!(&self.node.value, Value::List(items) if items.is_empty())
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }
}

/// `"text"`, on one line and at most 60 characters.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut short: String =
        text.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        short.push('…');
    }
    format!("\"{short}\"")
}
