//! Asks one frps for its live tunnels, again and again, and turns each answer into an event. Between two listings it looks at
//! single tunnels, when somebody says that something happened to them or wants to be sure of one.

mod looks;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use frp_gateway_config::model::FrpsAdmin;
use lb_algos::{Rng, Tick};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep_until, timeout},
};

use self::looks::Looks;
use super::{
    Listing, Proxy,
    admin::{AdminClient, AdminError},
    ask::{Ask, Verdict},
};
use crate::{
    clock,
    control::{Event, Handle, state::ServerKey},
};

/// Deadline of one listing, all its pages included.
pub const LISTING_DEADLINE: Duration = Duration::from_secs(5);
/// Deadline of a look at one proxy.
const LOOK_DEADLINE: Duration = Duration::from_secs(1);
/// How long a claimed proxy is looked for: after that it has lapsed.
pub const CLAIM_DEADLINE: Duration = Duration::from_secs(5);
/// What is seen within this time becomes one event.
const GATHER: Duration = Duration::from_millis(2);
/// A whole listing follows single looks after this long.
const SETTLE: Duration = Duration::from_millis(500);
/// Looks at once.
const MOST_AT_ONCE: usize = 16;
/// With more names than this waiting, one listing is cheaper.
const LIST_INSTEAD: usize = 64;
/// After a failed call nothing is asked for this long.
const PAUSE: Duration = Duration::from_millis(500);

/// What a poller needs.
#[derive(Debug)]
pub struct Poller {
    /// Name of the frps.
    pub frps: String,
    /// Which server it is.
    pub server: ServerKey,
    /// Where and how often.
    pub admin: FrpsAdmin,
    /// Gets the events.
    pub control: Handle,
    /// Questions.
    pub asked: mpsc::UnboundedReceiver<Ask>,
    /// Chance.
    pub rng: Rng,
}

enum Done {
    Listed { begun: (Tick, Instant), result: Result<Listing, AdminError> },
    Looked { name: String, result: Result<Option<Proxy>, AdminError> },
}

/// What was seen and not told yet.
#[derive(Debug, Default)]
struct Outbox {
    online: Vec<Proxy>,
    gone: Vec<String>,
    lapsed: Vec<String>,
    since: Option<Instant>,
}

