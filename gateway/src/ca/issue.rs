//! Leaves: issuing for names that have none, and renewing.

use std::{collections::BTreeSet, net::IpAddr, thread};

use rcgen::{Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::{Duration, OffsetDateTime};

use super::{
    Authority, CaError,
    authority::check_trust_domain,
    files::{self, Staged},
    index::{Entry, Identity, Standing, Use},
    names, sign,
};

/// Files that are waited for at once.
const THREADS: usize = 16;

/// For whom certificates are wanted, and what they say. `{name}` in `dns` and `uri` becomes the name.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Each once.
    pub names: Vec<String>,
    /// It shows who dials. Default, unless `server`.
    pub client: bool,
    /// It shows who is dialled. Without `dns` and `ip` it is for the host NAME.
    pub server: bool,
    /// DNS names; the first label may be `*`.
    pub dns: Vec<String>,
    /// Addresses.
    pub ip: Vec<IpAddr>,
    /// Instead of `spiffe://` trust domain `/NAME`, which clients get.
    pub uri: Option<String>,
    /// Instead of the authority's.
    pub trust_domain: Option<String>,
    /// How long they are valid.
    pub days: u32,
    /// Names that have one get a new one.
    pub renew: bool,
}

/// Which certificates are renewed, and how.
#[derive(Debug, Clone, Default)]
pub struct Renewal {
    /// Empty = all that aren't revoked.
    pub names: Vec<String>,
    /// Only those that end before this has passed.
    pub within: Option<std::time::Duration>,
    /// The new certificate is for the old key.
    pub keep_key: bool,
}

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It has a certificate that it hadn't.
    Issued,
    /// It had one already that says the same.
    Kept,
}

impl Authority {
    /// Issues a certificate for each name that has none, in the order of the names. All or nothing, as far as what is asked for goes.
    ///
    /// A name keeps the one it has if that is valid and says the same. About 0.5 ms a name, and the disk's time for five files.
    ///
    /// # Errors
    /// Names that have one that says something else, or that are revoked, unless `renew`; bad names and hosts; files.
    pub fn issue(&mut self, wish: &Wish, now: OffsetDateTime) -> Result<Vec<(Entry, Done)>, CaError> {
        let mut wanted = Vec::new();
        let (mut kept, mut differs, mut revoked) = (Vec::new(), Vec::new(), Vec::new());
        let newest = self.index.newest();
        for name in &wish.names {
            names::check(name)?;
            let identity = self.identity(wish, name)?;
            let Some(&old) = newest.get(&**name).filter(|_| !wish.renew) else {
                wanted.push(Leaf { name: name.clone(), identity, days: wish.days, key: None });
                continue;
            };
            match self.index.standing(old, now) {
                Standing::Revoked => revoked.push(name.clone()),
                Standing::Valid | Standing::Ending if old.identity != identity => {
                    differs.push(format!(
                        "{name} has {}, not {}",
                        describe(&old.identity),
                        describe(&identity)
                    ));
                }
                Standing::Valid | Standing::Ending if self.is_live(old) => kept.push(old.clone()),
                Standing::Valid | Standing::Ending | Standing::Expired | Standing::Untrusted => {
                    wanted.push(Leaf { name: name.clone(), identity, days: wish.days, key: None });
                }
            }
        }
        if !revoked.is_empty() {
            return Err(CaError::Revoked(revoked));
        }
        if !differs.is_empty() {
            return Err(CaError::Differs(differs));
        }
        let issued = self.sign_leaves(wanted, now)?;
        let done = issued.into_iter().map(|entry| (entry, Done::Issued));
        let mut done: Vec<_> = done.chain(kept.into_iter().map(|entry| (entry, Done::Kept))).collect();
        done.sort_by_key(|(entry, _)| wish.names.iter().position(|name| *name == entry.name));
        Ok(done)
    }

