//! What is ordered when: the one task that decides.
//!
//! It looks whenever the configuration, the tunnels, a wish of a handshake or the clock give reason to. Orders run beside it, at most
//! [`MOST_ORDERS`] at once and one for each name. Nothing that goes wrong here touches what is in force.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use frp_gateway_config::model::{self, Config};
use lb_algos::Rng;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Acme, Inbox,
    authority::{Authority, Failure, blocking, proof_certificate},
    certificates::{Held, Map},
    names, patience,
    proofs::{ALPN, Question},
    stats::Ended,
    storage::{LEASE, Print, Storage, Stored},
    wanted::{Claim, Wanted, wanted},
};
use crate::{control::task::Board, telemetry::audit::AuditHandle, tls};

/// Orders at once.
pub const MOST_ORDERS: usize = 4;
/// How often the folder is looked at for what other gateways have put there.
const LOOK: Duration = Duration::from_secs(5);
/// The same, while another gateway orders something that we want.
const LOOK_FOR: Duration = Duration::from_millis(500);
/// Configuration and tunnels are looked at once in this time at most.
const FOLLOW: Duration = Duration::from_millis(100);
/// Names asked for in vain that are looked at together.
const MOST_WISHES: usize = 128;
/// Shortest sleep, whatever there is to do.
const NAP: Duration = Duration::from_millis(10);
/// Longest pause before anything is ordered after the authority said that it is too much.
const PAUSE: Duration = Duration::from_secs(60);
/// An order is given up after that time.
const LONGEST: Duration = Duration::from_secs(600);
/// Certificates that ended this long ago, and that nobody may have any more, are forgotten.
const FORGET: Duration = Duration::from_secs(30 * 24 * 3600);
/// Refusals are told once in this time for each name.
const TELL_AGAIN: Duration = Duration::from_secs(3600);
/// Refused names that are remembered, so as not to be told again.
const MOST_TOLD: usize = 1_000;

/// What the manager works with.
#[derive(Debug)]
pub struct Parts {
    /// What is published.
    pub acme: Acme,
    /// The present configuration and tunnels.
    pub board: Board,
    /// Certificates of files.
    pub store: Arc<tls::Store>,
    /// Who is told.
    pub audit: AuditHandle,
    /// Chance for this process.
    pub rng: Rng,
}

/// Runs until aborted.
pub async fn run(parts: Parts, inbox: Inbox) {
    let Inbox { mut wishes, mut questions } = inbox;
    let mut manager = Manager {
        owner: parts.rng.clone().next_u64(),
        parts,
        authority: None,
        names: HashMap::new(),
        wanted: Wanted::new(),
        seen: HashMap::new(),
        told: HashMap::new(),
        orders: JoinSet::new(),
        questions: JoinSet::new(),
        look_at: Instant::now(),
        not_before: Instant::now(),
        tidied: None,
        followed: Instant::now(),
        follow_at: None,
    };
    let changed = Arc::clone(&manager.parts.acme.changed);
    manager.follow().await;
    let (mut batch, mut hear_at) = (Vec::new(), Instant::now());
    loop {
        let hears = Instant::now() >= hear_at;
        let wake = if hears { manager.wake() } else { manager.wake().min(hear_at) };
        tokio::select! {
            () = changed.notified() => manager.changed().await,
            // Strangers may ask for any number of names: they cost a look every so often, not one each.
            _ = wishes.recv_many(&mut batch, MOST_WISHES), if hears => {
                batch.drain(..).for_each(|name| manager.wish(&name));
                hear_at = Instant::now() + FOLLOW;
            }
            Some(question) = questions.recv() => manager.answer(question),
            Some(ended) = manager.orders.join_next(), if !manager.orders.is_empty() => match ended {
                Ok((name, ended)) => manager.ended(&name, ended),
                Err(error) => manager.broken(&error.to_string()),
            },
            Some(_) = manager.questions.join_next(), if !manager.questions.is_empty() => {}
            () = sleep_until(wake) => {}
        }
        manager.act().await;
    }
}

