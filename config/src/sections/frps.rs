//! `frps`: the fleet.

use super::labels;
use crate::{
    keys,
    model::{Frps, FrpsAdmin},
    read::{At, Ctx, Fault, Fields, host_name, name, secret, subdomain_host, url},
    secret::Secret,
};

pub(super) fn read_all(ctx: &mut Ctx<'_>, at: &At<'_>, by_remote_port: bool) -> Vec<Frps> {
    let items = at.items(ctx);
    items.iter().map(|item| frps(ctx, item, by_remote_port)).collect()
}

fn frps(ctx: &mut Ctx<'_>, at: &At<'_>, by_remote_port: bool) -> Frps {
    let fields = Fields::open(ctx, at, &keys::FRPS);
    let has_port = ["control_port", "vhost_http_port", "vhost_https_port", "plugin"]
        .iter()
        .any(|key| fields.get(key).is_some());
    if at.is_map() && !has_port && !by_remote_port {
        ctx.push(
            Fault::error(at, "frps-without-port", "this frps has no port").help(
                "add \"vhost_http_port: 8080\" (what vhostHTTPPort says in its frps.toml), or a plugin",
            ),
        );
    }
    let host = fields.read(ctx, "host", host_name).unwrap_or_default();
    let plugin = fields.get("plugin");
    let limits = fields.get("limits").map(|at| Fields::open(ctx, &at, &keys::FRPS_LIMITS));
    Frps {
        name: fields.read(ctx, "name", name).unwrap_or_default(),
        tunnel_host: fields.read(ctx, "tunnel_host", host_name).unwrap_or_else(|| host.clone()),
        host,
        plugin: plugin.and_then(|at| super::plugin::of_frps(ctx, &at, fields.get("admin").is_some())),
        subdomain_host: fields.read(ctx, "subdomain_host", subdomain_host),
        zone: fields.read(ctx, "zone", name),
        labels: fields.get("labels").map(|at| labels::labels(ctx, &at)).unwrap_or_default(),
        control_port: fields.port(ctx, "control_port"),
        token: fields.read(ctx, "token", secret),
        vhost_http_port: fields.port(ctx, "vhost_http_port"),
        vhost_https_port: fields.port(ctx, "vhost_https_port"),
        drain: fields.boolean(ctx, "drain"),
        weight: fields.u32(ctx, "weight"),
        in_flight: limits.as_ref().and_then(|limits| limits.optional_u32(ctx, "in_flight")),
        connections: limits.as_ref().and_then(|limits| limits.optional_u32(ctx, "connections")),
        admin: fields.get("admin").map(|at| admin(ctx, &at)),
        not_found_marker: marker(ctx, &fields),
    }
}

fn admin(ctx: &mut Ctx<'_>, at: &At<'_>) -> FrpsAdmin {
    let fields = Fields::open(ctx, at, &keys::FRPS_ADMIN);
    FrpsAdmin {
        url: fields.read(ctx, "url", url).unwrap_or_default(),
        user: fields.text(ctx, "user"),
        password: fields.read(ctx, "password", secret).unwrap_or_else(|| Secret::new("")),
        interval: fields.duration(ctx, "interval"),
    }
}

/// An empty marker is in every page.
fn marker(ctx: &mut Ctx<'_>, fields: &Fields<'_>) -> Option<String> {
    let at = fields.get("not_found_marker")?;
    let marker = fields.text(ctx, "not_found_marker");
    if at.raw() == Some("") {
        ctx.push(
            Fault::error(&at, "empty-marker", "an empty text is in every page")
                .help("write a text that only this server's custom404Page contains, or remove the key"),
        );
    }
    Some(marker)
}
