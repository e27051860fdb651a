//! Which frps holds which host: the listings of their admin APIs, merged for one look-up per request.
//!
//! A listing is a preference, not a filter: a tunnel may be a moment younger than the last poll. Matching follows
//! frps: exact name, then `*.` wildcards from the longest suffix, then `*`; locations are plain string prefixes.

use std::{borrow::Cow, collections::HashMap, iter};

/// Holders of every known host.
#[derive(Debug, Default, PartialEq)]
pub struct Tunnels {
    hosts: HashMap<Box<str>, Vec<Holder>, foldhash::fast::RandomState>,
}

/// One http proxy of one frps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Index of the frps, as in [`super::Member::frps`].
    pub frps: u32,
    /// String prefixes of the path; frps uses `""` when the proxy names none.
    pub locations: Vec<Box<str>>,
}

impl Tunnels {
    /// Adds one proxy. `domain` is an exact name, `*.suffix` or `*`; compared in lower case.
    pub fn insert(&mut self, domain: &str, holder: Holder) {
        self.hosts.entry(domain.to_ascii_lowercase().into_boxed_str()).or_default().push(holder);
    }

    /// Whether nothing is known (no admin API configured, or none has answered).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Number of distinct domains.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether any frps holds `host`, at whatever location.
    #[must_use]
    pub fn knows(&self, host: &str) -> bool {
        levels(host).any(|level| self.hosts.contains_key(level.as_ref()))
    }

    /// Calls `found` with the frps of every tunnel that would serve `host` (lower case, no port) and `path`.
    ///
    /// Over the whole fleet the most specific domain level with a match wins, as it does inside one frps. Returns
    /// whether there was one.
    pub fn holders(&self, host: &str, path: &str, mut found: impl FnMut(u32)) -> bool {
        for level in levels(host) {
            let Some(holders) = self.hosts.get(level.as_ref()) else { continue };
            let mut any = false;
            for holder in holders {
                if holder.locations.iter().any(|location| path.starts_with(location.as_ref())) {
                    found(holder.frps);
                    any = true;
                }
            }
            if any {
                return true;
            }
        }
        false
    }
}

/// The names to look up for `host`, most specific first. A wildcard keeps at least two labels (frps's rule).
fn levels(host: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let wildcards = host
        .match_indices('.')
        .map(|(dot, _)| &host[dot..])
        .filter(|suffix| suffix[1..].contains('.'))
        .map(|suffix| Cow::Owned(format!("*{suffix}")));
    iter::once(Cow::Borrowed(host)).chain(wildcards).chain(iter::once(Cow::Borrowed("*")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tunnels: &Tunnels, host: &str, path: &str) -> Vec<u32> {
        let mut all = Vec::new();
        tunnels.holders(host, path, |frps| all.push(frps));
        all
    }

    #[test]
    fn hosts_and_locations_match_as_in_frps() {
        let mut tunnels = Tunnels::default();
        let mut add = |domain: &str, frps, locations: &[&str]| {
            let locations = locations.iter().map(|l| Box::from(*l)).collect();
            tunnels.insert(domain, Holder { frps, locations });
        };
        add("App.test", 0, &[""]);
        add("app.test", 1, &["/api"]);
        add("*.wild.test", 2, &[""]);
        add("x.wild.test", 3, &["/only"]);
        assert_eq!(found(&tunnels, "app.test", "/"), [0]);
        assert_eq!(found(&tunnels, "app.test", "/apix"), [0, 1], "a location is a plain prefix");
        assert_eq!(found(&tunnels, "a.b.wild.test", "/"), [2], "a wildcard spans labels");
        assert_eq!(found(&tunnels, "wild.test", "/"), [] as [u32; 0], "never the bare name");
        assert!(!levels("a.test").any(|level| level == "*.test"), "two labels try no wildcard");
        assert_eq!(found(&tunnels, "x.wild.test", "/only/1"), [3]);
        assert_eq!(found(&tunnels, "x.wild.test", "/else"), [2], "no location falls through to the wildcard");
        assert!(tunnels.knows("y.wild.test") && !tunnels.knows("nobody.test"));
    }
}
