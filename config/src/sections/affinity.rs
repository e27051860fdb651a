//! `pools[].affinity`.

use super::matches::only_one;
use crate::{
    keys::{self, Kind},
    model::{Affinity, AffinityCookie, SameSite, Secure},
    read::{At, Ctx, Fault, Fields, domain, duration, integer, secret, text, token, url_path, word},
    secret::Secret,
};

/// Fewest characters of a key: 32 random bytes have 44 in base64, 64 in hexadecimal.
const SHORTEST_KEY: usize = 32;
/// Longest name of a cookie, characters.
const LONGEST_NAME: usize = 64;

/// Reads an affinity; `None` when what it goes by could not be told.
pub(super) fn affinity(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Affinity> {
    if at.raw().is_some() {
        word(ctx, at, kind)?;
        return source_ip(ctx, &Fields::empty(at, &keys::SOURCE_IP));
    }
    let (key, at) = only_one(ctx, at, &keys::AFFINITY)?;
    match key {
        "cookie" => cookie(ctx, &at).map(Affinity::Cookie),
        "header" => token(ctx, &at, &Kind::Token).map(|name| Affinity::Header(name.to_ascii_lowercase())),
        "query" => query(ctx, &at).map(Affinity::Query),
        _ => {
            let fields = Fields::open(ctx, &at, &keys::SOURCE_IP);
            source_ip(ctx, &fields)
        }
    }
}

/// Whether an affinity picks by a hash.
pub(super) fn is_hashing(affinity: &Affinity) -> bool {
    match affinity {
        Affinity::Cookie(_) => false,
        Affinity::Header(_) | Affinity::Query(_) | Affinity::SourceIp { .. } => true,
    }
}

fn source_ip(ctx: &mut Ctx<'_>, fields: &Fields<'_>) -> Option<Affinity> {
    let mut bits = |name| fields.read(ctx, name, integer).and_then(|bits| u8::try_from(bits).ok());
    let (ipv4_prefix, ipv6_prefix) = (bits("ipv4_prefix"), bits("ipv6_prefix"));
    Some(Affinity::SourceIp { ipv4_prefix: ipv4_prefix?, ipv6_prefix: ipv6_prefix? })
}

fn query(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<String> {
    let name = text(ctx, at, &Kind::Text)?;
    if name.is_empty() {
        ctx.push(
            Fault::error(at, "bad-match-name", format!("{} is no parameter name", at.seen()))
                .help("write the name of a query parameter, as in \"query: user\""),
        );
        return None;
    }
    Some(name)
}

fn cookie(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<AffinityCookie> {
    let before = ctx.error_count();
    let fields = Fields::open(ctx, at, &keys::AFFINITY_COOKIE);
    let key = fields.read(ctx, "key", cookie_key);
    let cookie = AffinityCookie {
        name: fields.read(ctx, "name", cookie_name).unwrap_or_default(),
        key: key.unwrap_or_else(|| Secret::new("")),
        old_key: fields.read(ctx, "old_key", cookie_key),
        ttl: fields.read(ctx, "ttl", duration),
        idle: fields.read(ctx, "idle", duration),
        path: fields.read(ctx, "path", cookie_path).unwrap_or_default(),
        domain: fields.read(ctx, "domain", domain),
        secure: fields.read(ctx, "secure", word).map_or(Secure::Auto, secure),
        http_only: fields.boolean(ctx, "http_only"),
        same_site: fields.read(ctx, "same_site", word).map_or(SameSite::Lax, same_site),
        strict: fields.boolean(ctx, "strict"),
    };
    if ctx.error_count() > before {
        return None;
    }
    prefixes(ctx, &fields, &cookie);
    unmeant(ctx, &fields, &cookie);
    Some(cookie)
}

fn secure(word: &str) -> Secure {
    match word {
        "always" => Secure::Always,
        "never" => Secure::Never,
        _ => Secure::Auto,
    }
}

fn same_site(word: &str) -> SameSite {
    match word {
        "strict" => SameSite::Strict,
        "none" => SameSite::None,
        _ => SameSite::Lax,
    }
}

fn cookie_name(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let name = token(ctx, at, kind)?;
    if name.len() > LONGEST_NAME {
        ctx.push(
            Fault::error(at, "bad-token", format!("{} is too long for a cookie name", at.seen()))
                .help("write at most 64 characters: browsers send them with every request"),
        );
        return None;
    }
    Some(name)
}

fn cookie_key(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<Secret> {
    let key = secret(ctx, at, kind)?;
    if key.expose().chars().count() < SHORTEST_KEY {
        ctx.push(
            Fault::error(at, "short-key", "the key has fewer than 32 characters")
                .help("make one with: head -c 32 /dev/urandom | base64"),
        );
        return None;
    }
    Some(key)
}

fn cookie_path(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<String> {
    let path = url_path(ctx, at, kind)?;
    if path.contains(';') {
        ctx.push(
            Fault::error(
                at,
                "bad-path",
                format!("{} contains \";\", which ends the path in a cookie", at.seen()),
            )
            .help("write a path without \";\""),
        );
        return None;
    }
    Some(path)
}

/// Browsers drop a cookie with one of these prefixes that does not keep what the prefix promises.
fn prefixes(ctx: &mut Ctx<'_>, fields: &Fields<'_>, cookie: &AffinityCookie) {
    let name = cookie.name.to_ascii_lowercase();
    let host = name.starts_with("__host-");
    if !host && !name.starts_with("__secure-") {
        return;
    }
    let prefix = if host { "__Host-" } else { "__Secure-" };
    let mut refuse = |key, wants: &str| {
        ctx.push(
            Fault::error(
                &fields.get(key).unwrap_or_else(|| fields.place("name")),
                "cookie-prefix",
                format!("browsers drop a cookie whose name begins with {prefix}, unless {wants}"),
            )
            .help(format!("write that, or a name without {prefix}")),
        );
    };
    if cookie.secure != Secure::Always {
        refuse("secure", "it has \"secure: always\"");
    }
    if host && cookie.path != "/" {
        refuse("path", "it has \"path: /\"");
    }
    if host && cookie.domain.is_some() {
        refuse("domain", "it has no domain");
    }
}

/// Legal, but surely unmeant.
fn unmeant(ctx: &mut Ctx<'_>, fields: &Fields<'_>, cookie: &AffinityCookie) {
    if cookie.old_key.as_ref() == Some(&cookie.key) {
        ctx.push(
            Fault::warning(&fields.place("old_key"), "same-key", "old_key is the same as key")
                .help("write the key before into old_key, or remove it"),
        );
    }
    if cookie.same_site == SameSite::None && cookie.secure == Secure::Never {
        ctx.push(
            Fault::warning(
                &fields.place("same_site"),
                "same-site-none",
                "browsers drop a cookie with \"same_site: none\" that is not Secure",
            )
            .help("write \"secure: auto\" or \"always\", or \"same_site: lax\""),
        );
    }
    if let (Some(idle), Some(ttl)) = (cookie.idle, cookie.ttl)
        && idle > ttl
    {
        ctx.push(
            Fault::warning(
                &fields.place("idle"),
                "idle-over-ttl",
                "idle has no effect: ttl ends a session earlier",
            )
            .help("let idle be at most ttl"),
        );
    }
}