struct Manager {
    owner: u64,
    parts: Parts,
    authority: Option<Arc<Authority>>,
    names: HashMap<Arc<str>, State>,
    wanted: Wanted,
    /// What was read from the folder.
    seen: HashMap<String, Print>,
    /// Refusals that were told.
    told: HashMap<Box<str>, Instant>,
    orders: JoinSet<(Arc<str>, Done)>,
    questions: JoinSet<()>,
    /// When the folder is looked at next.
    look_at: Instant,
    /// No order before that.
    not_before: Instant,
    tidied: Option<Instant>,
    /// When configuration and tunnels were looked at last.
    followed: Instant,
    /// When they are looked at next, if they have changed.
    follow_at: Option<Instant>,
}

/// Where a name stands.
#[derive(Debug)]
struct State {
    /// A handshake asked for it, or it has had a certificate before.
    asked: bool,
    failures: u32,
    /// Nothing is done for it before that.
    not_before: Instant,
    /// When its certificate is renewed.
    due: Option<SystemTime>,
    /// When the authority is asked for its opinion on that.
    ask_at: Option<Instant>,
    work: Option<Work>,
    /// Another gateway orders it.
    elsewhere: bool,
}

#[derive(Debug)]
struct Work {
    ordering: bool,
    handle: AbortHandle,
}

/// What a task came to.
enum Done {
    /// Ordered by us.
    New(Held, bool),
    /// Another gateway had it done before.
    Shared(Held),
    /// Another gateway orders it now.
    Elsewhere,
    Failed(Failure),
    /// What the authority says of renewing.
    Renewal(Option<((SystemTime, SystemTime), Duration)>),
    NoRenewal,
}

impl Manager {
    /// Something has changed. Tunnels that flap by the hundred cost a look every so often, not one each.
    async fn changed(&mut self) {
        let next = self.followed + FOLLOW;
        if Instant::now() >= next {
            self.follow().await;
        } else {
            self.follow_at = Some(next);
        }
    }

    /// Goes by the present configuration and tunnels.
    async fn follow(&mut self) {
        (self.followed, self.follow_at) = (Instant::now(), None);
        let state = self.parts.board.load_full();
        let Some(config) = &state.config else { return };
        self.adopt(config).await;
        self.wanted = if self.authority.is_some() { wanted(config, &state.directory) } else { Wanted::new() };
        let store = &self.parts.store;
        self.wanted.retain(|name, _| store.lacks(name));
        for name in self.wanted.keys() {
            self.names.entry(Arc::clone(name)).or_insert_with(State::new);
        }
        let (wanted, held) = (&self.wanted, self.parts.acme.certificates.held());
        self.names.retain(|name, state| {
            wanted.contains_key(name) || held.contains_key(name) || state.work.is_some()
        });
    }

    /// Goes by these settings; what other settings brought is forgotten.
    async fn adopt(&mut self, config: &Arc<Config>) {
        let listeners = config.listeners.iter().filter(|one| one.tls.as_ref().is_some_and(|tls| tls.acme));
        self.parts.acme.certificates.set_listeners(listeners.map(|one| one.name.clone()).collect());
        let Some(wish) = &config.acme else {
            if self.authority.take().is_some() {
                self.forget();
                self.parts.acme.certificates.put(Map::default());
            }
            self.parts.acme.proofs.set_from(false, &[]);
            return;
        };
        self.parts.acme.proofs.set_from(true, &wish.from);
        if self.authority.as_ref().is_some_and(|present| present.settings == *wish) {
            return;
        }
        let (folder, directory, owner) = (wish.storage.clone(), wish.directory.clone(), self.owner);
        let opened = blocking(move || Storage::open(&folder, &directory, owner)).await;
        let storage = match opened {
            Ok(Ok(storage)) => storage,
            Ok(Err(error)) => return self.no_storage(wish, &error.to_string()),
            Err(failure) => return self.no_storage(wish, &failure.to_string()),
        };
        let place = |acme: &model::Acme| (acme.storage.clone(), acme.directory.clone());
        if self.authority.as_ref().is_some_and(|present| place(&present.settings) != place(wish)) {
            // What is in force stays until it is renewed.
            self.forget();
        }
        let proofs = Arc::clone(&self.parts.acme.proofs);
        self.authority = Some(Arc::new(Authority::new(wish.clone(), storage, proofs)));
        self.look().await;
    }

