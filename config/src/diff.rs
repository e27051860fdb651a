//! What changed between two configurations: added, removed, changed by name.
//!
//! Written once for every section; which fields an item has is listed beside its type, and the list is checked by
//! the compiler: a new field that isn't listed does not compile.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::model::{Admin, Config, Frps, Listener, Pool, Route, Runtime};

/// Differences of two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Settings without a name that differ, as paths: `admin.token`, `access_log`.
    pub process: Vec<String>,
    /// FRP servers.
    pub frps: SectionChanges,
    /// Listeners.
    pub listeners: SectionChanges,
    /// Pools.
    pub pools: SectionChanges,
    /// Routes.
    pub routes: SectionChanges,
}

/// Differences of one section, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SectionChanges {
    /// Only in the new one, in its order.
    pub added: Vec<String>,
    /// Only in the old one, in its order.
    pub removed: Vec<String>,
    /// In both but not equal, in the order of the new one.
    pub changed: Vec<Changed>,
    /// What is in both stands in another order (which is the last tie-break between routes).
    pub reordered: bool,
}

/// An item that is in both configurations but not equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// Names of the fields that differ.
    pub fields: Vec<&'static str>,
}

/// Compares two configurations. O(n log n) in the number of items.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Changes {
    let mut process = Vec::new();
    process.extend(old.admin.differing(&new.admin).into_iter().map(|field| format!("admin.{field}")));
    process.extend(old.runtime.differing(&new.runtime).into_iter().map(|field| format!("runtime.{field}")));
    process.extend((old.zone != new.zone).then(|| "zone".to_owned()));
    for (name, differs) in [
        ("access_log", old.access_log != new.access_log),
        ("audit", old.audit != new.audit),
        ("plugin", old.plugin != new.plugin),
        ("takeover", old.takeover != new.takeover),
        ("claims", old.claims != new.claims),
        ("tunnels", old.tunnels != new.tunnels),
        ("agent", old.agent != new.agent),
        ("acme", old.acme != new.acme),
    ] {
        process.extend(differs.then(|| name.to_owned()));
    }
    Changes {
        process,
        frps: section(&old.frps, &new.frps),
        listeners: section(&old.listeners, &new.listeners),
        pools: section(&old.pools, &new.pools),
        routes: section(&old.routes, &new.routes),
    }
}

impl Changes {
    /// Whether the two configurations are equal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.process.is_empty() && self.sections().iter().all(|(_, section)| section.is_empty())
    }

    /// The named sections with their names, in file order.
    #[must_use]
    pub fn sections(&self) -> [(&'static str, &SectionChanges); 4] {
        [
            ("frps", &self.frps),
            ("listeners", &self.listeners),
            ("pools", &self.pools),
            ("routes", &self.routes),
        ]
    }
}

impl SectionChanges {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && !self.reordered
    }
}

/// `frps +0 -0 ~0 listeners +0 -0 ~1 pools +0 -0 ~0 routes +1 -0 ~0`, then what has no name: ` ~admin.token`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, section)) in self.sections().into_iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            let (added, removed, changed) =
                (section.added.len(), section.removed.len(), section.changed.len());
            write!(f, "{space}{name} +{added} -{removed} ~{changed}")?;
            if section.reordered {
                f.write_str(" reordered")?;
            }
        }
        self.process.iter().try_for_each(|path| write!(f, " ~{path}"))
    }
}

/// Something whose fields can be compared one by one.
trait Item {
    /// Names of the fields in which two items differ.
    fn differing(&self, other: &Self) -> Vec<&'static str>;
}

/// An item that its section knows by name.
trait Named: Item {
    fn name(&self) -> &str;
}

fn section<T: Named>(old: &[T], new: &[T]) -> SectionChanges {
    let index = |items: &[T]| -> BTreeMap<String, usize> {
        items.iter().enumerate().map(|(i, item)| (item.name().to_owned(), i)).collect()
    };
    let (old_index, new_index) = (index(old), index(new));
    let mut changes = SectionChanges::default();
    let mut last = None;
    for item in new {
        let Some(&i) = old_index.get(item.name()) else {
            changes.added.push(item.name().to_owned());
            continue;
        };
        changes.reordered |= last.is_some_and(|last| i < last);
        last = Some(i);
        let fields = old[i].differing(item);
        if !fields.is_empty() {
            changes.changed.push(Changed { name: item.name().to_owned(), fields });
        }
    }
    let gone = old.iter().filter(|item| !new_index.contains_key(item.name()));
    changes.removed = gone.map(|item| item.name().to_owned()).collect();
    changes
}

