//! Names that are declared once and referred to from elsewhere.

use std::collections::BTreeMap;

use super::{At, Ctx, Fault, is_name};
use crate::{suggest, yaml::Value};

/// The names of one section.
pub(crate) struct Names {
    /// What one of them is called: "pool".
    what: &'static str,
    /// Code of an unknown one: "unknown-pool".
    code: &'static str,
    /// Name → line of its declaration.
    lines: BTreeMap<String, usize>,
    /// In file order, for messages.
    order: Vec<String>,
    /// False when the section could not be read: then nothing is called unknown.
    complete: bool,
}

/// Collects the names of a list of maps before its items are read, and reports those that occur twice, so that a
/// fault elsewhere in an item doesn't make every reference to it a fault too.
pub(crate) fn declare_all(
    ctx: &mut Ctx<'_>,
    section: Option<&At<'_>>,
    what: &'static str,
    code: &'static str,
) -> Names {
    let mut names = Names::new(what, code);
    let Some(section) = section else { return names };
    names.complete = matches!(section.node.value, Value::List(_) | Value::Null);
    for item in section.one_or_many() {
        let Value::Map(entries) = &item.node.value else { continue };
        let name = entries.iter().find(|(key, _)| item.key("", key).raw() == Some("name"));
        let Some((_, node)) = name else { continue };
        let at = item.key("name", node);
        match at.raw() {
            Some(name) if is_name(name) => names.declare(ctx, &at, name),
            // It may stand for any name (or is a typing fault that is reported by itself).
            _ => names.complete = false,
        }
    }
    names
}

impl Names {
    pub(crate) fn new(what: &'static str, code: &'static str) -> Self {
        Self { what, code, lines: BTreeMap::new(), order: Vec::new(), complete: true }
    }

    pub(crate) fn declare(&mut self, ctx: &mut Ctx<'_>, at: &At<'_>, name: &str) {
        let line = at.node.span.start.line;
        if let Some(first) = self.lines.get(name) {
            let article = if self.what == "frps" { "an" } else { "a" };
            let message = format!("{article} {} called {} is already on line {first}", self.what, at.seen());
            ctx.push(
                Fault::error(at, "duplicate-name", message).help("names are unique within their section"),
            );
            return;
        }
        self.lines.insert(name.to_owned(), line);
        self.order.push(name.to_owned());
    }

    /// Adds a name that no line declares.
    pub(crate) fn implicit(&mut self, name: &str) {
        if self.lines.insert(name.to_owned(), 0).is_none() {
            self.order.push(name.to_owned());
        }
    }

    /// Whether a reference finds its name; an unknown one is reported. False only for what is certainly unknown.
    pub(crate) fn check(&self, ctx: &mut Ctx<'_>, at: &At<'_>, name: &str) -> bool {
        if self.lines.contains_key(name) || !self.complete {
            return true;
        }
        let fault = Fault::error(at, self.code, format!("no {} is called {}", self.what, at.seen()));
        // Looking for neighbours costs names × names; of so many faults only the first are shown.
        if ctx.error_count() > 1_000 {
            ctx.push(fault);
            return false;
        }
        let label = if self.what == "frps" { "frps here".to_owned() } else { format!("{}s here", self.what) };
        ctx.push(fault.help(suggest::help(name, &label, &self.words())));
        false
    }

    pub(crate) fn all(&self) -> &[String] {
        &self.order
    }

    pub(crate) fn words(&self) -> Vec<&str> {
        self.order.iter().map(String::as_str).collect()
    }
}