    fn no_storage(&mut self, wish: &model::Acme, error: &str) {
        let folder = wish.storage.display();
        tracing::error!(%folder, error, "acme.storage cannot be used: no certificate is ordered or renewed");
        self.look_at = Instant::now() + PAUSE;
        if self.authority.take().is_some() {
            self.forget();
        }
    }

    fn forget(&mut self) {
        // What they come to is for nobody.
        self.orders = JoinSet::new();
        self.names.clear();
        self.seen.clear();
    }

    /// Somebody asked for a name that has no certificate.
    fn wish(&mut self, name: &str) {
        if self.authority.is_none() {
            return;
        }
        if self.wanted.contains_key(name) {
            if let Some(state) = self.names.get_mut(name) {
                state.asked = true;
            }
            return;
        }
        let why = match names::fit(name) {
            Err(unfit) => unfit.to_string(),
            Ok(()) => "neither acme.names nor a route nor a live tunnel names it".to_owned(),
        };
        self.refuse(name, None, &why);
    }

    fn refuse(&mut self, name: &str, user: Option<&str>, why: &str) {
        let now = Instant::now();
        if self.told.get(name).is_some_and(|told| now.duration_since(*told) < TELL_AGAIN) {
            return;
        }
        self.parts.acme.stats.count(Ended::Refused);
        if self.told.len() >= MOST_TOLD {
            self.told.retain(|_, told| now.duration_since(*told) < TELL_AGAIN);
            if self.told.len() >= MOST_TOLD {
                return; // a flood of names: it is counted
            }
        }
        self.told.insert(name.into(), now);
        tracing::info!(name, user, reason = why, "no certificate is ordered");
        self.parts.audit.certificate("certificate_refused", name, user, Some(why));
    }

    /// Whether another gateway knows a proof.
    fn answer(&mut self, Question { key, answer }: Question) {
        let Some(authority) = &self.authority else { return };
        let (storage, proofs) = (Arc::clone(&authority.storage), Arc::clone(&self.parts.acme.proofs));
        self.questions.spawn(async move {
            let asked = key.clone();
            let proof = blocking(move || storage.proof(&asked)).await.ok().flatten();
            let name = key.strip_suffix(ALPN).zip(proof.as_deref());
            let shown = name.and_then(|(name, proof)| {
                let certificate = proof_certificate(name, &URL_SAFE_NO_PAD.decode(proof).ok()?).ok()?;
                proofs.put_certificate(name, &certificate);
                Some((name, certificate))
            });
            // Whoever asked may have gone.
            drop(answer.send(proof.as_deref().map(Into::into)));
            if let Some((name, certificate)) = shown {
                tokio::time::sleep(PAUSE).await;
                proofs.remove_certificate(name, &certificate);
            }
        });
    }

    /// When there is something to do, if nothing happens before.
    fn wake(&self) -> Instant {
        let now = (Instant::now(), SystemTime::now());
        let far = self.follow_at.unwrap_or(now.0 + Duration::from_secs(3600));
        if self.authority.is_none() {
            return far.min(self.look_at.max(now.0 + LOOK));
        }
        // Where there is no room, the end of a task wakes us.
        let (full, busy) = (self.ordering() >= MOST_ORDERS, self.orders.len() >= MOST_ORDERS);
        let each = self.names.iter().filter(|(_, state)| state.work.is_none()).map(|(name, state)| {
            let order = if full { None } else { self.order_at(name, state, now) };
            let ask = if busy { None } else { self.ask_at(name, state) };
            order.unwrap_or(far).min(ask.unwrap_or(far))
        });
        let next = if self.parts.board.load().draining { None } else { each.min() };
        next.unwrap_or(far).min(far).min(self.look_at).max(now.0 + NAP)
    }

    /// When the authority is asked what it thinks of renewing this name's certificate.
    fn ask_at(&self, name: &Arc<str>, state: &State) -> Option<Instant> {
        state.ask_at.filter(|_| self.wanted.contains_key(name))
    }