    /// Replaces certificates by such that say the same, end later, and are signed by the newest root. The old ones stay valid to
    /// their end.
    ///
    /// # Errors
    /// Unknown and revoked names (nothing is renewed then); files.
    pub fn renew(&mut self, renewal: &Renewal, now: OffsetDateTime) -> Result<Vec<Entry>, CaError> {
        let newest = self.index.newest();
        let unknown: Vec<_> =
            renewal.names.iter().filter(|name| !newest.contains_key(&***name)).cloned().collect();
        if !unknown.is_empty() {
            return Err(CaError::Unknown(unknown));
        }
        let is_revoked = |name: &str| newest.get(name).is_some_and(|entry| entry.revoked.is_some());
        let revoked: Vec<_> = renewal.names.iter().filter(|name| is_revoked(name)).cloned().collect();
        if !revoked.is_empty() {
            return Err(CaError::Revoked(revoked));
        }
        let named: BTreeSet<&str> = if renewal.names.is_empty() {
            newest.keys().copied().filter(|name| !is_revoked(name)).collect()
        } else {
            renewal.names.iter().map(|name| &**name).collect()
        };
        let mut wanted = Vec::new();
        for name in named {
            let Some(old) = newest.get(name) else { continue };
            if renewal.within.is_some_and(|within| old.not_after > now + within) {
                continue;
            }
            let key = if renewal.keep_key { Some(self.key_of(name)?) } else { None };
            wanted.push(Leaf { name: name.to_owned(), identity: old.identity.clone(), days: old.days, key });
        }
        self.sign_leaves(wanted, now)
    }

