//! `admin`, `runtime`, `access_log`.

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    keys::{self, Kind},
    model::{AccessLog, Admin, Runtime},
    read::{At, Ctx, Fault, Fields, address, secret, text, wrong_type},
};

pub(super) fn admin(ctx: &mut Ctx<'_>, at: &At<'_>) -> Admin {
    let fields = Fields::open(ctx, at, &keys::ADMIN);
    let listen = fields.read(ctx, "listen", address).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let token = fields.read(ctx, "token", secret);
    if let Some(at) = fields.get("listen")
        && fields.get("token").is_none()
        && !listen.ip().to_canonical().is_loopback()
    {
        ctx.push(
            Fault::error(&at, "admin-without-token", format!("{} is not a loopback address", at.seen()))
                .help("add token: \"${NAME}\" beside it, or listen on 127.0.0.1"),
        );
    }
    Admin { listen, token }
}

pub(super) fn runtime(ctx: &mut Ctx<'_>, at: &At<'_>) -> Runtime {
    let fields = Fields::open(ctx, at, &keys::RUNTIME);
    let workers = fields.usize(ctx, "workers");
    Runtime {
        workers,
        drain_timeout: fields.duration(ctx, "drain_timeout"),
        drain_delay: fields.duration(ctx, "drain_delay"),
        upgrade_timeout: fields.duration(ctx, "upgrade_timeout"),
    }
}

/// `access_log` and `audit`: `off`, `stdout`, a path, or `{ output: … }` with one of these.
pub(super) fn access_log(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<AccessLog> {
    if at.is_map() {
        let fields = Fields::open(ctx, at, &keys::ACCESS_LOG);
        return fields.get("output").and_then(|output| destination(ctx, &output, kind));
    }
    destination(ctx, at, kind)
}

fn destination(ctx: &mut Ctx<'_>, at: &At<'_>, kind: &Kind) -> Option<AccessLog> {
    if at.raw().is_none() {
        return wrong_type(ctx, at, "off, stdout or a path");
    }
    match text(ctx, at, kind)?.as_str() {
        "off" => Some(AccessLog::Off),
        "stdout" => Some(AccessLog::Stdout),
        path if path.starts_with('/') => Some(AccessLog::File(PathBuf::from(path))),
        _ => {
            let name = if at.path.starts_with("audit") { "audit" } else { "access" };
            ctx.push(Fault::error(at, "bad-access-log", format!("{} is no destination", at.seen())).help(
                format!("write off, stdout, or an absolute path like \"/var/log/frp-gateway/{name}.log\""),
            ));
            None
        }
    }
}
