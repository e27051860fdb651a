//! What has to hold between `frps`, `plugin`, `agent`, `takeover`, `claims`, `tunnels` and `pools`; and what of it is legal
//! but surely unmeant.

use std::collections::BTreeMap;

use super::{field, items};
use crate::{
    model::{ClaimRule, Config, Frps, TunnelSelector},
    read::{At, Ctx, Fault, Fields},
};

/// Secrets by which frps are told apart have to differ, and somebody has to listen.
pub(super) fn secrets(ctx: &mut Ctx<'_>, root: &Fields<'_>, frps: &[Frps]) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let nobody = root.get("plugin").is_none() && root.get("agent").is_none();
    for (item, server) in items(root, "frps").iter().zip(frps) {
        let (Some(own), Some(at)) = (&server.plugin, field(item, "plugin")) else { continue };
        if let Some(other) = seen.insert(own.secret.expose(), &server.name) {
            let at = field(&at, "secret").unwrap_or_else(|| at.clone());
            let message = format!("the frps \"{other}\" has the same plugin secret");
            ctx.push(
                Fault::error(&at, "same-plugin-secret", message)
                    .help("give each frps a secret of its own: the path is all that tells them apart"),
            );
        }
        if nobody {
            ctx.push(
                Fault::error(&at, "no-plugin-listener", "nobody listens for its calls")
                    .help("add at the top: plugin: { key: \"${PLUGIN_KEY}\" }"),
            );
        }
    }
    if let Some(at) = root.get("agent")
        && root.get("plugin").is_none()
    {
        ctx.push(
            Fault::error(&at, "agent-without-key", "the agent has no key to seal with")
                .help("add at the top: plugin: { key: \"${PLUGIN_KEY}\" }, the same key as in the gateways"),
        );
    }
}

/// Runs the others; only called when the file has no error.
pub(super) fn unmeant(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    callers(ctx, root, config);
    takeover(ctx, root, config);
    claims(ctx, root, config);
    routes(ctx, root, config);
    every_host(ctx, root, config);
    agent(ctx, root, config);
}

/// Whether the tunnels of this frps are used: served for themselves, or selected by a pool.
pub(super) fn tunnels_are_used(config: &Config, server: &Frps) -> bool {
    let of_this =
        |selector: &TunnelSelector| selector.frps.is_empty() || selector.frps.contains(&server.name);
    let selected = || config.pools.iter().filter_map(|pool| pool.tunnels.as_ref()).any(of_this);
    server.admin.is_some() && (config.tunnels.serve || selected())
}

fn no_effect(ctx: &mut Ctx<'_>, at: &At<'_>, message: impl Into<String>, help: &str) {
    ctx.push(Fault::warning(at, "no-effect", message).help(help));
}

/// Nobody calls the listener.
fn callers(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let (Some(at), Some(plugin)) = (root.get("plugin"), &config.plugin) else { return };
    if plugin.agent_token.is_none() && config.frps.iter().all(|server| server.plugin.is_none()) {
        let help = "add plugin: { secret: … } to the frps that should call us, or remove it";
        no_effect(ctx, &at, "nobody calls this listener: no frps has a plugin", help);
    }
}

fn takeover(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let Some(at) = root.get("takeover") else { return };
    if config.frps.iter().all(|server| server.plugin.is_none()) {
        let help = "add plugin: { secret: … } to the frps that should call us";
        no_effect(ctx, &at, "takeover has no effect: no frps has a plugin", help);
        return;
    }
    let calls = |name: &String| config.frps.iter().any(|f| f.name == *name && f.plugin.is_some());
    for (item, rule) in rules(root, "takeover").iter().zip(&config.takeover.rules) {
        if let Some(at) = field(item, "frps")
            && !rule.frps.iter().any(calls)
        {
            let help = "add plugin: { secret: … } to them, or remove the rule";
            no_effect(ctx, &at, "this rule has no effect: none of these frps has a plugin", help);
        }
    }
}

/// The written rules of a section.
fn rules<'t>(root: &Fields<'t>, section: &'static str) -> Vec<At<'t>> {
    root.get(section).and_then(|at| field(&at, "rules")).map(|at| at.one_or_many()).unwrap_or_default()
}

