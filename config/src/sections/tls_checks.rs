//! What https, redirects, client certificates and ACME need of other sections.

use super::{field, items};
use crate::{
    model::{Acme, Challenge, Config, HostMatch, Listener, OnDemand, Protocol, Route},
    read::{At, Ctx, Fault, Fields},
};

/// Runs them all.
pub(super) fn check(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    // Which routes are served where can't be told while a listener has a fault.
    let before = ctx.error_count();
    for (item, listener) in items(root, "listeners").iter().zip(&config.listeners) {
        listener_and_acme(ctx, root, item, listener);
    }
    if let (Some(at), Some(acme)) = (root.get("acme"), &config.acme) {
        challenges(ctx, &at, acme, &config.listeners);
        unused_acme(ctx, &at, acme, config);
    }
    if ctx.error_count() > before {
        return;
    }
    for (item, route) in items(root, "routes").iter().zip(&config.routes) {
        // What it can't do there was said with the listeners.
        let passed = |listener: &Listener| listener.protocol == Protocol::TlsPassthrough;
        if config.listeners.iter().any(|listener| passed(listener) && is_served_on(route, listener)) {
            continue;
        }
        wildcards(ctx, item, route, config);
        redirect(ctx, item, route, config);
        hsts(ctx, item, route, &config.listeners);
        client(ctx, item, route, &config.listeners);
    }
}

/// Whether a route is served on a listener. A redirect to https is not on one that speaks it.
pub(super) fn is_served_on(route: &Route, listener: &Listener) -> bool {
    let opened = match listener.protocol {
        Protocol::Http => true,
        Protocol::Https => route.redirect.is_none(),
        Protocol::TlsPassthrough => !route.listeners.is_empty(),
        Protocol::Tcp | Protocol::Udp | Protocol::Frp => false,
    };
    opened && (route.listeners.is_empty() || route.listeners.contains(&listener.name))
}

/// Whether the authority's question can be answered on some listener.
pub(super) fn is_answered(challenge: Challenge, listeners: &[Listener]) -> bool {
    listeners.iter().any(|listener| match challenge {
        Challenge::Http01 => listener.protocol == Protocol::Http,
        Challenge::TlsAlpn01 => is_by_acme(listener) && listener.protocol == Protocol::Https,
    })
}

fn is_by_acme(listener: &Listener) -> bool {
    listener.tls.as_ref().is_some_and(|tls| tls.acme)
}

fn listener_and_acme(ctx: &mut Ctx<'_>, root: &Fields<'_>, item: &At<'_>, listener: &Listener) {
    if !is_by_acme(listener) || root.get("acme").is_some() {
        return;
    }
    let tls = field(item, "tls");
    let at = tls.and_then(|at| field(&at, "acme")).unwrap_or_else(|| item.clone());
    ctx.push(
        Fault::error(&at, "no-acme", "no authority is given that certificates come from")
            .help("add at the top: acme: { storage: /var/lib/frp-gateway/acme, accept_terms: true }"),
    );
}

fn challenges(ctx: &mut Ctx<'_>, at: &At<'_>, acme: &Acme, listeners: &[Listener]) {
    // Without such a listener nothing is asked of the authority.
    if acme.challenges.is_empty() || !listeners.iter().any(is_by_acme) {
        return;
    }
    let needs = |challenge: Challenge| match challenge {
        Challenge::Http01 => ("http-01", "an http listener, which the authority reaches on port 80"),
        Challenge::TlsAlpn01 => {
            ("tls-alpn-01", "an https listener with \"acme: true\", which the authority reaches on port 443")
        }
    };
    let written = field(at, "challenges");
    if !acme.challenges.iter().any(|one| is_answered(*one, listeners)) {
        let needed: Vec<String> = acme
            .challenges
            .iter()
            .map(|one| needs(*one))
            .map(|(word, need)| format!("{word} needs {need}"))
            .collect();
        ctx.push(
            Fault::error(
                written.as_ref().unwrap_or(at),
                "no-challenge",
                "no name can be proved: no listener answers",
            )
            .help(needed.join("; ")),
        );
        return;
    }
    let items = written.map(|at| at.one_or_many()).unwrap_or_default();
    for item in &items {
        let challenge = match item.raw() {
            Some("http-01") => Challenge::Http01,
            Some("tls-alpn-01") => Challenge::TlsAlpn01,
            Some(_) | None => continue,
        };
        if !is_answered(challenge, listeners) {
            let (word, need) = needs(challenge);
            ctx.push(
                Fault::warning(item, "no-challenge", format!("{word} is never answered"))
                    .help(format!("remove it, or add {need}")),
            );
        }
    }
}