    /// When a certificate is ordered for this name.
    fn order_at(&self, name: &Arc<str>, state: &State, now: (Instant, SystemTime)) -> Option<Instant> {
        let claim = self.wanted.get(name)?;
        let wish = match state.due {
            Some(due) => now.0 + due.duration_since(now.1).unwrap_or_default(),
            None if state.asked || claim.at_once() => now.0,
            None => return None,
        };
        Some(wish.max(state.not_before).max(self.not_before))
    }

    fn ordering(&self) -> usize {
        self.names.values().filter(|state| state.work.as_ref().is_some_and(|work| work.ordering)).count()
    }

    /// Does what is due, and tells what is due next.
    async fn act(&mut self) {
        self.act_now().await;
        let wanted = self.names.iter().filter(|(name, _)| self.wanted.contains_key(*name));
        self.parts.acme.certificates.set_next_renewal(wanted.filter_map(|(_, state)| state.due).min());
    }

    async fn act_now(&mut self) {
        if self.follow_at.is_some_and(|at| at <= Instant::now()) {
            self.follow().await;
        }
        if Instant::now() >= self.look_at {
            if self.authority.is_none() {
                let config = self.parts.board.load().config.clone();
                self.look_at = Instant::now() + PAUSE;
                if config.is_some_and(|config| config.acme.is_some()) {
                    self.follow().await;
                }
            } else {
                self.look().await;
            }
        }
        let Some(authority) = self.authority.clone() else { return };
        if self.parts.board.load().draining {
            return; // whoever comes after us orders it
        }
        let now = (Instant::now(), SystemTime::now());
        let mut due: Vec<(Instant, bool, Arc<str>)> = Vec::new();
        let mut ask = Vec::new();
        for (name, state) in self.names.iter().filter(|(_, state)| state.work.is_none()) {
            match self.order_at(name, state, now) {
                Some(at) if at <= now.0 => due.push((state.not_before, !state.asked, Arc::clone(name))),
                _ if self.ask_at(name, state).is_some_and(|at| at <= now.0) => ask.push(Arc::clone(name)),
                _ => {}
            }
        }
        // Who was asked for comes first, then who has waited for the longest.
        due.sort_by(|one, other| (one.1, one.0, &one.2).cmp(&(other.1, other.0, &other.2)));
        for (_, _, name) in due {
            if self.ordering() >= MOST_ORDERS {
                break;
            }
            self.order(&authority, &name);
        }
        for name in ask.into_iter().take(MOST_ORDERS.saturating_sub(self.orders.len())) {
            self.ask(&authority, &name);
        }
    }

    fn order(&mut self, authority: &Arc<Authority>, name: &Arc<str>) {
        let held = self.parts.acme.certificates.held().get(name).cloned();
        let user = self.wanted.get(name).and_then(Claim::user).cloned();
        if let Some(user) = &user
            && held.is_none()
            && self.share(user) >= authority.settings.per_user as usize
        {
            let most = authority.settings.per_user;
            let why = format!("the tunnels of this user have {most} certificates already (acme.per_user)");
            self.refuse(name, Some(user), &why);
            if let Some(state) = self.names.get_mut(name) {
                state.not_before = Instant::now() + PAUSE;
            }
            return;
        }
        let task = order(Arc::clone(authority), Arc::clone(name), user, held);
        let owned = Arc::clone(name);
        let handle = self.orders.spawn(async move {
            let done = timeout(LONGEST, task).await;
            let late = || Done::Failed(Failure::Unreachable(format!("no end after {} s", LONGEST.as_secs())));
            (owned, done.unwrap_or_else(|_elapsed| late()))
        });
        self.work(name, true, handle);
    }

    fn ask(&mut self, authority: &Arc<Authority>, name: &Arc<str>) {
        let Some(held) = self.parts.acme.certificates.held().get(name).cloned() else { return };
        let (authority, owned) = (Arc::clone(authority), Arc::clone(name));
        let handle = self.orders.spawn(async move {
            let done = match authority.renewal(&held.pair.certified.cert[0]).await {
                Ok(renewal) => Done::Renewal(renewal),
                Err(failure) => {
                    tracing::debug!(name = &*owned, error = %failure, "the authority doesn't say when to renew");
                    Done::NoRenewal
                }
            };
            (owned, done)
        });
        self.work(name, false, handle);
    }