fn claims(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let Some(at) = root.get("claims") else { return };
    // Without a plugin nothing is refused at registration, but the directory still holds by the rules.
    if !config.frps.iter().any(|server| server.plugin.is_some() || tunnels_are_used(config, server)) {
        let help = "add plugin: { secret: … } to the frps whose claims should be checked, or remove it";
        no_effect(ctx, &at, "claims has no effect: no tunnel is known", help);
        return;
    }
    let mut all: Option<usize> = None;
    for (index, (item, rule)) in rules(root, "claims").iter().zip(&config.claims.rules).enumerate() {
        if let Some(earlier) = all {
            let message = format!("no user gets to this rule: claims.rules[{earlier}] fits every one");
            ctx.push(
                Fault::warning(item, "shadowed-rule", message)
                    .help("the first rule that fits decides: move the general rule to the end"),
            );
        }
        if all.is_none() && rule.frps.is_empty() && rule.users.iter().any(is_every) {
            all = Some(index);
        }
        refused_and_more(ctx, item, rule);
    }
}

fn is_every(pattern: &crate::model::Pattern) -> bool {
    !pattern.0.is_empty() && pattern.0.bytes().all(|byte| byte == b'*')
}

fn refused_and_more(ctx: &mut Ctx<'_>, item: &At<'_>, rule: &ClaimRule) {
    if rule.refuse.is_none() {
        return;
    }
    for key in ["domains", "ports", "max_weight", "metadata"] {
        if let Some(at) = field(item, key) {
            let message = format!("{key} has no effect: this rule refuses every claim");
            no_effect(ctx, &at, message, "remove it, or remove \"refuse\"");
        }
    }
}

/// `tunnels`, where no tunnel is a route by itself.
fn routes(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let Some(section) = root.get("tunnels") else { return };
    if config.tunnels.serve {
        if let Some(at) = field(&section, "serve")
            && config.frps.iter().all(|server| server.admin.is_none())
        {
            let help = "add admin: { url: \"http://HOST:7500\", password: … } to the frps";
            no_effect(ctx, &at, "serve has no effect: no frps has an admin API, so no tunnel is known", help);
        }
        return;
    }
    let selected = config.pools.iter().any(|pool| pool.tunnels.is_some());
    for key in ["listeners", "timeout", "pool", "series"] {
        let Some(at) = field(&section, key) else { continue };
        if key == "series" && selected {
            continue;
        }
        let why = if config.frps.iter().any(|server| server.plugin.is_some()) {
            "serve is false"
        } else {
            "no frps has a plugin, and serve is not true"
        };
        let message = format!("{key} has no effect: tunnels are no routes by themselves, because {why}");
        no_effect(ctx, &at, message, "write \"serve: true\", or remove it");
    }
}

/// Without routes the only pool gets every request; a pool of tunnels then gets hosts that its tunnels never claimed,
/// which is meant where they alone are served, whatever they claim.
fn every_host(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let implicit = root.get("routes").is_none_or(|at| at.is_null_or_empty_list());
    let (true, [pool], [item]) = (implicit, &config.pools[..], &items(root, "pools")[..]) else { return };
    let (Some(selector), Some(at)) = (&pool.tunnels, field(item, "tunnels")) else { return };
    if !config.tunnels.serve && selector.domains.is_empty() {
        return;
    }
    let host = selector.domains.iter().find(|domain| *domain != "*").map_or("HOST", String::as_str);
    ctx.push(
        Fault::warning(&at, "every-host", "without routes this pool gets the requests for every host")
            .help(format!("add routes: [ {{ match: {{ host: \"{host}\" }}, pool: {} }} ]", pool.name)),
    );
}

fn agent(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let (Some(at), Some(agent)) = (root.get("agent"), &config.agent) else { return };
    let asked = config.plugin.as_ref().and_then(|plugin| plugin.agent_token.as_ref());
    match (&agent.token, asked) {
        (None, _) => ctx.push(
            Fault::warning(&at, "agent-without-token", "gateways believe no agent without a token")
                .help("add token: what the gateways have as plugin.agent_token"),
        ),
        (Some(token), Some(asked)) if token != asked => ctx.push(
            Fault::warning(
                &field(&at, "token").unwrap_or(at),
                "other-token",
                "this is not the plugin.agent_token of this file",
            )
            .help("gateways that read this file would not believe the agent: write the same in both"),
        ),
        (Some(_), _) => {}
    }
}
