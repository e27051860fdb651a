//! An frps's 404 is not the application's 404.
//!
//! frps answers an unknown host, a dead local service and a killed frpc with one and the same page, faster than any
//! application answers anything, so a balancer that takes it for an answer feeds the server without the tunnel. Here
//! the page is recognised, never shown, and the server is left out for that host and path for a while. What is
//! remembered is a preference: when nobody else is left, the servers left out are asked again.

use std::{collections::HashMap, hash::BuildHasher, time::Duration};

use lb_algos::Tick;

use crate::http1::{Known, Method, ResponseBody, ResponseHead};

/// Length of the built-in page of frps (0.61 to 0.71 at least).
const PAGE_LENGTH: u64 = 489;
/// FNV-1a of the built-in page.
const PAGE_FNV1A: u64 = 0x8b7b_5f5d_e5cd_6623;
/// A custom page longer than this is not looked at for a marker.
const MAX_PAGE: u64 = 64 * 1024;

/// What a response head says about being frps's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// It is the application's answer.
    None,
    /// The body must be seen: this many bytes.
    Body(usize),
    /// As much as an answer to HEAD can say: it looks like the page.
    Likely,
}

/// Judges a response head. `marker` is what the custom page of this frps contains, if one is configured.
#[must_use]
pub fn suspect(head: &ResponseHead, wire: &[u8], method: Method, marker: Option<&[u8]>) -> Suspicion {
    if head.status != 404 || !has_only_frps_fields(head, wire) {
        return Suspicion::None;
    }
    let length = match head.body {
        ResponseBody::Length(length) => length,
        ResponseBody::None if method == Method::Head => {
            let announced = head
                .fields
                .iter()
                .find(|field| field.known == Known::ContentLength)
                .and_then(|field| std::str::from_utf8(field.value.of(wire)).ok()?.parse::<u64>().ok());
            return match announced {
                Some(length) if marker.is_some() || length == PAGE_LENGTH => Suspicion::Likely,
                _ => Suspicion::None,
            };
        }
        ResponseBody::None | ResponseBody::Chunked | ResponseBody::UntilClose => return Suspicion::None,
    };
    let possible = if marker.is_some() { length <= MAX_PAGE } else { length == PAGE_LENGTH };
    match usize::try_from(length) {
        Ok(length) if possible => Suspicion::Body(length),
        _ => Suspicion::None,
    }
}

/// Whether a body is frps's page. With a marker only the marker counts, so that an application's imitation of the
/// built-in page stays the application's.
#[must_use]
pub fn is_page(body: &[u8], marker: Option<&[u8]>) -> bool {
    match marker {
        Some(marker) => memchr::memmem::find(body, marker).is_some(),
        None => body.len() as u64 == PAGE_LENGTH && fnv1a(body) == PAGE_FNV1A,
    }
}

/// frps sends Date, Content-Length, Content-Type `text/html…` and at most Connection; an application behind it
/// nearly always sends more.
fn has_only_frps_fields(head: &ResponseHead, wire: &[u8]) -> bool {
    head.fields.iter().all(|field| match field.known {
        Known::Date | Known::ContentLength | Known::Connection => true,
        Known::ContentType => field.value.of(wire).starts_with(b"text/html"),
        _ => false,
    })
}

/// Fowler–Noll–Vo 1a, 64 bit.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What one worker has learnt about which endpoint lacks or has which tunnel.
#[derive(Debug)]
pub struct Absences {
    hasher: foldhash::fast::RandomState,
    absent: HashMap<Scope, Vec<(u64, Tick)>, foldhash::fast::RandomState>,
    /// Direct-mapped: (scope, endpoint) pairs that answered with something else than the page.
    confirmed: Box<[u64]>,
}

/// A pool, host and first path segment: as fine as frps's `locations` usually are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope(u64);

/// How long an endpoint whose absence is over stays suspect: it gets requests again, but none that could not be sent on
/// if it still lacked the tunnel.
const SUSPECT: Duration = Duration::from_secs(300);
const MAX_SCOPES: usize = 16 * 1024;
const CONFIRMED_SLOTS: usize = 4096;

impl Default for Absences {
    fn default() -> Self {
        Self {
            hasher: foldhash::fast::RandomState::default(),
            absent: HashMap::default(),
            confirmed: vec![0; CONFIRMED_SLOTS].into_boxed_slice(),
        }
    }
}

impl Absences {
    /// The scope of a request.
    #[must_use]
    pub fn scope(&self, pool_slot: usize, host: &str, path: &[u8]) -> Scope {
        let end = memchr::memchr(b'/', path.get(1..).unwrap_or_default()).map_or(path.len(), |at| at + 1);
        Scope(self.hasher.hash_one((pool_slot, host, &path[..end])))
    }

