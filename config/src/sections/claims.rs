//! `takeover` and `claims`: which proxies become private tcp ports, and who may claim what.

use super::{Known, lists};
use crate::{
    keys::{self, Kind},
    model::{ClaimRule, Claims, MetadataKey, Takeover, TakeoverRule},
    read::{At, Ctx, Fault, Fields, secret, text, word},
};

pub(super) fn takeover(ctx: &mut Ctx<'_>, at: &At<'_>, known: &Known) -> Takeover {
    let fields = Fields::open(ctx, at, &keys::TAKEOVER);
    let rules = fields.get("rules").map(|at| at.items(ctx)).unwrap_or_default();
    Takeover {
        http: fields.boolean(ctx, "http"),
        https: fields.boolean(ctx, "https"),
        rules: rules.iter().map(|at| takeover_rule(ctx, at, known)).collect(),
    }
}

fn takeover_rule(ctx: &mut Ctx<'_>, at: &At<'_>, known: &Known) -> TakeoverRule {
    let before = ctx.error_count();
    let fields = Fields::open(ctx, at, &keys::TAKEOVER_RULE);
    // A misspelt condition is one.
    let all_known = ctx.error_count() == before;
    if all_known && ["frps", "users", "domains"].iter().all(|key| fields.get(key).is_none()) {
        ctx.push(
            Fault::error(at, "empty-rule", "this rule speaks of every proxy")
                .help("name frps, users or domains; for all the rest there is takeover.http"),
        );
    }
    TakeoverRule {
        frps: lists::frps(ctx, &fields, known),
        users: lists::patterns(ctx, &fields, "users"),
        domains: lists::domains(ctx, &fields, "domains"),
        http: fields.boolean(ctx, "http"),
        https: fields.boolean(ctx, "https"),
    }
}

pub(super) fn claims(ctx: &mut Ctx<'_>, at: &At<'_>, known: &Known) -> Claims {
    let fields = Fields::open(ctx, at, &keys::CLAIMS);
    let rules = fields.get("rules").map(|at| at.items(ctx)).unwrap_or_default();
    Claims {
        allow: fields.read(ctx, "default", word).is_none_or(|word| word == "allow"),
        share: fields.read(ctx, "conflicts", word).is_some_and(|word| word == "share"),
        rules: rules.iter().map(|at| claim_rule(ctx, at, known)).collect(),
    }
}

fn claim_rule(ctx: &mut Ctx<'_>, at: &At<'_>, known: &Known) -> ClaimRule {
    let fields = Fields::open(ctx, at, &keys::CLAIM_RULE);
    let domains = lists::allowed(ctx, &fields, "domains");
    let ports = lists::allowed(ctx, &fields, "ports");
    let metadata = lists::allowed(ctx, &fields, "metadata");
    ClaimRule {
        users: lists::patterns(ctx, &fields, "users"),
        frps: lists::frps(ctx, &fields, known),
        token: fields.read(ctx, "token", secret),
        refuse: fields.read(ctx, "refuse", reason),
        domains: domains.map(|items| items.iter().filter_map(|at| lists::domain(ctx, at)).collect()),
        ports: ports.map(|items| items.iter().filter_map(|at| port_range(ctx, at)).collect()),
        max_weight: fields.optional_u32(ctx, "max_weight"),
        metadata: metadata.map(|items| items.iter().filter_map(|at| metadata_key(ctx, at)).collect()),
    }
}

/// Why somebody is refused, for that somebody.
fn reason(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let reason = text(ctx, at, kind)?;
    let help = match at.raw()? {
        "" => "write what the frpc's user should read in its log: \"ask ops for a domain\"",
        "true" => "write the reason instead of true: the frpc's user reads it in its log",
        "false" => "remove it: without \"refuse\" the rule refuses nothing but what it doesn't allow",
        _ => return Some(reason),
    };
    ctx.push(Fault::error(at, "no-reason", "refuse gives no reason").help(help));
    None
}

fn metadata_key(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<MetadataKey> {
    Some(match word(ctx, at, &keys::METADATA)? {
        "weight" => MetadataKey::Weight,
        "zone" => MetadataKey::Zone,
        "priority" => MetadataKey::Priority,
        "protocol" => MetadataKey::Protocol,
        "proxy_protocol" => MetadataKey::ProxyProtocol,
        _ => MetadataKey::Labels,
    })
}

/// `22` or `20000-20100`.
fn port_range(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<(u16, u16)> {
    let written = text(ctx, at, &Kind::Text)?;
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    let range = match written.split_once('-') {
        Some((from, to)) => port(from.trim()).zip(port(to.trim())),
        None => port(written.trim()).map(|port| (port, port)),
    };
    let help = match range {
        Some((from, to)) if from <= to => return range,
        // The help repeats the value, which must not be when it came out of a variable.
        Some((from, to)) if at.raw() == Some(&written) => {
            format!("the smaller port comes first: \"{to}-{from}\"")
        }
        _ if written.trim() == "0" => {
            "leave it out: port 0 lets frps choose, and is always allowed".to_owned()
        }
        _ => "write a port from 1 to 65535, or a range like \"20000-20100\"".to_owned(),
    };
    let message = format!("{} is no port and no range of ports", at.seen());
    ctx.push(Fault::error(at, "bad-port", message).help(help));
    None
}