/// Implements [`Item`]; naming every field in the pattern is what makes the compiler check the list.
macro_rules! item {
    ($type:ident { $($field:ident),+ $(,)? }) => {
        impl Item for $type {
            fn differing(&self, other: &Self) -> Vec<&'static str> {
                let Self { $($field),+ } = self;
                let mut fields = Vec::new();
                $(if *$field != other.$field { fields.push(stringify!($field)); })+
                fields
            }
        }
    };
}

/// Implements [`Named`] for types with a field `name`.
macro_rules! named {
    ($($type:ident)+) => { $(impl Named for $type { fn name(&self) -> &str { &self.name } })+ };
}

item!(Admin { listen, token });
item!(Runtime { workers, drain_timeout, drain_delay, upgrade_timeout });
item!(Frps {
    name,
    host,
    token,
    zone,
    labels,
    control_port,
    vhost_http_port,
    vhost_https_port,
    drain,
    weight,
    in_flight,
    connections,
    admin,
    plugin,
    tunnel_host,
    subdomain_host,
    not_found_marker
});
item!(Listener {
    name,
    bind,
    protocol,
    pool,
    proxy_protocol,
    frp,
    tls,
    http2,
    trusted_proxies,
    timeouts,
    limits
});
item!(Pool {
    name,
    carries,
    frps,
    tunnels,
    balance,
    latency_decay,
    hash_bound,
    affinity,
    slow_start,
    locality,
    panic_threshold,
    health,
    outlier,
    limits,
    retry,
    hold,
    proxy_protocol,
    protocol,
    tls,
    connect_timeout,
    keepalive,
    fail_timeout,
    absent_timeout
});
item!(Route { name, matches, pools, redirect, hsts, client, timeout, listeners, in_flight });
named!(Frps Listener Pool Route);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoResolver, load};

    const BASE: &str = "
admin: { token: one }
frps: [ { name: a, host: a, vhost_http_port: 80 }, { name: b, host: b, vhost_http_port: 80 } ]
listeners: [ { name: web, bind: '0.0.0.0:80' } ]
pools: [ { name: p, frps: [a] }, { name: q, frps: [b] } ]
routes: [ { name: r, pools: [ { name: p, weight: 95 }, { name: q, weight: 5 } ] } ]
";

    fn config(text: &str) -> Config {
        let loaded = load(text, "t.yaml", &NoResolver);
        loaded.config.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
    }

    #[test]
    fn equal_files_have_no_changes() {
        let changes = diff(&config(BASE), &config(BASE));
        assert!(changes.is_empty(), "{changes:?}");
    }

    #[test]
    fn a_changed_weight_is_one_changed_route() {
        let changes = diff(&config(BASE), &config(&BASE.replace("95", "50")));
        assert_eq!(changes.routes.changed, [Changed { name: "r".to_owned(), fields: vec!["pools"] }]);
        assert_eq!(changes.to_string(), "frps +0 -0 ~0 listeners +0 -0 ~0 pools +0 -0 ~0 routes +0 -0 ~1");
    }

    #[test]
    fn a_new_name_is_one_added_and_one_removed() {
        let changes = diff(&config(BASE), &config(&BASE.replace("name: web", "name: www")));
        assert_eq!(
            (changes.listeners.added, changes.listeners.removed),
            (vec!["www".into()], vec!["web".into()])
        );
    }

    #[test]
    fn a_new_order_is_told() {
        let swapped = BASE.replace(
            "{ name: p, frps: [a] }, { name: q, frps: [b] }",
            "{ name: q, frps: [b] }, { name: p, frps: [a] }",
        );
        let changes = diff(&config(BASE), &config(&swapped));
        assert!(changes.pools.reordered && changes.pools.changed.is_empty(), "{changes:?}");
    }

    #[test]
    fn a_changed_secret_is_told_without_its_value() {
        let changes = diff(&config(BASE), &config(&BASE.replace("token: one", "token: two")));
        assert!(changes.to_string().ends_with(" ~admin.token"), "{changes}");
        assert!(!format!("{changes:?}").contains("two"));
    }

    #[test]
    fn a_changed_authority_is_told() {
        let with =
            |rest: &str| config(&format!("{BASE}acme: {{ storage: /acme, accept_terms: true{rest} }}\n"));
        let changes = diff(&with(""), &with(", per_user: 10"));
        assert!(changes.to_string().ends_with(" ~acme"), "{changes}");
    }
}