    fn work(&mut self, name: &Arc<str>, ordering: bool, handle: AbortHandle) {
        if let Some(state) = self.names.get_mut(name) {
            (state.work, state.elsewhere) = (Some(Work { ordering, handle }), false);
        }
    }

    /// Certificates that a user has, or will have.
    fn share(&self, user: &Arc<str>) -> usize {
        let (held, now) = (self.parts.acme.certificates.held(), SystemTime::now());
        let alive = |held: &Held| held.user.as_ref() == Some(user) && held.pair.leaf.not_after > now;
        let coming = self.names.iter().filter(|(name, state)| {
            state.work.as_ref().is_some_and(|work| work.ordering)
                && !held.contains_key(*name)
                && self.wanted.get(*name).and_then(Claim::user) == Some(user)
        });
        held.values().filter(|held| alive(held)).count() + coming.count()
    }

    fn ended(&mut self, name: &Arc<str>, done: Done) {
        let chance = self.chance();
        let Some(state) = self.names.get_mut(name) else { return };
        state.work = None;
        match done {
            Done::New(held, renewed) => {
                self.parts.acme.stats.count(if renewed { Ended::Renewed } else { Ended::Issued });
                let seconds = held.pair.leaf.seconds_left(SystemTime::now());
                let (event, user) = if renewed { ("renewed", &held.user) } else { ("issued", &held.user) };
                tracing::info!(
                    name = &**name,
                    user = user.as_deref(),
                    issuer = held.pair.leaf.issuer,
                    days_left = seconds.div_euclid(86_400),
                    "certificate {event}"
                );
                let event = format!("certificate_{event}");
                self.parts.audit.certificate(&event, name, user.as_deref(), None);
                self.take(name, held);
            }
            Done::Shared(held) => {
                self.parts.acme.stats.count(Ended::Shared);
                tracing::info!(name = &**name, "certificate taken from another gateway");
                self.take(name, held);
            }
            Done::Elsewhere => {
                state.elsewhere = true;
                state.not_before = Instant::now() + Duration::from_secs(1);
                self.look_at = self.look_at.min(Instant::now() + LOOK_FOR);
            }
            Done::Failed(failure) => self.failed(name, &failure, chance),
            Done::Renewal(Some((window, again))) => {
                if let Some(held) = self.parts.acme.certificates.held().get(name) {
                    let leaf = &held.pair.leaf;
                    let life = (leaf.not_before, leaf.not_after);
                    let whole = life.1.duration_since(life.0).unwrap_or_default();
                    let most = Duration::from_secs(24 * 3600).min(whole / 6).max(Duration::from_secs(1));
                    let again = again.clamp(Duration::from_secs(60).min(most), most);
                    // The same chance each time, or asking often would mean renewing early.
                    let chance = f64::from(leaf.serial.last().copied().unwrap_or(0)) / 255.0;
                    state.due = Some(patience::due_within(window, life, chance));
                    state.ask_at = Some(Instant::now() + again);
                }
            }
            Done::Renewal(None) => state.ask_at = None,
            Done::NoRenewal => {
                let left = state.due.and_then(|due| due.duration_since(SystemTime::now()).ok());
                let again = (left.unwrap_or_default() / 3).min(Duration::from_secs(6 * 3600));
                state.ask_at = Some(Instant::now() + again.max(Duration::from_secs(60)));
            }
        }
    }

    /// A task ended that should not have.
    fn broken(&mut self, error: &str) {
        let ended = |state: &State| state.work.as_ref().is_some_and(|work| work.handle.is_finished());
        let names: Vec<_> =
            self.names.iter().filter(|(_, state)| ended(state)).map(|(name, _)| Arc::clone(name)).collect();
        for name in names {
            self.ended(&name, Done::Failed(Failure::Own(error.to_owned())));
        }
    }

