//! Which certificate for which name.
//!
//! An exact name, then a wildcard (one label), then what comes at run time, then the first of the list. Where several
//! certificates are for the same name, the client's signature schemes decide, in our order of preference.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::SystemTime};

use frp_gateway_config::model::UnknownName;
use rustls::{SignatureScheme, sign::CertifiedKey};

use super::{leaf::Validity, more::MoreCertificates, pair::Pair};

/// Certificates for the same name, the preferred first.
type Group = Vec<Arc<Pair>>;

/// The certificates of a listener, by name. Immutable.
#[derive(Debug)]
pub struct Names {
    exact: HashMap<Box<str>, Group, foldhash::fast::RandomState>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Group, foldhash::fast::RandomState>,
    /// For clients that ask for a name nobody has, or for none.
    first: Group,
    unknown: UnknownName,
    acme: bool,
    all: Vec<Arc<Pair>>,
}

impl Names {
    /// Of `all`, in the order of the file. `acme`: names without a certificate of their own are looked for elsewhere.
    ///
    /// O(names). Where two certificates with the same kind of key are for one name, the one that is valid `now` is taken,
    /// then the earlier one.
    #[must_use]
    pub fn new(all: Vec<Arc<Pair>>, unknown: UnknownName, acme: bool, now: SystemTime) -> Self {
        let mut ordered: Vec<_> = all.iter().collect();
        ordered.sort_by_key(|pair| (pair.leaf.key, pair.leaf.validity(now) != Validity::Valid));
        let mut exact: HashMap<Box<str>, Group, _> = HashMap::default();
        let mut wildcard: HashMap<Box<str>, Group, _> = HashMap::default();
        for pair in &ordered {
            for name in &pair.leaf.names {
                let group = match name.strip_prefix("*.") {
                    Some(rest) => wildcard.entry(rest.into()),
                    None => exact.entry(name.as_str().into()),
                };
                let group = group.or_default();
                if !group.iter().any(|known| Arc::ptr_eq(known, pair)) {
                    group.push(Arc::clone(pair));
                }
            }
        }
        // The first of the file, and others that are for the very same names but have another kind of key.
        let set = |pair: &Pair| {
            let mut names = pair.leaf.names.clone();
            names.sort_unstable();
            names
        };
        let first = all.first().map_or_else(Vec::new, |first| {
            let wanted = set(first);
            let same = |pair: &&&Arc<Pair>| {
                Arc::ptr_eq(pair, first) || (pair.leaf.key != first.leaf.key && set(pair) == wanted)
            };
            ordered.iter().filter(same).map(|pair| Arc::clone(pair)).collect()
        });
        Self { exact, wildcard, first, unknown, acme, all }
    }

    /// All of them, in the order of the file.
    #[must_use]
    pub fn all(&self) -> &[Arc<Pair>] {
        &self.all
    }

    /// Whether there is a certificate for everyone, so that nobody need be refused for the name.
    #[must_use]
    pub fn takes_everyone(&self) -> bool {
        self.unknown == UnknownName::First && !self.first.is_empty()
    }

    /// The certificate for a client that asks for this name (lower case) and can check these signatures. `None` = it is refused.
    ///
    /// O(length of the name), no allocation but for names in upper case.
    #[must_use]
    pub fn find(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
        more: Option<&dyn MoreCertificates>,
    ) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name else {
            return best(&self.first, schemes);
        };
        if let Some(own) = self.own(name) {
            return best(own, schemes);
        }
        if self.acme
            && let Some(found) = more.and_then(|more| more.find(name))
        {
            return Some(found);
        }
        match self.unknown {
            UnknownName::First => best(&self.first, schemes),
            UnknownName::Refuse => None,
        }
    }

    /// Whether names without a certificate here are looked for elsewhere.
    #[must_use]
    pub const fn uses_acme(&self) -> bool {
        self.acme
    }

    /// Whether a client that asks for `asked` (lower case; empty: for none) gets one that is for `host` as well. A host that is an
    /// address is for whoever asks for no name: there is no other way to ask for it (RFC 6066 §3).
    #[must_use]
    pub fn are_together(&self, asked: &str, host: &str) -> bool {
        if asked == host {
            return true;
        }
        if asked.is_empty() && (host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok()) {
            return true;
        }
        let group = if asked.is_empty() { Some(&self.first) } else { self.own(asked) };
        let below = host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, rest)| rest);
        let is_for = |name: &String| name == host || (below.is_some() && name.strip_prefix("*.") == below);
        group.is_some_and(|group| group.iter().any(|pair| pair.leaf.names.iter().any(is_for)))
    }

    /// Whether one of the files is for the name.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        let lower = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        self.own(&lower).is_some()
    }

    fn own(&self, name: &str) -> Option<&Group> {
        self.exact.get(name).or_else(|| {
            let (label, rest) = name.split_once('.')?;
            if label.is_empty() { None } else { self.wildcard.get(rest) }
        })
    }
}

/// The first whose signature the client can check; if it can check none, the first, so that the handshake says why.
fn best(group: &Group, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
    let first = group.first()?;
    if group.len() == 1 {
        return Some(Arc::clone(&first.certified));
    }
    let fits = |pair: &&Arc<Pair>| pair.schemes.iter().any(|scheme| schemes.contains(scheme));
    let chosen = group.iter().find(fits).unwrap_or(first);
    Some(Arc::clone(&chosen.certified))
}

#[cfg(test)]
mod tests;
