//! Lists that narrow something: users, domains, frps.
//!
//! An empty one is refused: with all its lines commented out, "none" and "all" are equally likely to be meant, and
//! one of the two opens a door.

use super::Known;
use crate::{
    keys::Kind,
    model::{DomainPattern, HostMatch, Pattern},
    read::{At, Ctx, Fault, Fields, host_pattern, text},
};

/// The elements of a list that must have one; `None` = the key isn't there.
pub(super) fn some<'t>(
    ctx: &mut Ctx<'_>,
    fields: &Fields<'t>,
    key: &'static str,
    help: &str,
) -> Option<Vec<At<'t>>> {
    let at = fields.get(key)?;
    let items = at.one_or_many();
    if items.is_empty() {
        ctx.push(Fault::error(&at, "empty-list", format!("{key} lists nothing")).help(help));
    }
    Some(items)
}

/// The elements of a list of what is allowed; `[]` allows nothing, which has to be written.
pub(super) fn allowed<'t>(ctx: &mut Ctx<'_>, fields: &Fields<'t>, key: &'static str) -> Option<Vec<At<'t>>> {
    let at = fields.get(key)?;
    if at.is_null() {
        ctx.push(
            Fault::error(&at, "empty-list", format!("{key} lists nothing"))
                .help(format!("write \"{key}: []\" to allow none, or remove it to allow all")),
        );
    }
    Some(at.one_or_many())
}

/// Names of frps; empty when the key isn't there.
pub(super) fn frps(ctx: &mut Ctx<'_>, fields: &Fields<'_>, known: &Known) -> Vec<String> {
    let mut names = Vec::new();
    for at in some(ctx, fields, "frps", "name at least one frps, or remove it for all").unwrap_or_default() {
        if let Some(name) = text(ctx, &at, &Kind::Text)
            && known.frps.check(ctx, &at, &name)
        {
            names.push(name);
        }
    }
    names
}

/// Patterns of names; empty when the key isn't there.
pub(super) fn patterns(ctx: &mut Ctx<'_>, fields: &Fields<'_>, key: &'static str) -> Vec<Pattern> {
    let items = some(ctx, fields, key, "name at least one; \"*\" stands for all").unwrap_or_default();
    items.iter().filter_map(|at| text(ctx, at, &Kind::Text).map(Pattern)).collect()
}

/// Sets of domains; empty when the key isn't there.
pub(super) fn domains(ctx: &mut Ctx<'_>, fields: &Fields<'_>, key: &'static str) -> Vec<DomainPattern> {
    let items = some(ctx, fields, key, "name at least one domain, or remove it for all").unwrap_or_default();
    items.iter().filter_map(|at| domain(ctx, at)).collect()
}

/// `app.example.com`, `*.example.com` or `*`.
pub(super) fn domain(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<DomainPattern> {
    if at.raw() == Some("*") {
        return Some(DomainPattern::Any);
    }
    host_pattern(ctx, at, &Kind::HostPattern).map(|host| match host {
        HostMatch::Exact(name) => DomainPattern::Exact(name),
        HostMatch::Wildcard(suffix) => DomainPattern::Below(suffix),
    })
}