    fn failed(&mut self, name: &Arc<str>, failure: &Failure, chance: f64) {
        let Some(state) = self.names.get_mut(name) else { return };
        state.failures = state.failures.saturating_add(1);
        let now = SystemTime::now();
        let held = self.parts.acme.certificates.held();
        let present = held.get(name);
        let left = present.map(|held| held.pair.leaf.not_after.duration_since(now).unwrap_or_default());
        let (ended, after) = match failure {
            Failure::Limited(_, until) => {
                let after = until.and_then(|until| until.duration_since(now).ok());
                self.not_before = Instant::now() + after.unwrap_or(PAUSE).min(PAUSE);
                (Ended::Limited, after)
            }
            Failure::Unreachable(_) => (Ended::Unreachable, None),
            Failure::Refused(_) | Failure::Storage(_) | Failure::Own(_) => (Ended::Failed, None),
        };
        self.parts.acme.stats.count(ended);
        let wait = patience::wait(state.failures, after, left, chance);
        state.not_before = Instant::now() + wait;
        let again = format!("{}s", wait.as_secs());
        let (what, reason) = (ended.word(), failure.to_string());
        let user = self.wanted.get(name).and_then(Claim::user);
        let user = user.map(|user| &**user);
        match present {
            Some(present) => {
                let days_left = present.pair.leaf.seconds_left(now).div_euclid(86_400);
                tracing::warn!(
                    name = &**name,
                    user,
                    what,
                    reason,
                    again,
                    days_left,
                    "certificate not renewed; the old one stays in force"
                );
                let mut held = Map::clone(&held);
                if let Some(held) = held.get_mut(name) {
                    held.fault = Some(reason.clone());
                }
                self.parts.acme.certificates.put(held);
            }
            None => tracing::warn!(name = &**name, user, what, reason, again, "no certificate"),
        }
        self.parts.audit.certificate("certificate_failed", name, user, Some(&reason));
    }

    /// Puts a certificate in force.
    fn take(&mut self, name: &Arc<str>, held: Held) {
        let chance = self.chance();
        let state = self.names.entry(Arc::clone(name)).or_insert_with(State::new);
        let leaf = &held.pair.leaf;
        let due = patience::due(leaf.not_before, leaf.not_after, chance);
        (state.asked, state.failures, state.elsewhere, state.due) = (true, 0, false, Some(due));
        let now = Instant::now();
        (state.not_before, state.ask_at) = (now, Some(now));
        let mut map = Map::clone(&self.parts.acme.certificates.held());
        map.insert(Arc::clone(name), held);
        self.parts.acme.certificates.put(map);
    }

    /// Reads what is new in the folder.
    async fn look(&mut self) {
        let Some(authority) = &self.authority else { return };
        let (storage, seen, now) =
            (Arc::clone(&authority.storage), std::mem::take(&mut self.seen), SystemTime::now());
        let tidy = self.tidied.is_none_or(|at| at.elapsed() > FORGET / 30);
        if tidy {
            self.tidied = Some(Instant::now());
        }
        let looked = blocking(move || {
            if tidy {
                storage.tidy(now);
            }
            read_new(&storage, seen, now)
        })
        .await;
        let (seen, fresh) = looked.unwrap_or_default();
        self.seen = seen;
        let held = self.parts.acme.certificates.held();
        for (name, found) in fresh {
            match found {
                Ok(found) => {
                    let present = held.get(&*name);
                    let same =
                        present.is_some_and(|held| held.pair.certified.cert == found.pair.certified.cert);
                    let older =
                        present.is_some_and(|held| held.pair.leaf.not_after > found.pair.leaf.not_after);
                    // Our own order is about to say the same.
                    let ours = self.names.get(&*name).is_some_and(|state| {
                        state.work.as_ref().is_some_and(|work| work.ordering && !work.handle.is_finished())
                    });
                    if !same && !older && !ours {
                        self.take(&name.as_str().into(), found);
                    }
                }
                Err(why) => tracing::warn!(name, reason = why, "a stored certificate cannot be used"),
            }
        }
        self.drop_old().await;
        let waiting = self.names.values().any(|state| state.elsewhere);
        self.look_at = Instant::now() + if waiting { LOOK_FOR } else { LOOK };
    }

