//! Tree → model, one file per section. Order of reading: what is referred to first.

mod acme;
mod affinity;
mod checks;
mod claims;
mod frps;
mod health;
mod hold;
mod labels;
mod leads;
mod limits;
mod listeners;
mod lists;
mod matches;
mod members;
mod outlier;
mod plugin;
mod pool_checks;
mod pools;
mod process;
mod promises;
mod retry;
mod routes;
mod sharing;
mod tls;
mod tls_checks;
mod tunnel_checks;
mod tunnels;
mod unopened;

use crate::{
    keys,
    model::Config,
    read::{At, Ctx, Fault, Fields, declare_all, name},
    yaml::{Node, Span, Value},
};

/// What to write when there is nothing yet.
const EXAMPLE: &str = "a minimal file:\n\
    frps:\n  - { name: one, host: 10.0.0.11, vhost_http_port: 8080 }\n\
    listeners:\n  - { name: web, bind: \"0.0.0.0:80\" }";

/// Reads the whole file. The result is only worth something when no error was pushed.
pub(crate) fn document(ctx: &mut Ctx<'_>, tree: &Node) -> Config {
    let root = At::root(tree);
    let nowhere = Node::null(Span::START);
    let fields = open_root(ctx, &root);
    let part = |name: &'static str| fields.get(name).unwrap_or_else(|| root.key(name, &nowhere));

    let zone = fields.read(ctx, "zone", name);
    let admin = process::admin(ctx, &part("admin"));
    let runtime = process::runtime(ctx, &part("runtime"));
    let access_log = fields.read(ctx, "access_log", process::access_log);

    let frps_names = declare_all(ctx, fields.get("frps").as_ref(), "frps", "unknown-frps");
    let before = ctx.error_count();
    // tcp and udp tunnels have ports that their pools name: an frps needs none of its own for them.
    let by_remote_port = items(&fields, "listeners").iter().any(|listener| {
        field(listener, "protocol").is_some_and(|at| matches!(at.raw(), Some("tcp" | "udp")))
    });
    let frps = frps::read_all(ctx, &part("frps"), by_remote_port);
    let fleet_is_sound = ctx.error_count() == before;
    let listener_names = declare_all(ctx, fields.get("listeners").as_ref(), "listener", "unknown-listener");
    let pool_names = declare_all(ctx, fields.get("pools").as_ref(), "pool", "unknown-pool");
    let mut known = Known {
        frps: frps_names,
        pools: pool_names,
        listeners: listener_names,
        fleet_is_sound,
        no_pools: false,
    };
    let listeners = listeners::read_all(ctx, &part("listeners"), &frps, &known);
    let leads = leads::Leads::new(&listeners, &fields);
    let has_plugin = frps.iter().any(|frps| frps.plugin.is_some());
    let tunnels = tunnels::tunnels(ctx, &part("tunnels"), &known, has_plugin);
    // An agent's file serves no visitors, a fleet of pure tunnel servers has nothing but its tunnels to serve.
    let alone = is_for_the_agent(&fields)
        || !leads.has_http
        || tunnels.serve
            && frps.iter().any(|frps| frps.admin.is_some())
            && frps.iter().all(|frps| frps.vhost_http_port.is_none());
    let pools =
        pools::read_all(ctx, &part("pools"), fields.get("frps").as_ref(), &frps, alone, &leads, &mut known);
    known.no_pools = pools.is_empty() && ctx.error_count() == before;
    let routes = routes::read_all(ctx, &part("routes"), fields.get("pools").as_ref(), &leads, &known);
    let plugin = fields.get("plugin").map(|at| plugin::plugin(ctx, &at));
    let takeover = claims::takeover(ctx, &part("takeover"), &known);
    let claims = claims::claims(ctx, &part("claims"), &known);
    let acme = fields.get("acme").map(|at| acme::acme(ctx, &at, &listeners));
    let audit = fields.read(ctx, "audit", process::access_log);
    let agent = fields.get("agent").map(|at| plugin::agent(ctx, &at, &frps, &known));
    tunnel_checks::secrets(ctx, &fields, &frps);

    let config = Config {
        zone,
        admin,
        runtime,
        access_log: access_log.unwrap_or_default(),
        frps,
        listeners,
        pools,
        routes,
        plugin,
        takeover,
        claims,
        tunnels,
        audit: audit.unwrap_or_default(),
        agent,
        acme,
    };
    leads::check(ctx, &fields, &config);
    tls_checks::check(ctx, &fields, &config);
    checks::cross_section(ctx, &fields, &config);
    config
}

/// Names that later sections refer to.
pub(crate) struct Known {
    pub(crate) frps: crate::read::Names,
    pub(crate) pools: crate::read::Names,
    pub(crate) listeners: crate::read::Names,
    /// There is no pool, and needs to be none.
    pub(crate) no_pools: bool,
    /// No fault within `frps`: what its entries lack, they really lack.
    pub(crate) fleet_is_sound: bool,
}

/// Like [`Fields::open`], but what an empty or half-empty file needs is an example, not two missing keys.
fn open_root<'t>(ctx: &mut Ctx<'_>, root: &At<'t>) -> Fields<'t> {
    if root.is_null() {
        ctx.push(Fault::error(root, "empty-file", "the file says nothing").help(EXAMPLE));
        return Fields::empty(root, &keys::ROOT);
    }
    let fields = Fields::open(ctx, root, &keys::ROOT);
    for name in ["frps", "listeners"] {
        let code = if name == "frps" { "no-frps" } else { "no-listeners" };
        match fields.get(name) {
            // The agent listens for its frps alone.
            _ if name == "listeners" && is_for_the_agent(&fields) => {}
            Some(at) if at.is_null_or_empty_list() => {
                ctx.push(Fault::error(&at, code, format!("{name} is empty")).help(EXAMPLE));
            }
            None if root.is_map() => {
                ctx.push(Fault::error(root, code, format!("{name} is missing")).help(EXAMPLE));
            }
            Some(_) | None => {}
        }
    }
    fields
}

/// Whether only `frp-gateway agent` can use the file: there is an agent and no listener.
fn is_for_the_agent(root: &Fields<'_>) -> bool {
    root.get("agent").is_some() && root.get("listeners").is_none_or(|at| at.is_null_or_empty_list())
}

/// A thing that is off, or a map. `Some(None)` = off. Null is refused: with all keys of a map commented out, on and
/// off are equally likely to be meant.
fn switch<'t>(ctx: &mut Ctx<'_>, at: &At<'t>, name: &str) -> Option<Option<At<'t>>> {
    if at.raw() == Some("off") {
        return Some(None);
    }
    if at.is_map() {
        return Some(Some(at.clone()));
    }
    ctx.push(
        Fault::error(at, "wrong-type", format!("expected a map or off, found {}", at.seen()))
            .help(format!("write \"{name}: {{}}\" to turn it on, \"{name}: off\" to turn it off")),
    );
    None
}

/// The value of a key of a map, whatever its section.
fn field<'t>(item: &At<'t>, name: &str) -> Option<At<'t>> {
    let Value::Map(entries) = &item.node.value else { return None };
    entries
        .iter()
        .find(|(key, _)| item.key("", key).raw() == Some(name))
        .map(|(_, node)| item.key(name, node))
}

/// The written items of a section: same number and order as in the model, unless the section is implicit.
fn items<'t>(root: &Fields<'t>, section: &'static str) -> Vec<At<'t>> {
    root.get(section).map(|at| at.one_or_many()).unwrap_or_default()
}
