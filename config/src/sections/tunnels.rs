//! `plugin`, `takeover`, `claims`, `tunnels`, `agent`: what the gateway does with the tunnels it finds.

use std::{collections::BTreeMap, net::SocketAddr};

use ipnet::IpNet;

use super::{Known, affinity, labels, limits, pools, retry};
use crate::{
    keys::{self, Kind},
    model::{
        Agent, ClaimRule, Claims, DomainPattern, Frps, FrpsPlugin, HostMatch, MetadataKey, Pattern, Plugin,
        Pool, Takeover, TakeoverRule, TunnelSelector, Tunnels,
    },
    read::{
        At, Ctx, Fault, Fields, address, duration_or_off, host_pattern, integer, network, secret, text, url,
        word,
    },
    secret::Secret,
};

/// Fewest characters of a key.
const SHORTEST_KEY: usize = 32;
/// Fewest characters of a secret that is compared as it is.
const SHORTEST_SECRET: usize = 16;
/// Who may call, when nothing is said.
const PRIVATE: [&str; 6] =
    ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

pub(super) fn plugin(ctx: &mut Ctx<'_>, at: &At<'_>) -> Plugin {
    let fields = Fields::open(ctx, at, &keys::PLUGIN);
    let allow = fields.get("allow").map(|at| at.one_or_many());
    let allow = match allow {
        Some(items) => items.iter().filter_map(|at| network(ctx, at, &Kind::Network)).collect(),
        None => PRIVATE.iter().filter_map(|net| net.parse::<IpNet>().ok()).collect(),
    };
    Plugin {
        listen: fields.read(ctx, "listen", address).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        key: fields
            .read(ctx, "key", |ctx, at, kind| long(ctx, at, kind, SHORTEST_KEY))
            .unwrap_or_else(nothing),
        old_key: fields.read(ctx, "old_key", |ctx, at, kind| long(ctx, at, kind, SHORTEST_KEY)),
        allow,
        agent_token: fields.read(ctx, "agent_token", |ctx, at, kind| long(ctx, at, kind, SHORTEST_SECRET)),
    }
}

fn nothing() -> Secret {
    Secret::new("")
}

fn long(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind, shortest: usize) -> Option<Secret> {
    let value = secret(ctx, at, kind)?;
    if value.expose().chars().count() < shortest {
        ctx.push(
            Fault::error(at, "short-key", format!("it has fewer than {shortest} characters"))
                .help("make one with: head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '='"),
        );
        return None;
    }
    Some(value)
}

/// `frps[].plugin`.
pub(super) fn frps_plugin(ctx: &mut Ctx<'_>, at: &At<'_>, has_admin: bool) -> Option<FrpsPlugin> {
    let fields = Fields::open(ctx, at, &keys::FRPS_PLUGIN);
    if !has_admin {
        ctx.push(Fault::error(at, "plugin-without-admin", "this frps has a plugin but no admin").help(
            "add admin: { url: \"http://HOST:7500\", password: … }: what it lists decides what is live",
        ));
    }
    let secret = fields.read(ctx, "secret", |ctx, at, kind| {
        let value = long(ctx, at, kind, SHORTEST_SECRET)?;
        if value.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Some(value);
        }
        ctx.push(
            Fault::error(at, "bad-plugin-secret", "the secret is a part of a path")
                .help("use only A-Z a-z 0-9 - and _: head -c 24 /dev/urandom | base64 | tr '+/' '-_'"),
        );
        None
    })?;
    Some(FrpsPlugin { secret })
}

pub(super) fn takeover(ctx: &mut Ctx<'_>, at: &At<'_>, known: &Known) -> Takeover {
    let fields = Fields::open(ctx, at, &keys::TAKEOVER);
    let rules = fields.get("rules").map(|at| at.items(ctx)).unwrap_or_default();
    Takeover {
        http: fields.boolean(ctx, "http"),
        rules: rules.iter().map(|at| takeover_rule(ctx, at, known)).collect(),
    }
}

