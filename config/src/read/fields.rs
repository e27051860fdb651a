//! A map read by the table of its keys.

use std::{collections::BTreeMap, time::Duration};

use super::{At, Ctx, Fault, scalar};
use crate::{
    keys::{Key, Kind, Need, Section, elsewhere},
    suggest,
    yaml::{Node, Value},
};

/// The entries of one map, checked against its [`Section`]: what is unknown, repeated, not supported yet or
/// missing has been reported when this exists.
pub(crate) struct Fields<'t> {
    at: At<'t>,
    section: &'static Section,
    entries: BTreeMap<&'static str, &'t Node>,
}

impl<'t> Fields<'t> {
    /// Opens a map. Anything else is reported and then reads as a map without entries; null is an empty map.
    pub(crate) fn open(ctx: &mut Ctx<'_>, at: &At<'t>, section: &'static Section) -> Self {
        let mut fields = Self::empty(at, section);
        match &at.node.value {
            Value::Map(entries) => {
                for (key, value) in entries {
                    fields.accept(ctx, key, value);
                }
                // The file as a whole answers a missing section with an example instead.
                if !section.title.is_empty() {
                    fields.report_missing(ctx);
                }
            }
            Value::Null => fields.report_missing(ctx),
            Value::Scalar(_) | Value::List(_) => {
                let keys: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
                let message = format!("expected a map, found {}", at.seen());
                ctx.push(
                    Fault::error(at, "wrong-type", message)
                        .help(format!("keys here: {}", suggest::list(&keys))),
                );
            }
        }
        fields
    }

    /// A map that is not there.
    pub(crate) fn empty(at: &At<'t>, section: &'static Section) -> Self {
        Self { at: at.clone(), section, entries: BTreeMap::new() }
    }

    /// The value of a key, where it is written.
    pub(crate) fn get(&self, name: &'static str) -> Option<At<'t>> {
        self.entries.get(name).map(|node| self.at.key(name, node))
    }

    pub(crate) fn at(&self) -> &At<'t> {
        &self.at
    }

    /// Reads a value, or its default; `None` when there is neither or the value was reported as bad.
    pub(crate) fn read<T>(
        &self,
        ctx: &mut Ctx<'_>,
        name: &'static str,
        reader: impl FnOnce(&mut Ctx<'_>, &At<'_>, &Kind) -> Option<T>,
    ) -> Option<T> {
        let key = self.section.keys.iter().find(|key| key.name == name)?;
        if let Some(at) = self.get(name) {
            return reader(ctx, &at, &key.kind);
        }
        let Need::Default(text) = key.need else { return None };
        let span = self.at.node.span;
        let node = if text == "{}" { Node::map(&[], span) } else { Node::scalar(text, span) };
        reader(ctx, &self.at.key(name, &node), &key.kind)
    }

    /// A text; empty when it was reported as bad (or, optional, is absent).
    pub(crate) fn text(&self, ctx: &mut Ctx<'_>, name: &'static str) -> String {
        self.read(ctx, name, scalar::text).unwrap_or_default()
    }

    pub(crate) fn duration(&self, ctx: &mut Ctx<'_>, name: &'static str) -> Duration {
        self.read(ctx, name, scalar::duration).unwrap_or_default()
    }

    /// A number within the range of its key, which is one that fits.
    pub(crate) fn u32(&self, ctx: &mut Ctx<'_>, name: &'static str) -> u32 {
        self.read(ctx, name, scalar::integer).map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX))
    }

    /// A number that may be absent.
    pub(crate) fn optional_u32(&self, ctx: &mut Ctx<'_>, name: &'static str) -> Option<u32> {
        self.read(ctx, name, scalar::integer).and_then(|n| u32::try_from(n).ok())
    }

    /// Percent; 0 when it was reported as bad.
    pub(crate) fn percent(&self, ctx: &mut Ctx<'_>, name: &'static str) -> u32 {
        self.read(ctx, name, scalar::percent).unwrap_or_default()
    }

    /// `true` or `false`; `false` when it was reported as bad.
    pub(crate) fn boolean(&self, ctx: &mut Ctx<'_>, name: &'static str) -> bool {
        self.read(ctx, name, scalar::boolean).unwrap_or_default()
    }

    /// Where a value is written, or where it would be: the map itself.
    pub(crate) fn place(&self, name: &'static str) -> At<'t> {
        self.get(name).unwrap_or_else(|| self.at.clone())
    }

    /// A number within the range of its key, which is one that fits.
    pub(crate) fn usize(&self, ctx: &mut Ctx<'_>, name: &'static str) -> usize {
        self.read(ctx, name, scalar::integer).map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX))
    }

    pub(crate) fn port(&self, ctx: &mut Ctx<'_>, name: &'static str) -> Option<u16> {
        self.read(ctx, name, scalar::integer).and_then(|n| u16::try_from(n).ok())
    }

    fn accept(&mut self, ctx: &mut Ctx<'_>, key: &'t Node, value: &'t Node) {
        let at = self.at.key("", key);
        let Some(written) = at.raw() else {
            let at = At { path: self.at.path.clone(), ..at };
            ctx.push(Fault::error(&at, "bad-key", format!("a key must be a word, found {}", at.seen())));
            return;
        };
        // A secret may stand where a key is expected; it is shown no more than elsewhere.
        let shown = if key.secret { "***".to_owned() } else { shown_key(written) };
        let at = self.at.key(&shown, key);
        if let Some(known) = self.section.keys.iter().find(|known| known.name == written) {
            if self.entries.insert(known.name, value).is_some() {
                ctx.push(
                    Fault::error(&at, "duplicate-key", format!("{written} is given twice"))
                        .help("remove one of the two; none of them silently wins"),
                );
            }
        } else if let Some((planned, instead)) =
            self.section.planned.iter().find(|(name, _)| *name == written)
        {
            ctx.push(
                Fault::error(&at, "not-supported-yet", format!("{planned} is not supported by this version"))
                    .help(*instead),
            );
        } else {
            let keys: Vec<&str> = self.section.keys.iter().map(|key| key.name).collect();
            let help = match elsewhere(self.section.title, written) {
                Some(instead) => instead.to_owned(),
                None => suggest::help(written, "keys here", &keys),
            };
            ctx.push(Fault::error(&at, "unknown-key", format!("{} is no key here", at.shown())).help(help));
        }
    }

    fn report_missing(&self, ctx: &mut Ctx<'_>) {
        let missing = |key: &&Key| matches!(key.need, Need::Required) && !self.entries.contains_key(key.name);
        for key in self.section.keys.iter().filter(missing) {
            ctx.push(
                Fault::error(&self.at, "missing-key", format!("{} is missing", key.name))
                    .help(format!("add \"{}: …\": {}", key.name, key.meaning)),
            );
        }
    }
}

/// A key as it may stand in a path.
fn shown_key(key: &str) -> String {
    key.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