    /// Whether nothing is left out anywhere: the usual case, and the cheap one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.absent.is_empty()
    }

    /// Whether `endpoint` is left out for `scope` at `now`.
    #[must_use]
    pub fn is_absent(&self, scope: Scope, endpoint: u64, now: Tick) -> bool {
        self.left_out_until(scope, endpoint).is_some_and(|until| until > now)
    }

    /// Whether `endpoint` was left out for `scope` and has not been confirmed since.
    #[must_use]
    pub fn is_suspect(&self, scope: Scope, endpoint: u64, now: Tick) -> bool {
        self.left_out_until(scope, endpoint).is_some_and(|until| until.saturating_add(SUSPECT) > now)
    }

    fn left_out_until(&self, scope: Scope, endpoint: u64) -> Option<Tick> {
        let list = self.absent.get(&scope)?;
        list.iter().find(|(number, _)| *number == endpoint).map(|(_, until)| *until)
    }

    /// Leaves `endpoint` out for `scope` until `until`.
    pub fn leave_out(&mut self, scope: Scope, endpoint: u64, now: Tick, until: Tick) {
        let slot = self.confirmed_slot(scope, endpoint);
        self.confirmed[slot.0] = 0;
        if self.absent.len() >= MAX_SCOPES && !self.absent.contains_key(&scope) {
            self.forget_expired(now);
            if self.absent.len() >= MAX_SCOPES {
                // A flood of hosts: what is forgotten costs one extra attempt, memory would cost more.
                self.absent.clear();
            }
        }
        let list = self.absent.entry(scope).or_default();
        list.retain(|(number, _)| *number != endpoint);
        list.push((endpoint, until));
    }

    /// Drops what is over.
    pub fn forget_expired(&mut self, now: Tick) {
        self.absent.retain(|_, list| {
            list.retain(|(_, until)| until.saturating_add(SUSPECT) > now);
            !list.is_empty()
        });
    }

    /// `endpoint` gave an application's answer for `scope`.
    pub fn confirm(&mut self, scope: Scope, endpoint: u64) {
        let (slot, value) = self.confirmed_slot(scope, endpoint);
        self.confirmed[slot] = value;
        if let Some(list) = self.absent.get_mut(&scope) {
            list.retain(|(number, _)| *number != endpoint);
            if list.is_empty() {
                self.absent.remove(&scope);
            }
        }
    }

    /// Whether `endpoint` gave an application's answer for `scope` lately (may forget, never invents but for a 64-bit
    /// hash collision).
    #[must_use]
    pub fn is_confirmed(&self, scope: Scope, endpoint: u64) -> bool {
        let (slot, value) = self.confirmed_slot(scope, endpoint);
        self.confirmed[slot] == value
    }

    fn confirmed_slot(&self, scope: Scope, endpoint: u64) -> (usize, u64) {
        let hash = self.hasher.hash_one((scope.0, endpoint)) | 1; // 0 marks an empty slot
        let slot = usize::try_from(hash >> 32).unwrap_or_default() % CONFIRMED_SLOTS;
        (slot, hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn an_endpoint_is_left_out_for_one_host_and_first_segment_until_its_time_is_over() {
        let mut absences = Absences::default();
        let api = absences.scope(0, "a.test", b"/api/v1/x");
        assert_eq!(api, absences.scope(0, "a.test", b"/api/v2"));
        for other in [
            absences.scope(0, "a.test", b"/"),
            absences.scope(0, "b.test", b"/api/"),
            absences.scope(1, "a.test", b"/api/"),
        ] {
            assert_ne!(api, other);
        }
        absences.leave_out(api, 7, at(0), at(5));
        assert!(absences.is_absent(api, 7, at(4)) && !absences.is_absent(api, 7, at(5)));
        assert!(!absences.is_absent(api, 8, at(4)));
        absences.forget_expired(at(5));
        assert!(
            absences.is_suspect(api, 7, at(5)) && !absences.is_suspect(api, 8, at(5)),
            "not confirmed since"
        );
        absences.forget_expired(at(305));
        assert!(absences.is_empty());
    }

    #[test]
    fn an_answer_confirms_and_the_page_takes_it_back() {
        let mut absences = Absences::default();
        let scope = absences.scope(0, "a.test", b"/");
        assert!(!absences.is_confirmed(scope, 7));
        absences.leave_out(scope, 7, at(0), at(5));
        absences.confirm(scope, 7);
        assert!(
            absences.is_confirmed(scope, 7) && !absences.is_absent(scope, 7, at(1)) && absences.is_empty()
        );
        absences.leave_out(scope, 7, at(1), at(6));
        assert!(!absences.is_confirmed(scope, 7));
    }

    #[test]
    fn a_flood_of_hosts_does_not_grow_the_memory() {
        let mut absences = Absences::default();
        for n in 0..3 * MAX_SCOPES {
            let scope = absences.scope(0, &format!("{n}.test"), b"/");
            absences.leave_out(scope, 1, at(0), at(5));
            assert!(absences.absent.len() <= MAX_SCOPES);
        }
    }

    #[test]
    fn with_a_marker_only_the_marker_counts() {
        assert!(is_page(b"<p>gone marker-1</p>", Some(b"marker-1")));
        assert!(!is_page(b"<p>gone</p>", Some(b"marker-1")));
        assert!(!is_page(&[b'x'; 489], None), "the length alone proves nothing");
    }
}