    fn sign_leaves(&mut self, wanted: Vec<Leaf>, now: OffsetDateTime) -> Result<Vec<Entry>, CaError> {
        let Some((number, ends)) = self.index.signing().map(|root| (root.number, root.not_after)) else {
            let why = "none of its roots signs".into();
            return Err(CaError::Damaged { path: self.folder.join("index.json"), why });
        };
        if ends <= now + Duration::hours(1) {
            return Err(CaError::RootEnds(number));
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let issuer = self.issuer(number)?;
        let roots = files::read_text(&self.trust())?;
        let made = side_by_side(wanted, |leaf| self.sign_leaf(leaf, &issuer, number, (now, ends)))?;
        let entries: Vec<Entry> = made.iter().map(|(entry, _)| entry.clone()).collect();
        self.index.certificates.extend(entries.iter().cloned());
        self.index.prune(now);
        // Known before it can be used: nothing is ever out there that can't be revoked by name.
        self.save()?;
        side_by_side(made, |(entry, staged)| {
            let home = self.issued(&entry.name);
            files::replace_unsynced(&home.join("ca.pem"), &roots, files::PUBLIC)?;
            staged.go_live()
        })?;
        Ok(entries)
    }

    fn sign_leaf(
        &self,
        leaf: Leaf,
        issuer: &Issuer<'_, KeyPair>,
        root: u32,
        (now, root_ends): (OffsetDateTime, OffsetDateTime),
    ) -> Result<(Entry, Staged), CaError> {
        let key = leaf.key.map_or_else(|| sign::new_key(self.index.key), Ok)?;
        // A leaf that outlives its root is a promise that nobody keeps.
        let not_after = (now + Duration::days(leaf.days.into())).min(root_ends);
        let (certificate, serial) = sign::leaf(issuer, &leaf.name, &leaf.identity, &key, now, not_after)?;
        let staged = files::stage(&self.issued(&leaf.name), &certificate, &key.serialize_pem())?;
        let Leaf { name, identity, days, .. } = leaf;
        let entry = Entry { name, serial, root, identity, days, issued: now, not_after, revoked: None };
        Ok((entry, staged))
    }

    /// The key that a name uses.
    fn key_of(&self, name: &str) -> Result<KeyPair, CaError> {
        let path = self.issued(name).join("key.pem");
        KeyPair::from_pem(&files::read_text(&path)?)
            .map_err(|error| CaError::Damaged { path, why: format!("no key that can be kept: {error}") })
    }

    /// Whether this is the certificate in its name's folder: a command that was cut off may have left another one, or half.
    fn is_live(&self, entry: &Entry) -> bool {
        let home = self.issued(&entry.name);
        let whole = home.join("key.pem").exists() && home.join("ca.pem").exists();
        let serial = CertificateDer::from_pem_file(home.join("cert.pem")).ok().and_then(|der| {
            let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
            Some(sign::hex(certificate.raw_serial()))
        });
        whole && serial.is_some_and(|serial| serial.ends_with(&entry.serial))
    }

    fn identity(&self, wish: &Wish, name: &str) -> Result<Identity, CaError> {
        let mut uses = Vec::new();
        if wish.client || !wish.server {
            uses.push(Use::Client);
        }
        if wish.server {
            uses.push(Use::Server);
        }
        let mut dns: Vec<_> =
            wish.dns.iter().map(|host| names::fill(host, name).to_ascii_lowercase()).collect();
        if wish.server && wish.dns.is_empty() && wish.ip.is_empty() {
            dns.push(name.to_ascii_lowercase());
        }
        dns.iter().try_for_each(|host| check_host(host))?;
        let uri = match (&wish.uri, &wish.trust_domain) {
            (Some(uri), _) => Some(names::fill(uri, name)),
            (None, Some(domain)) => {
                check_trust_domain(domain)?;
                Some(format!("spiffe://{domain}/{name}"))
            }
            (None, None) if uses.contains(&Use::Client) => {
                Some(format!("spiffe://{}/{name}", self.index.trust_domain))
            }
            (None, None) => None,
        };
        if let Some(uri) = &uri {
            check_uri(uri)?;
        }
        Ok(Identity { uses, dns, ip: wish.ip.clone(), uri })
    }
}

struct Leaf {
    name: String,
    identity: Identity,
    days: u32,
    key: Option<KeyPair>,
}

/// Does it with all of them, several at once, results in their order: what takes time is waiting for the disk, which writes many files
/// at once as fast as one.
fn side_by_side<T: Send, R: Send>(
    all: Vec<T>,
    act: impl Fn(T) -> Result<R, CaError> + Sync,
) -> Result<Vec<R>, CaError> {
    let share = all.len().div_ceil(THREADS).max(1);
    let mut all = all.into_iter();
    thread::scope(|scope| {
        let mut tasks = Vec::new();
        loop {
            let some: Vec<T> = all.by_ref().take(share).collect();
            if some.is_empty() {
                break;
            }
            let act = &act;
            tasks.push(scope.spawn(move || some.into_iter().map(act).collect::<Result<Vec<R>, CaError>>()));
        }
        let mut results = Vec::new();
        for task in tasks {
            let some = task.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            results.extend(some?);
        }
        Ok(results)
    })
}

fn check_host(host: &str) -> Result<(), CaError> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let plain = host.strip_prefix("*.").unwrap_or(host);
    if host.len() <= 253 && plain.split('.').all(label) && plain.parse::<IpAddr>().is_err() {
        return Ok(());
    }
    let said = format!("{host:?} can't be a DNS name of a certificate");
    Err(CaError::argument(
        said,
        "--dns takes a host such as gate.example.com or *.example.com, --ip an address",
    ))
}

fn check_uri(uri: &str) -> Result<(), CaError> {
    let rest = uri.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, rest)| rest);
    if rest.is_some_and(|rest| !rest.is_empty())
        && uri.bytes().all(|b| b.is_ascii_graphic())
        && uri.len() <= 2048
    {
        return Ok(());
    }
    let said = format!("{uri:?} can't be a URI of a certificate");
    Err(CaError::argument(said, "something like spiffe://frp.example.com/{name}"))
}

/// In words: `client spiffe://frp/a`.
pub(super) fn describe(identity: &Identity) -> String {
    let uses = identity.uses.iter().map(|one| match one {
        Use::Client => "client".to_owned(),
        Use::Server => "server".to_owned(),
    });
    let addresses = identity.ip.iter().map(ToString::to_string);
    let all = uses.chain(identity.dns.iter().cloned()).chain(addresses).chain(identity.uri.clone());
    all.collect::<Vec<_>>().join(" ")
}
