//! `routes[].match`.

use std::collections::BTreeSet;

use super::tls;
use crate::{
    keys::{self, Kind, Section},
    model::{PathMatch, RouteMatch, ValueKind, ValueMatch},
    read::{
        At, Ctx, Fault, Fields, host_pattern, is_token, quoted, regular_expression, text, url_path,
        wrong_type,
    },
    yaml::Value,
};

pub(super) fn route_match(ctx: &mut Ctx<'_>, at: &At<'_>) -> RouteMatch {
    let fields = Fields::open(ctx, at, &keys::MATCH);
    RouteMatch {
        hosts: list(ctx, &fields, "host", host_pattern),
        path: fields.read(ctx, "path", path).unwrap_or_else(|| PathMatch::Prefix("/".to_owned())),
        methods: list(ctx, &fields, "method", method),
        headers: values(ctx, &fields, "headers", true),
        query: values(ctx, &fields, "query", false),
        client: tls::identities(
            ctx,
            &fields,
            "client",
            "name at least one identity, or remove \"client\" to match every one",
        ),
    }
}

/// One value or several; an empty list would match nothing and is surely unmeant.
fn list<T: Ord + Clone>(
    ctx: &mut Ctx<'_>,
    fields: &Fields<'_>,
    key: &'static str,
    reader: impl Fn(&mut Ctx<'_>, &At<'_>, &Kind) -> Option<T>,
) -> Vec<T> {
    let Some(at) = fields.get(key) else { return Vec::new() };
    let items = at.one_or_many();
    if items.is_empty() {
        ctx.push(
            Fault::error(&at, "empty-list", format!("{key} lists nothing"))
                .help(format!("name at least one, or remove \"{key}\" to match every one")),
        );
    }
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for item in &items {
        let Some(value) = reader(ctx, item, &Kind::Text) else { continue };
        if seen.insert(value.clone()) {
            found.push(value);
        } else {
            ctx.push(Fault::warning(item, "duplicate-value", format!("{} is listed twice", item.seen())));
        }
    }
    found
}

/// `/x` (a prefix), or one of `exact`, `prefix`, `regex`.
fn path(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<PathMatch> {
    if !at.is_map() {
        return without_query(ctx, at, kind).map(PathMatch::Prefix);
    }
    let (key, at) = only_one(ctx, at, &keys::PATH)?;
    match key {
        "exact" => without_query(ctx, &at, kind).map(PathMatch::Exact),
        "prefix" => without_query(ctx, &at, kind).map(PathMatch::Prefix),
        _ => regular_expression(ctx, &at, kind).map(PathMatch::Regex),
    }
}

fn without_query(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let path = url_path(ctx, at, kind)?;
    if path.contains('?') {
        ctx.push(
            Fault::error(at, "bad-path", format!("{} has a query", at.seen()))
                .help("the path ends before \"?\"; write conditions on the query under match.query"),
        );
        return None;
    }
    Some(path)
}

/// A method. Methods are case-sensitive and those in use are upper-case.
fn method(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let value = text(ctx, at, kind)?;
    if !is_token(&value) {
        ctx.push(
            Fault::error(at, "bad-method", format!("{} is no method", at.seen()))
                .help("write a method like GET, or a list: [GET, POST]"),
        );
        return None;
    }
    let upper = value.to_ascii_uppercase();
    if upper != value {
        ctx.push(
            Fault::warning(at, "normalised", format!("{} is matched in upper case", at.seen()))
                .help("methods are case-sensitive, and all in use are upper-case"),
        );
    }
    Some(upper)
}

/// Name → condition. Header names are lower-cased; two that differ in case only are one.
fn values(ctx: &mut Ctx<'_>, fields: &Fields<'_>, key: &'static str, header: bool) -> Vec<ValueMatch> {
    let Some(at) = fields.get(key) else { return Vec::new() };
    let entries = match &at.node.value {
        Value::Map(entries) => entries,
        Value::Null => return Vec::new(),
        Value::Scalar(_) | Value::List(_) => {
            wrong_type::<()>(ctx, &at, "a map of names and values");
            return Vec::new();
        }
    };
    let (mut found, mut names) = (Vec::new(), BTreeSet::new());
    for (name_node, node) in entries {
        let written = at.key("", name_node);
        let name = written.raw().unwrap_or_default();
        let good = if header { is_token(name) } else { !name.is_empty() };
        let name = if header { name.to_ascii_lowercase() } else { name.to_owned() };
        let shown: String =
            name.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let name_at = At { path: at.path.clone(), ..written };
        if !good {
            let what = if header { "header name" } else { "parameter name" };
            ctx.push(Fault::error(&name_at, "bad-match-name", format!("{} is no {what}", name_at.seen())));
        } else if !names.insert(name.clone()) {
            ctx.push(Fault::error(&name_at, "duplicate-key", format!("{} is given twice", quoted(&name))));
        }
        if let Some(value) = value(ctx, &at.key(&shown, node)) {
            found.push(ValueMatch { name, value });
        }
    }
    found
}

fn value(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<ValueKind> {
    if !at.is_map() {
        return text(ctx, at, &Kind::Text).map(ValueKind::Exact);
    }
    let (key, at) = only_one(ctx, at, &keys::VALUE)?;
    match key {
        "exact" => text(ctx, &at, &Kind::Text).map(ValueKind::Exact),
        "regex" => regular_expression(ctx, &at, &Kind::Regex).map(ValueKind::Regex),
        _ if at.raw() == Some("true") => Some(ValueKind::Present),
        _ => {
            ctx.push(Fault::error(&at, "wrong-type", format!("expected true, found {}", at.seen())).help(
                "only presence can be asked for; a route that must not have it comes after one that has",
            ));
            None
        }
    }
}

/// Opens a map of which exactly one key must be given.
pub(super) fn only_one<'t>(
    ctx: &mut Ctx<'_>,
    at: &At<'t>,
    section: &'static Section,
) -> Option<(&'static str, At<'t>)> {
    let before = ctx.error_count();
    let fields = Fields::open(ctx, at, section);
    let mut given = section.keys.iter().filter_map(|key| Some((key.name, fields.get(key.name)?)));
    match (given.next(), given.next()) {
        (Some(one), None) => Some(one),
        (None, _) if ctx.error_count() > before => None,
        (first, _) => {
            let keys: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
            let found = if first.is_none() { "none is" } else { "several are" };
            ctx.push(
                Fault::error(at, "not-exactly-one", format!("{found} given of {}", keys.join(", ")))
                    .help("give exactly one of them"),
            );
            None
        }
    }
}
