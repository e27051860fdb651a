//! One address for two listeners: TLS that ends here, and TLS that is passed through.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{field, items};
use crate::{
    model::{Config, Listener, Protocol},
    read::{Ctx, Fault, Fields},
};

/// A passthrough listener and the https listener of its address, by position.
struct Pair {
    passed: usize,
    ended: usize,
}

/// Addresses that exactly one https and one `tls_passthrough` listener have, and no other of TCP.
fn pairs(listeners: &[Listener]) -> Vec<Pair> {
    let mut by_address: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        // Datagrams have ports of their own, and the system chooses a new one each time.
        if listener.protocol != Protocol::Udp && listener.bind.port() != 0 {
            by_address.entry(listener.bind).or_default().push(index);
        }
    }
    let pair = |indexes: Vec<usize>| match indexes[..] {
        [a, b] => match (listeners[a].protocol, listeners[b].protocol) {
            (Protocol::TlsPassthrough, Protocol::Https) => Some(Pair { passed: a, ended: b }),
            (Protocol::Https, Protocol::TlsPassthrough) => Some(Pair { passed: b, ended: a }),
            _ => None,
        },
        _ => None,
    };
    by_address.into_values().filter_map(pair).collect()
}

/// Positions of the listeners that rightly have the address of an earlier one.
pub(super) fn seconds(listeners: &[Listener]) -> Vec<usize> {
    pairs(listeners).iter().map(|pair| pair.passed.max(pair.ended)).collect()
}

/// What two listeners of one address must agree on.
pub(super) fn check(ctx: &mut Ctx<'_>, root: &Fields<'_>, config: &Config) {
    let written = items(root, "listeners");
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
