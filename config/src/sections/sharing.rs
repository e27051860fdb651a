//! One address for two listeners: TLS that ends here, and TLS that is passed through.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{field, items};
use crate::{
    model::{Config, Listener, Protocol},
    read::{At, Ctx, Fault, Fields},
};

/// A passthrough listener and the https listener of its address, by position.
struct Pair {
    passed: usize,
    ended: usize,
}

/// Listeners of TLS by what they do with it and by address, the rest by address alone.
#[derive(Default)]
struct Here {
    passed: Vec<usize>,
    ended: Vec<usize>,
    others: bool,
}

fn by_address(listeners: &[Listener]) -> BTreeMap<SocketAddr, Here> {
    let mut found: BTreeMap<SocketAddr, Here> = BTreeMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        let here = found.entry(listener.bind).or_default();
        match listener.protocol {
            Protocol::TlsPassthrough => here.passed.push(index),
            Protocol::Https => here.ended.push(index),
            // Where the system chooses the port they don't meet.
            Protocol::Http | Protocol::Tcp | Protocol::Frp => here.others |= listener.bind.port() != 0,
            // Datagrams have ports of their own.
            Protocol::Udp => {}
        }
    }
    found
}

/// Addresses that exactly one https and one `tls_passthrough` listener have, and no other of TCP.
fn pairs(listeners: &[Listener]) -> Vec<Pair> {
    let pair = |here: Here| match (&here.passed[..], &here.ended[..]) {
        ([passed], [ended]) if !here.others => Some(Pair { passed: *passed, ended: *ended }),
        _ => None,
    };
    by_address(listeners).into_values().filter_map(pair).collect()
}

/// Positions of the listeners that rightly have the address of an earlier one.
pub(super) fn seconds(listeners: &[Listener]) -> Vec<usize> {
    pairs(listeners).iter().map(|pair| pair.passed.max(pair.ended)).collect()
}

/// What two listeners of one address must agree on.
pub(super) fn check(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let written = items(root, "listeners");
    chosen_by_the_system(ctx, &written, &config.listeners);
    for Pair { passed, ended } in pairs(&config.listeners) {
        let (Some(item), Some(other)) = (written.get(passed), written.get(ended)) else { continue };
        let (passed, ended) = (&config.listeners[passed], &config.listeners[ended]);
        if let Some(at) = field(item, "pool") {
            let message = format!("it would take every name, and nothing is left for \"{}\"", ended.name);
            ctx.push(Fault::error(&at, "nothing-left", message).help(
                "write routes for the names that are passed through: routes: [ { match: { host: … }, listeners: [NAME], pool: … } ]",
            ));
        }
        if passed.proxy_protocol != ended.proxy_protocol {
            let at = field(item, "proxy_protocol").or_else(|| field(other, "proxy_protocol"));
            let message = format!(
                "\"{}\" and \"{}\" share an address, but not proxy_protocol",
                passed.name, ended.name
            );
            ctx.push(
                Fault::error(&at.unwrap_or_else(|| item.clone()), "proxy-protocol-differs", message)
                    .help("it is read before the name is known: write the same at both"),
            );
        }
    }
}

/// With port 0 a pair gets one port; with more of either nobody could tell who is with whom.
fn chosen_by_the_system(ctx: &mut Ctx<'_>, written: &[At<'_>], listeners: &[Listener]) {
    for (address, here) in by_address(listeners) {
        let unclear = here.passed.len().max(here.ended.len()) > 1;
        if address.port() != 0 || !unclear || here.passed.is_empty() || here.ended.is_empty() {
            continue;
        }
        let last = here.passed.last().max(here.ended.last());
        if let Some(at) = last.and_then(|index| written.get(*index)).and_then(|item| field(item, "bind")) {
            let message =
                "an https and a tls_passthrough listener of one address share it, and here are more than two";
            ctx.push(Fault::error(&at, "bound-twice", message).help("give them ports"));
        }
    }
}
