//! `acme`: certificates that renew themselves.

use super::{lists, switch, tls_checks};
use crate::{
    keys::{self, Kind},
    model::{Acme, Challenge, Listener, OnDemand},
    read::{At, Ctx, Fault, Fields, https_url, is_host_name, network, path, secret, text, word, wrong_type},
    secret::Secret,
};

pub(super) fn acme(ctx: &mut Ctx<'_>, at: &At<'_>, listeners: &[Listener]) -> Acme {
    let fields = Fields::open(ctx, at, &keys::ACME);
    accepted(ctx, &fields);
    let storage = fields.read(ctx, "storage", path).unwrap_or_default();
    if let Some(at) = fields.get("storage")
        && storage.is_relative()
        && !storage.as_os_str().is_empty()
    {
        ctx.push(
            Fault::error(&at, "bad-file", format!("{} is no absolute path", at.seen()))
                .help("write one, as in \"/var/lib/frp-gateway/acme\": a lost account is a lost certificate"),
        );
    }
    Acme {
        directory: fields.read(ctx, "directory", https_url).unwrap_or_default(),
        trust: fields.read(ctx, "trust", path),
        email: fields.read(ctx, "email", email),
        storage,
        challenges: challenges(ctx, &fields, listeners),
        names: names(ctx, &fields),
        on_demand: fields
            .read(ctx, "on_demand", on_demand)
            .unwrap_or(OnDemand { routes: true, tunnels: true }),
        per_user: fields.u32(ctx, "per_user"),
        external_account: fields.get("external_account").map(|at| external_account(ctx, &at)),
        profile: fields.read(ctx, "profile", text),
        from: lists::some(ctx, &fields, "from", "name at least one network, or remove it to answer everyone")
            .unwrap_or_default()
            .iter()
            .filter_map(|at| network(ctx, at, &Kind::Network))
            .collect(),
    }
}

/// `accept_terms: true`: nobody but the operator can accept them.
fn accepted(ctx: &mut Ctx<'_>, fields: &Fields<'_>) {
    if let Some(at) = fields.get("accept_terms")
        && at.raw() != Some("true")
    {
        ctx.push(
            Fault::error(&at, "terms-not-accepted", "no certificate is issued before its terms are accepted")
                .help("read the terms of the authority, then write \"accept_terms: true\""),
        );
    }
}

/// An address that mail can go to, roughly.
fn email(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let value = text(ctx, at, kind)?;
    let plain = value.bytes().all(|byte| byte.is_ascii_graphic()) && !value.contains([',', '<', '>', ':']);
    match value.split_once('@') {
        Some((user, host)) if plain && !user.is_empty() && !host.is_empty() && !host.contains('@') => {
            Some(value)
        }
        _ => {
            ctx.push(
                Fault::error(at, "bad-email", format!("{} is no mail address", at.seen()))
                    .help("write one address alone, as in \"admin@example.com\""),
            );
            None
        }
    }
}

/// As they are written; without that, those that some listener can answer.
fn challenges(ctx: &mut Ctx<'_>, fields: &Fields<'_>, listeners: &[Listener]) -> Vec<Challenge> {
    const BOTH: [Challenge; 2] = [Challenge::Http01, Challenge::TlsAlpn01];
    let Some(items) = lists::some(ctx, fields, "challenges", "name at least one, or remove it for both")
    else {
        let able: Vec<_> = BOTH.into_iter().filter(|one| tls_checks::is_answered(*one, listeners)).collect();
        return if able.is_empty() { BOTH.to_vec() } else { able };
    };
    let key = keys::ACME.keys.iter().find(|key| key.name == "challenges");
    let mut found = Vec::new();
    for at in &items {
        let challenge = match key.and_then(|key| word(ctx, at, &key.kind)) {
            Some("http-01") => Challenge::Http01,
            Some(_) => Challenge::TlsAlpn01,
            None => continue,
        };
        if found.contains(&challenge) {
            ctx.push(Fault::warning(at, "duplicate-value", format!("{} is listed twice", at.seen())));
        } else {
            found.push(challenge);
        }
    }
    found
}

fn names(ctx: &mut Ctx<'_>, fields: &Fields<'_>) -> Vec<String> {
    let items = lists::some(ctx, fields, "names", "name at least one, or remove it").unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    for at in &items {
        if at.raw().is_some_and(|raw| raw.starts_with('*')) {
            let message = format!(
                "{} can't be proved: neither http-01 nor tls-alpn-01 can prove a wildcard",
                at.seen()
            );
            ctx.push(Fault::error(at, "wildcard-name", message).help(
                "name each host, or get the certificate elsewhere (dns-01) and list its files under the listener's certificates",
            ));
            continue;
        }
        let Some(name) = name(ctx, at) else { continue };
        if found.contains(&name) {
            ctx.push(Fault::warning(at, "duplicate-value", format!("{} is listed twice", at.seen())));
        } else {
            found.push(name);
        }
    }
    found
}

/// The name of a host, in lower case and without trailing dot.
fn name(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<String> {
    let value = text(ctx, at, &Kind::Domain)?;
    let plain = value.strip_suffix('.').unwrap_or(&value).to_ascii_lowercase();
    let help = if plain.parse::<std::net::IpAddr>().is_ok() {
        "write a DNS name: certificates for addresses are listed as files under the listener's certificates"
    } else if plain.contains('_') {
        "leave \"_\" out: no authority issues for it"
    } else if is_host_name(&plain) {
        return Some(plain);
    } else {
        "write a DNS name, as in \"shop.example.com\""
    };
    ctx.push(Fault::error(at, "bad-domain", format!("{} is no name of a host", at.seen())).help(help));
    None
}

fn on_demand(ctx: &mut Ctx<'_>, at: &At<'_>, _: &Kind) -> Option<OnDemand> {
    let Some(at) = switch(ctx, at, "on_demand")? else {
        return Some(OnDemand { routes: false, tunnels: false });
    };
    let fields = Fields::open(ctx, &at, &keys::ON_DEMAND);
    Some(OnDemand { routes: fields.boolean(ctx, "routes"), tunnels: fields.boolean(ctx, "tunnels") })
}

fn external_account(ctx: &mut Ctx<'_>, at: &At<'_>) -> (String, Secret) {
    let fields = Fields::open(ctx, at, &keys::EXTERNAL_ACCOUNT);
    let id = fields.read(ctx, "key_id", |ctx, at, kind| match text(ctx, at, kind)? {
        id if id.is_empty() => wrong_type(ctx, at, "a key id"),
        id => Some(id),
    });
    let key = fields.read(ctx, "hmac_key", secret);
    if let (Some(at), Some(key)) = (fields.get("hmac_key"), &key)
        && !key
            .expose()
            .trim_end_matches('=')
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    {
        ctx.push(
            Fault::error(&at, "bad-key", "the HMAC key is not base64url")
                .help("write it as the authority gave it: A-Z a-z 0-9 - _"),
        );
    }
    (id.unwrap_or_default(), key.unwrap_or_else(|| Secret::new("")))
}