fn takeover_rule(ctx: &mut Ctx<'_>, at: &At<'_>, known: &Known) -> TakeoverRule {
    let fields = Fields::open(ctx, at, &keys::TAKEOVER_RULE);
    if at.is_map() && ["frps", "users", "domains"].iter().all(|key| fields.get(key).is_none()) {
        ctx.push(
            Fault::error(at, "empty-rule", "this rule speaks of every proxy")
                .help("name frps, users or domains; for all the rest there is takeover.http"),
        );
    }
    TakeoverRule {
        frps: references(ctx, &fields, "frps", known),
        users: patterns(ctx, &fields, "users"),
        domains: domains(ctx, &fields, "domains").unwrap_or_default(),
        http: fields.boolean(ctx, "http"),
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
    let ports = fields.get("ports").map(|at| at.one_or_many());
    let metadata = fields.get("metadata").map(|at| at.items(ctx));
    ClaimRule {
        users: patterns(ctx, &fields, "users"),
        frps: references(ctx, &fields, "frps", known),
        token: fields.read(ctx, "token", secret),
        refuse: fields.get("refuse").map(|_| fields.text(ctx, "refuse")),
        domains: domains(ctx, &fields, "domains"),
        ports: ports.map(|items| items.iter().filter_map(|at| port_range(ctx, at)).collect()),
        max_weight: fields.read(ctx, "max_weight", integer).and_then(|n| u32::try_from(n).ok()),
        metadata: metadata.map(|items| items.iter().filter_map(|at| metadata_key(ctx, at)).collect()),
    }
}

fn metadata_key(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<MetadataKey> {
    Some(match word(ctx, at, &keys::METADATA)? {
        "weight" => MetadataKey::Weight,
        "zone" => MetadataKey::Zone,
        "priority" => MetadataKey::Priority,
        "protocol" => MetadataKey::Protocol,
        _ => MetadataKey::Labels,
    })
}

/// `22` or `20000-20100`.
fn port_range(ctx: &mut Ctx<'_>, at: &At<'_>) -> Option<(u16, u16)> {
    let written = text(ctx, at, &Kind::Text)?;
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let range = match written.split_once('-') {
        Some((from, to)) => port(from).zip(port(to)).filter(|(from, to)| from <= to),
        None => port(&written).map(|port| (port, port)),
    };
    if range.is_none() {
        ctx.push(
            Fault::error(at, "bad-port", format!("{} is no port and no range of ports", at.seen()))
                .help("write a port from 1 to 65535, or a range: \"20000-20100\""),
        );
    }
    range
}

pub(super) fn tunnels(ctx: &mut Ctx<'_>, at: &At<'_>, known: &Known, serve_by_default: bool) -> Tunnels {
    let fields = Fields::open(ctx, at, &keys::TUNNELS);
    let names = fields.get("listeners").map(|at| at.one_or_many()).unwrap_or_default();
    let mut listeners = Vec::new();
    for at in &names {
        if let Some(name) = text(ctx, at, &Kind::Text)
            && known.listeners.check(ctx, at, &name)
        {
            listeners.push(name);
        }
    }
    let serve = match fields.get("serve") {
        Some(_) => fields.boolean(ctx, "serve"),
        None => serve_by_default,
    };
    Tunnels {
        serve,
        listeners,
        timeout: fields.read(ctx, "timeout", duration_or_off).flatten(),
        pool: fields
            .read(ctx, "pool", |ctx, at, _| Some(pool(ctx, at)))
            .unwrap_or_else(|| pool(ctx, &fields.place("pool"))),
        series: fields.usize(ctx, "series"),
    }
}

fn pool(ctx: &mut Ctx<'_>, at: &At<'_>) -> Pool {
    let fields = Fields::open(ctx, at, &keys::TUNNEL_POOL);
    let affinity = fields.read(ctx, "affinity", affinity::affinity);
    let rule = pools::rule_of(ctx, &fields, affinity.as_ref());
    Pool {
        name: "auto".into(),
        frps: Vec::new(),
        tunnels: None,
        balance: rule.balance,
        latency_decay: rule.latency_decay,
        hash_bound: rule.hash_bound,
        affinity,
        slow_start: fields.read(ctx, "slow_start", duration_or_off).flatten(),
        locality: fields.read(ctx, "locality", pools::locality).unwrap_or(crate::model::Locality::Ignore),
        panic_threshold: 0,
        health: None,
        outlier: None,
        limits: limits::limits(ctx, &fields),
        retry: retry::retry(ctx, &fields),
        connect_timeout: fields.duration(ctx, "connect_timeout"),
        keepalive: fields.duration(ctx, "keepalive"),
        fail_timeout: fields.duration(ctx, "fail_timeout"),
        absent_timeout: fields.duration(ctx, "absent_timeout"),
    }
}

/// `pools[].tunnels`.
pub(super) fn selector(ctx: &mut Ctx<'_>, at: &At<'_>, frps: &[Frps], known: &Known) -> TunnelSelector {
    let fields = Fields::open(ctx, at, &keys::TUNNEL_SELECTOR);
    let labels = fields.get("labels").map(|at| labels::labels(ctx, &at)).unwrap_or_default();
    if (at.is_map() || at.is_null())
        && labels.is_empty()
        && ["domain", "user", "name", "labels", "frps"].iter().all(|key| fields.get(key).is_none())
    {
        ctx.push(
            Fault::error(at, "empty-selector", "it selects nothing in particular")
                .help("name a domain, user, name, labels or frps; for all tunnels there is \"tunnels: { serve: true }\""),
        );
    }
    if known.fleet_is_sound && !frps.iter().any(|frps| frps.admin.is_some()) {
        ctx.push(
            Fault::error(at, "no-admin", "no frps has an admin API, so no tunnel is known")
                .help("add admin: { url: \"http://HOST:7500\", password: … } to the frps"),
        );
    }
    let written = domains(ctx, &fields, "domain").unwrap_or_default();
    let domain = |pattern: DomainPattern| match pattern {
        DomainPattern::Any => "*".to_owned(),
        DomainPattern::Exact(name) => name,
        DomainPattern::Below(suffix) => format!("*.{suffix}"),
    };
    TunnelSelector {
        domains: written.into_iter().map(domain).collect(),
        users: patterns(ctx, &fields, "user"),
        names: patterns(ctx, &fields, "name"),
        labels,
        frps: references(ctx, &fields, "frps", known),
    }
}

pub(super) fn agent(ctx: &mut Ctx<'_>, at: &At<'_>, frps: &[Frps], known: &Known) -> Option<Agent> {
    let fields = Fields::open(ctx, at, &keys::AGENT);
    let name = fields.get("frps").and_then(|at| {
        let name = text(ctx, &at, &Kind::Text)?;
        if !known.frps.check(ctx, &at, &name) {
            return None;
        }
        let plugin = frps.iter().find(|frps| frps.name == name).and_then(|frps| frps.plugin.as_ref());
        if plugin.is_none() && known.fleet_is_sound {
            ctx.push(
                Fault::error(&at, "no-plugin", format!("the frps {} has no plugin", at.seen()))
                    .help("add plugin: { secret: … } to it: the agent answers under that path"),
            );
        }
        Some(name)
    });
    let gateways = fields.get("gateways").map(|at| at.one_or_many()).unwrap_or_default();
    let agent = Agent {
        frps: name.unwrap_or_default(),
        listen: fields.read(ctx, "listen", address).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        gateways: gateways.iter().filter_map(|at| url(ctx, at, &Kind::Url)).collect(),
        token: fields.read(ctx, "token", |ctx, at, kind| long(ctx, at, kind, SHORTEST_SECRET)),
    };
    Some(agent)
}

/// Secrets by which frps are told apart have to differ, and somebody has to listen.
pub(super) fn check(ctx: &mut Ctx<'_>, root: &Fields<'_>, frps: &[Frps], plugin: Option<&Plugin>) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (item, server) in super::items(root, "frps").iter().zip(frps) {
        let Some(own) = &server.plugin else { continue };
        let Some(at) = super::field(item, "plugin") else { continue };
        if let Some(other) = seen.insert(own.secret.expose(), &server.name) {
            ctx.push(
                Fault::error(
                    &at,
                    "same-plugin-secret",
                    format!("the frps \"{other}\" has the same plugin secret"),
                )
                .help("give each frps a secret of its own: the path is all that tells them apart"),
            );
        }
        if plugin.is_none() && root.get("plugin").is_none() {
            ctx.push(
                Fault::error(&at, "no-plugin-listener", "nobody listens for its calls")
                    .help("add at the top: plugin: { key: \"${PLUGIN_KEY}\" }"),
            );
        }
    }
    for name in ["takeover", "claims"] {
        if let Some(at) = root.get(name)
            && !frps.iter().any(|frps| frps.plugin.is_some())
            && name == "takeover"
        {
            ctx.push(
                Fault::warning(&at, "no-effect", "takeover has no effect: no frps has a plugin")
                    .help("add plugin: { secret: … } to the frps that should call us"),
            );
        }
    }
}

fn references(ctx: &mut Ctx<'_>, fields: &Fields<'_>, key: &'static str, known: &Known) -> Vec<String> {
    let mut names = Vec::new();
    for at in fields.get(key).map(|at| at.one_or_many()).unwrap_or_default() {
        if let Some(name) = text(ctx, &at, &Kind::Text)
            && known.frps.check(ctx, &at, &name)
        {
            names.push(name);
        }
    }
    names
}

fn patterns(ctx: &mut Ctx<'_>, fields: &Fields<'_>, key: &'static str) -> Vec<Pattern> {
    let items = fields.get(key).map(|at| at.one_or_many()).unwrap_or_default();
    items.iter().filter_map(|at| text(ctx, at, &Kind::Text).map(Pattern)).collect()
}

/// Domains; `None` when the key isn't there.
fn domains(ctx: &mut Ctx<'_>, fields: &Fields<'_>, key: &'static str) -> Option<Vec<DomainPattern>> {
    let items = fields.get(key)?.one_or_many();
    let mut domains = Vec::new();
    for at in &items {
        if at.raw() == Some("*") {
            domains.push(DomainPattern::Any);
            continue;
        }
        domains.extend(host_pattern(ctx, at, &Kind::HostPattern).map(|host| match host {
            HostMatch::Exact(name) => DomainPattern::Exact(name),
            HostMatch::Wildcard(suffix) => DomainPattern::Below(suffix),
        }));
    }
    Some(domains)
}