fn unused_acme(ctx: &mut Ctx<'_>, at: &At<'_>, acme: &Acme, config: &Config) {
    let tunnels = field(at, "on_demand").and_then(|at| field(&at, "tunnels"));
    if let Some(at) = tunnels.filter(|_| acme.on_demand.tunnels)
        && config.frps.iter().all(|server| server.admin.is_none())
    {
        ctx.push(
            Fault::warning(
                &at,
                "no-effect",
                "tunnels has no effect: no frps has an admin API, so no tunnel is known",
            )
            .help("add admin: { url: \"http://HOST:7500\", password: … } to the frps"),
        );
    }
    if !config.listeners.iter().any(is_by_acme) {
        ctx.push(
            Fault::warning(at, "no-effect", "acme has no effect: no listener uses its certificates")
                .help("add \"acme: true\" to the tls of an https listener"),
        );
    } else if acme.names.is_empty() && acme.on_demand == (OnDemand { routes: false, tunnels: false }) {
        ctx.push(
            Fault::warning(at, "no-effect", "acme has no effect: no name may get a certificate")
                .help("list some under names, or remove on_demand"),
        );
    }
}

/// Names below a wildcard, where neither a file nor a live tunnel nor `acme.names` brings a certificate for any.
fn wildcards(ctx: &mut Ctx<'_>, item: &At<'_>, route: &Route, config: &Config) {
    let by_acme_alone = |listener: &Listener| {
        listener.tls.as_ref().is_some_and(|tls| tls.acme && tls.certificates.is_empty())
    };
    let mut on = https(route, &config.listeners).peekable();
    let Some(acme) = config.acme.as_ref().filter(|_| on.peek().is_some() && on.all(by_acme_alone)) else {
        return;
    };
    if acme.on_demand.tunnels && config.frps.iter().any(|server| server.admin.is_some()) {
        return;
    }
    let hosts = field(item, "match").and_then(|at| field(&at, "host"));
    for at in hosts.map(|at| at.one_or_many()).unwrap_or_default() {
        let Some(below) = at.raw().and_then(|raw| raw.strip_prefix('*')) else { continue };
        if !acme.names.iter().any(|name| name.ends_with(&below.to_ascii_lowercase())) {
            let message =
                format!("acme has no certificate for {}: no challenge here proves a wildcard", at.seen());
            ctx.push(Fault::warning(&at, "wildcard-name", message).help(
                "list a certificate as a file under the listener's certificates, or the names themselves under acme.names",
            ));
        }
    }
}

fn redirect(ctx: &mut Ctx<'_>, item: &At<'_>, route: &Route, config: &Config) {
    let listeners = &config.listeners;
    let (Some(at), Some(_)) = (field(item, "redirect"), &route.redirect) else { return };
    if listeners.iter().any(|listener| is_served_on(route, listener) && listener.protocol == Protocol::Http) {
        tunnels_first(ctx, &at, route, config);
        if let Some(at) = field(item, "timeout") {
            ctx.push(
                Fault::warning(&at, "no-effect", "timeout has no effect: nothing is waited for")
                    .help("remove it: the gateway itself answers with the redirect"),
            );
        }
        return;
    }
    let help = if listeners.iter().any(|listener| listener.protocol == Protocol::Http) {
        "serve it on an http listener: \"listeners: [NAME]\""
    } else {
        "add an http listener: { name: NAME, bind: \"0.0.0.0:80\" }"
    };
    ctx.push(Fault::error(&at, "redirect-nowhere", "nobody who comes here speaks plain http").help(help));
}

