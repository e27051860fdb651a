//! What a route says about https: `redirect`, `hsts`, `client`.

use super::tls;
use crate::{
    keys::{self, Kind},
    model::{ClientRule, Hsts, Redirect},
    read::{At, Ctx, Fault, Fields, word},
    units::format_duration,
};

/// Shortest time that the lists of browsers ask for: one year.
const PRELOAD_AGE: std::time::Duration = std::time::Duration::from_secs(365 * 86_400);

/// `https`, or a map.
pub(super) fn redirect(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Redirect> {
    let fields = if at.is_map() {
        let fields = Fields::open(ctx, at, &keys::REDIRECT);
        fields.read(ctx, "to", word);
        fields
    } else {
        word(ctx, at, kind)?;
        Fields::empty(at, &keys::REDIRECT)
    };
    Some(Redirect::Https {
        // 443 goes without saying.
        port: fields.port(ctx, "port").filter(|port| *port != 443),
        status: fields.read(ctx, "status", word).and_then(|status| status.parse().ok()).unwrap_or(308),
    })
}

/// `on`, `off`, or a map.
pub(super) fn hsts(ctx: &mut Ctx<'_>, route: &Fields<'_>) -> Option<Hsts> {
    let at = route.get("hsts")?;
    let fields = tls::opened(ctx, &at, &keys::HSTS)?;
    let hsts = Hsts {
        max_age: fields.duration(ctx, "max_age"),
        include_subdomains: fields.boolean(ctx, "include_subdomains"),
        preload: fields.boolean(ctx, "preload"),
    };
    if let Some(at) = fields.get("max_age")
        && hsts.max_age.subsec_nanos() != 0
    {
        ctx.push(
            Fault::error(&at, "out-of-range", format!("{} is not in whole seconds", at.seen()))
                .help("the header field counts seconds: write a duration like 365d"),
        );
    }
    if let Some(at) = fields.get("preload").filter(|_| hsts.preload) {
        let mut lacks = Vec::new();
        if !hsts.include_subdomains {
            lacks.push("include_subdomains: true".to_owned());
        }
        if hsts.max_age < PRELOAD_AGE {
            lacks.push(format!("a max_age of {} or more", format_duration(PRELOAD_AGE)));
        }
        if !lacks.is_empty() {
            ctx.push(
                Fault::warning(&at, "no-preload", "no list of browsers takes this name")
                    .help(format!("they ask for {}", lacks.join(" and "))),
            );
        }
    }
    Some(hsts)
}

/// `required`, or a map.
pub(super) fn client(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<ClientRule> {
    if at.is_map() {
        let fields = Fields::open(ctx, at, &keys::CLIENT_RULE);
        let help = "name at least one identity, or write \"client: required\" for everyone whose certificate is trusted";
        return Some(ClientRule { allow: tls::identities(ctx, &fields, "allow", help) });
    }
    word(ctx, at, kind)?;
    Some(ClientRule { allow: Vec::new() })
}