impl Poller {
    /// Polls until the task is aborted or the control plane is gone. The first listing begins at once.
    pub async fn run(mut self) {
        let client = AdminClient::new(&self.admin);
        let mut calls: JoinSet<Done> = JoinSet::new();
        let mut looks = Looks::default();
        let mut outbox = Outbox::default();
        let mut next_listing = Instant::now();
        let mut earliest_listing = next_listing;
        let mut listing = false;
        let mut paused_until: Option<Instant> = None;
        // What single looks said after the running listing began: it may be older than they are.
        let mut newer: HashMap<String, Option<Proxy>> = HashMap::new();
        loop {
            let now = Instant::now();
            if looks.waiting() > LIST_INSTEAD {
                next_listing = next_listing.min(earliest_listing.max(now));
            }
            if !listing && next_listing <= now {
                (listing, next_listing) = (true, now + jittered(self.admin.interval, &mut self.rng));
                newer.clear();
                looks.listing_begins();
                let client = client.clone();
                let begun = (clock::now(), now);
                calls.spawn(
                    async move { Done::Listed { begun, result: list(&client, LISTING_DEADLINE).await } },
                );
            }
            if paused_until.is_some_and(|until| until <= now) {
                paused_until = None;
            }
            if paused_until.is_none() && looks.waiting() <= LIST_INSTEAD {
                for name in looks.due(now, MOST_AT_ONCE) {
                    let client = client.clone();
                    calls.spawn(async move {
                        let look = timeout(LOOK_DEADLINE, client.find(&name, None)).await;
                        let result = look.unwrap_or(Err(AdminError::Timeout(LOOK_DEADLINE)));
                        Done::Looked { name, result }
                    });
                }
            }
            if outbox.since.is_some_and(|since| looks.in_flight() == 0 || since + GATHER <= now)
                && !self.tell(std::mem::take(&mut outbox)).await
            {
                return;
            }
            let wake = [
                (!listing).then_some(next_listing),
                paused_until,
                looks.next_due().filter(|_| paused_until.is_none()),
                outbox.since.map(|since| since + GATHER),
            ];
            let wake = wake.into_iter().flatten().min().unwrap_or(now + self.admin.interval);
            tokio::select! {
                biased;
                done = calls.join_next(), if !calls.is_empty() => match done {
                    Some(Ok(Done::Listed { begun, result })) => {
                        listing = false;
                        let took = begun.1.elapsed();
                        earliest_listing = Instant::now() + 4 * took;
                        paused_until = None;
                        if result.is_err() {
                            looks.all_unknown();
                            paused_until = Some(Instant::now() + PAUSE);
                        }
                        if !self.tell_listing(begun.0, result, &mut newer, &mut looks, &mut outbox).await {
                            return;
                        }
                    }
                    Some(Ok(Done::Looked { name, result })) => {
                        if result.is_err() {
                            // One that doesn't answer would keep everybody waiting: all are told, and it is left alone for a moment.
                            looks.failed(&name, Instant::now());
                            looks.all_unknown();
                            paused_until = Some(Instant::now() + PAUSE);
                        }
                        if let Ok(found) = result {
                            if listing {
                                newer.insert(name.clone(), found.clone());
                            }
                            let lapsed = looks.looked(&name, found.as_ref(), Instant::now());
                            outbox.put(name, found, lapsed);
                        }
                    }
                    // A panic of ours in a call: as if it had not been made.
                    Some(Err(_)) | None => listing = listing && !calls.is_empty(),
                },
                ask = self.asked.recv() => match ask {
                    Some(Ask::Look { names, claimed }) => {
                        let until = claimed.then(|| Instant::now() + CLAIM_DEADLINE);
                        for name in names {
                            looks.want(name, until, Instant::now());
                        }
                        // Only a whole listing takes away the doubt whose ports have moved.
                        next_listing = next_listing.min(earliest_listing.max(Instant::now() + SETTLE));
                    }
                    Some(Ask::List) => next_listing = next_listing.min(earliest_listing.max(Instant::now())),
                    Some(Ask::Verify { reply, .. }) if paused_until.is_some() => {
                        // Whoever asked may have gone.
                        let _gone = reply.send(Verdict::Unknown);
                    }
                    Some(Ask::Verify { tunnel, reply }) => looks.verify(tunnel, reply, Instant::now()),
                    None => return,
                },
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    async fn tell_listing(
        &self,
        begun: Tick,
        result: Result<Listing, AdminError>,
        newer: &mut HashMap<String, Option<Proxy>>,
        looks: &mut Looks,
        outbox: &mut Outbox,
    ) -> bool {
        let event = match result {
            Ok(mut listing) => {
                if !newer.is_empty() {
                    listing.proxies.retain(|proxy| !newer.contains_key(&proxy.name));
                    listing.proxies.extend(newer.drain().filter_map(|(_, found)| found));
                    listing.proxies.sort();
                }
                for lapsed in looks.listed(&listing.proxies, Instant::now()) {
                    outbox.lapsed.push(lapsed);
                    outbox.since.get_or_insert_with(Instant::now);
                }
                Event::FrpsListed { frps: self.frps.clone(), server: self.server.clone(), listing, begun }
            }
            Err(error) => Event::FrpsUnreachable {
                frps: self.frps.clone(),
                server: self.server.clone(),
                reason: error.to_string(),
            },
        };
        self.control.send(event).await
    }

    async fn tell(&self, outbox: Outbox) -> bool {
        let Outbox { online, gone, lapsed, since: _ } = outbox;
        let (frps, server) = (self.frps.clone(), self.server.clone());
        self.control.send(Event::TunnelsSeen { frps, server, online, gone, lapsed }).await
    }
}

impl Outbox {
    fn put(&mut self, name: String, found: Option<Proxy>, lapsed: bool) {
        self.since.get_or_insert_with(Instant::now);
        // The last word counts.
        self.online.retain(|proxy| proxy.name != name);
        self.gone.retain(|gone| *gone != name);
        if lapsed {
            self.lapsed.push(name.clone());
        }
        match found {
            Some(proxy) => self.online.push(proxy),
            None => self.gone.push(name),
        }
    }
}

/// One listing within `deadline`.
///
/// # Errors
/// See [`AdminError`].
pub async fn list(client: &AdminClient, deadline: Duration) -> Result<Listing, AdminError> {
    timeout(deadline, client.list()).await.unwrap_or(Err(AdminError::Timeout(deadline)))
}

/// `interval` ± 10 %, so that many pollers (or gateways) don't march in step.
#[must_use]
pub fn jittered(interval: Duration, rng: &mut Rng) -> Duration {
    interval.mul_f64(0.9 + 0.2 * rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_tenth() {
        let mut rng = Rng::seeded(7);
        let waits: Vec<_> =
            (0..1000).map(|_| jittered(Duration::from_secs(2), &mut rng).as_millis()).collect();
        assert!(waits.iter().all(|ms| (1800..=2200).contains(ms)), "{waits:?}");
        assert!(waits.iter().max() > Some(&2150) && waits.iter().min() < Some(&1850), "it does vary");
    }
}