/// A live tunnel's host is more specific than "every host": it is served in plain, not sent to https.
fn tunnels_first(ctx: &mut Ctx<'_>, at: &At<'_>, route: &Route, config: &Config) {
    let tunnels = &config.tunnels;
    let known = tunnels.serve && config.frps.iter().any(|server| server.admin.is_some());
    if !known || route.matches.hosts.iter().any(|host| matches!(host, HostMatch::Exact(_))) {
        return;
    }
    let also = |listener: &&Listener| {
        let served = tunnels.listeners.is_empty() || tunnels.listeners.contains(&listener.name);
        served && listener.protocol == Protocol::Http && is_served_on(route, listener)
    };
    let Some(listener) = config.listeners.iter().find(also) else { return };
    let by_https: Vec<&str> = config
        .listeners
        .iter()
        .filter(|listener| listener.protocol == Protocol::Https)
        .map(|listener| listener.name.as_str())
        .collect();
    let message = format!(
        "hosts of live tunnels are served on \"{}\" all the same: they are more specific",
        listener.name
    );
    ctx.push(Fault::warning(at, "tunnels-first", message).help(match by_https[..] {
        [] => "say where else tunnels are served: tunnels: { listeners: [NAME] }".to_owned(),
        _ => format!("serve tunnels by https alone: tunnels: {{ listeners: [{}] }}", by_https.join(", ")),
    }));
}

/// The https listeners that a route is served on.
fn https<'c>(route: &'c Route, listeners: &'c [Listener]) -> impl Iterator<Item = &'c Listener> {
    listeners.iter().filter(|listener| listener.protocol == Protocol::Https && is_served_on(route, listener))
}

fn hsts(ctx: &mut Ctx<'_>, item: &At<'_>, route: &Route, listeners: &[Listener]) {
    let (Some(at), Some(_)) = (field(item, "hsts"), &route.hsts) else { return };
    if https(route, listeners).next().is_none() {
        ctx.push(
            Fault::warning(&at, "no-effect", "hsts has no effect: browsers believe it by https alone")
                .help("serve the route on an https listener, or remove it"),
        );
    }
}

/// What asks for a client's certificate needs listeners that ask for one.
fn client(ctx: &mut Ctx<'_>, item: &At<'_>, route: &Route, listeners: &[Listener]) {
    const ADD: &str = "add tls: { client_auth: { mode: optional, trust: /path/authority.pem } } to an https listener that it is served on";
    let asks = |listener: &&Listener| listener.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some());
    let asked = https(route, listeners).filter(asks).count();
    let matched = field(item, "match").and_then(|at| field(&at, "client"));
    if let Some(at) = matched.filter(|_| asked == 0 && !route.matches.client.is_empty()) {
        let message = "no request matches: no listener of this route asks clients for certificates";
        ctx.push(Fault::error(&at, "no-client-auth", message).help(ADD));
    }
    let (Some(at), Some(_)) = (field(item, "client"), &route.client) else { return };
    if asked == 0 {
        let message = "nobody is served: no listener of this route asks clients for certificates";
        ctx.push(Fault::error(&at, "no-client-auth", message).help(ADD));
        return;
    }
    let without: Vec<String> = listeners
        .iter()
        .filter(|listener| is_served_on(route, listener) && !asks(listener))
        .map(|listener| format!("\"{}\"", listener.name))
        .collect();
    if !without.is_empty() {
        let message =
            format!("on {} everybody gets 403: no certificate is asked for there", without.join(", "));
        ctx.push(
            Fault::warning(&at, "no-client-auth", message)
                .help("serve the route only where certificates are asked for: \"listeners: [NAME]\""),
        );
    }
}