    /// Forgets certificates that ended long ago.
    async fn drop_old(&mut self) {
        let (held, now) = (self.parts.acme.certificates.held(), SystemTime::now());
        let is_old = |held: &Held| held.pair.leaf.not_after + FORGET < now;
        let old: HashSet<Arc<str>> = held
            .iter()
            .filter(|(name, held)| is_old(held) && !self.wanted.contains_key(*name))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        let Some(authority) = self.authority.as_ref().filter(|_| !old.is_empty()) else { return };
        let mut map = Map::clone(&held);
        map.retain(|name, _| !old.contains(name));
        self.parts.acme.certificates.put(map);
        let storage = Arc::clone(&authority.storage);
        let removed =
            blocking(move || old.iter().try_for_each(|name| storage.remove_certificate(name))).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "old certificates cannot be removed from acme.storage");
        }
    }

    fn chance(&mut self) -> f64 {
        f64::from(self.parts.rng.below(1_000)) / 1_000.0
    }
}

impl State {
    fn new() -> Self {
        Self {
            asked: false,
            failures: 0,
            not_before: Instant::now(),
            due: None,
            ask_at: None,
            work: None,
            elsewhere: false,
        }
    }
}

type Fresh = Vec<(String, Result<Held, String>)>;

/// What is in the folder that wasn't there before. Blocks.
fn read_new(
    storage: &Storage,
    mut seen: HashMap<String, Print>,
    now: SystemTime,
) -> (HashMap<String, Print>, Fresh) {
    let all = match storage.list() {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(%error, "acme.storage cannot be read; what is in force stays");
            return (seen, Vec::new());
        }
    };
    let mut fresh = Vec::new();
    for (name, print) in all {
        if seen.get(&name) == Some(&print) {
            continue;
        }
        seen.insert(name.clone(), print);
        let read = storage.certificate(&name).map_err(|error| error.to_string());
        match read.and_then(|stored| stored.map(|stored| Held::of(&stored, now)).transpose()) {
            Ok(Some(held)) => fresh.push((name, Ok(held))),
            Ok(None) => {}
            Err(why) => fresh.push((name, Err(why))),
        }
    }
    (seen, fresh)
}

/// One order, from the lock to the file.
async fn order(
    authority: Arc<Authority>,
    name: Arc<str>,
    user: Option<Arc<str>>,
    present: Option<Held>,
) -> Done {
    match try_order(&authority, &name, user.as_deref(), present).await {
        Ok(done) => done,
        Err(failure) => Done::Failed(failure),
    }
}

async fn try_order(
    authority: &Authority,
    name: &Arc<str>,
    user: Option<&str>,
    present: Option<Held>,
) -> Result<Done, Failure> {
    let (storage, locked) = (Arc::clone(&authority.storage), Arc::clone(name));
    let lock = blocking(move || storage.lock(&locked, SystemTime::now())).await??;
    let Some(lock) = lock else { return Ok(Done::Elsewhere) };
    // Between our last look and the lock another gateway may have been through.
    let (storage, kept) = (Arc::clone(&authority.storage), Arc::clone(name));
    let kept = blocking(move || storage.certificate(&kept)).await?;
    if let Ok(Some(kept)) = kept {
        let now = SystemTime::now();
        let end = present.as_ref().map_or(now, |present| present.pair.leaf.not_after);
        if let Ok(kept) = Held::of(&kept, now)
            && kept.pair.leaf.not_after > end
        {
            return Ok(Done::Shared(kept));
        }
    }
    let replaced = present.as_ref().map(|present| present.pair.certified.cert[0].clone());
    let ordering = authority.order(name, user, replaced.as_ref());
    tokio::pin!(ordering);
    let lock = Arc::new(lock);
    let stored: Stored = loop {
        tokio::select! {
            stored = &mut ordering => break stored?,
            () = tokio::time::sleep(LEASE / 3) => {
                let lock = Arc::clone(&lock);
                if !blocking(move || lock.renew(SystemTime::now())).await?? {
                    return Ok(Done::Elsewhere);
                }
            }
        }
    };
    let held = Held::of(&stored, SystemTime::now())
        .map_err(|why| Failure::Refused(format!("the authority's certificate can't be used: {why}")))?;
    let storage = Arc::clone(&authority.storage);
    let put = blocking(move || {
        let put = storage.put_certificate(&stored);
        drop(lock);
        put
    });
    if let Err(error) = put.await? {
        // It is good all the same; only a restart orders it again.
        tracing::error!(name = &**name, %error, "a certificate cannot be kept in acme.storage");
    }
    Ok(Done::New(held, present.is_some()))
}
