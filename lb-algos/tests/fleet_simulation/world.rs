//! The world: an event queue, workers, visitors, the watcher, and the checks.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

use lb_algos::{
    AdaptiveLimit, AnyPolicy, Ask, Fleet, Pick, Place, PolicyKind, Prepared, Reason, RetryBudget, Rng, Tick,
    backoff::backoff,
    outlier::{Change, Sample, judge},
};

use crate::{
    member::{Member, View},
    setup::{Action, DECAY, Setup},
};

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// An attempt ends.
    End(u64),
    /// A request is tried again.
    Retry(Request),
    Arrive,
    /// A worker notices the new fleet.
    Notice(usize),
    Watch,
    Act(Action),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    worker: usize,
    key: u64,
    cost: u32,
    tried: Vec<usize>,
}

#[derive(Debug)]
struct Attempt {
    request: Request,
    slot: usize,
    begun: Tick,
    success: bool,
}

#[derive(Debug)]
struct Worker {
    policy: AnyPolicy,
    rng: Rng,
    order: Vec<(usize, u32)>,
    budget: RetryBudget,
    /// The last ten seconds of requests and of retries: what the budget must agree with.
    requests: VecDeque<Tick>,
    retries: VecDeque<Tick>,
}

/// One pick, for the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hit {
    pub(crate) at: Tick,
    pub(crate) slot: usize,
    pub(crate) worker: usize,
    pub(crate) first_attempt: bool,
}

/// A simulated fleet. At every step it checks that
///
/// - a pick is eligible and has weight; there is none only when nobody is eligible with weight;
/// - counts of requests in flight equal the open attempts, so are never negative, and never exceed the circuit limit;
/// - retries stay within the budget: percent of the last ten seconds' requests, plus the floor;
/// - ejections stay under their cap and leave one member that serves;
/// - least request, while it compares all, never picks the busier one;
/// - time doesn't go back, and at the end every request has ended exactly once.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) members: Vec<Member>,
    pub(crate) hits: Vec<Hit>,
    pub(crate) requests: u64,
    /// Ended well.
    pub(crate) served: u64,
    /// Failed, and no attempt was left.
    pub(crate) failed: u64,
    /// Failed, and the budget was exhausted.
    pub(crate) over_budget: u64,
    /// Failed, as no member was eligible.
    pub(crate) nobody: u64,
    /// Sum of the latencies of successful attempts.
    pub(crate) took: Duration,
    /// When members were ejected, from the start.
    pub(crate) ejected: Vec<Duration>,
    now: Tick,
    end: Tick,
    rng: Rng,
    events: BinaryHeap<Reverse<(Tick, u64, Event)>>,
    scheduled: u64,
    open: BTreeMap<u64, Attempt>,
    workers: Vec<Worker>,
    prepared: Prepared,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let adaptive = || setup.adaptive.map(|(min, max)| AdaptiveLimit::new(min, max));
        let members: Vec<Member> =
            (0..).zip(&setup.members).map(|(id, spec)| Member::new(id, *spec, None, adaptive())).collect();
        let worker = |number: usize| Worker {
            policy: AnyPolicy::new(setup.kind),
            rng: Rng::seeded(setup.seed ^ ((number as u64 + 1) << 32)),
            order: Vec::new(),
            budget: RetryBudget::new(setup.budget.0, setup.budget.1),
            requests: VecDeque::new(),
            retries: VecDeque::new(),
        };
        let mut world = Self {
            workers: (0..setup.workers).map(worker).collect(),
            rng: Rng::seeded(setup.seed),
            members,
            hits: Vec::new(),
            requests: 0,
            served: 0,
            failed: 0,
            over_budget: 0,
            nobody: 0,
            took: Duration::ZERO,
            ejected: Vec::new(),
            // Not the origin: a policy must not take zero for "never".
            now: second(100),
            end: second(100),
            events: BinaryHeap::new(),
            scheduled: 0,
            open: BTreeMap::new(),
            prepared: Prepared::None,
            setup,
        };
        world.prepare();
        (0..world.workers.len()).for_each(|number| world.notice(number));
        world.schedule(Duration::ZERO, Event::Arrive);
        world.schedule(Duration::from_secs(1), Event::Watch);
        world
    }

    /// `actions` happen so long after the start; workers notice at once.
    pub(crate) fn script(mut self, actions: impl IntoIterator<Item = (Duration, Action)>) -> Self {
        for (after, action) in actions {
            self.schedule(after, Event::Act(action));
        }
        self
    }

    /// Requests arrive for so long; then what is open ends.
    pub(crate) fn run(mut self, arrivals: Duration) -> Self {
        self.end = self.now.saturating_add(arrivals);
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            assert!(at >= self.now, "{}: time went back", self.place());
            self.now = at;
            match event {
                Event::Arrive => self.arrive(),
                Event::End(attempt) => self.end(attempt),
                Event::Retry(request) => self.attempt(request),
                Event::Notice(worker) => self.notice(worker),
                Event::Watch => self.watch(),
                Event::Act(action) => self.act(action),
            }
            let counted: usize = self.members.iter().map(|member| member.in_flight as usize).sum();
            assert_eq!(counted, self.open.len(), "{}: in flight", self.place());
        }
        let ended = self.served + self.failed + self.over_budget + self.nobody;
        assert!(
            self.open.is_empty() && ended == self.requests,
            "{}: {ended} of {}",
            self.place(),
            self.requests
        );
        self
    }

    /// For messages: how to get here again.
    pub(crate) fn place(&self) -> String {
        place(self.setup.kind, self.setup.seed, self.now)
    }

    /// Picks between two times after the start.
    pub(crate) fn hits_between(&self, from: Duration, to: Duration) -> impl Iterator<Item = &Hit> {
        let (from, to) = (second(100).saturating_add(from), second(100).saturating_add(to));
        self.hits.iter().filter(move |hit| hit.at >= from && hit.at < to)
    }

    /// Share of the picks between two times (seconds after the start) that fell on `slot`.
    pub(crate) fn share(&self, slot: usize, from: f64, to: f64) -> f64 {
        let between = || self.hits_between(Duration::from_secs_f64(from), Duration::from_secs_f64(to));
        let all = between().count();
        assert!(all > 0, "{}: no request between {from} s and {to} s", self.place());
        between().filter(|hit| hit.slot == slot).count() as f64 / all as f64
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now.saturating_add(after), self.scheduled, event)));
    }

    fn arrive(&mut self) {
        // Exponential gaps: a Poisson stream.
        let gap = Duration::from_secs_f64(-(1.0 - self.rng.f64()).ln() / self.setup.per_second);
        if self.now.saturating_add(gap) < self.end {
            self.schedule(gap, Event::Arrive);
        }
        self.requests += 1;
        let number = self.draw(self.setup.workers);
        let visitor = self.rng.next_u64();
        let key = self.setup.kind.key_of(&visitor.to_le_bytes());
        let cost = if self.rng.below(100) < self.setup.costly_percent { 10 } else { 1 };
        let worker = &mut self.workers[number];
        worker.budget.deposit(self.now);
        worker.requests.push_back(self.now);
        self.attempt(Request { worker: number, key, cost, tried: Vec::new() });
    }

    fn attempt(&mut self, mut request: Request) {
        let Some(Pick { index, .. }) = self.pick(&request) else {
            self.nobody += 1;
            return;
        };
        let slot = self.workers[request.worker].order[index].0;
        let (worker, first_attempt) = (request.worker, request.tried.is_empty());
        self.hits.push(Hit { at: self.now, slot, worker, first_attempt });
        request.tried.push(slot);
        let member = &mut self.members[slot];
        let (takes, success) = member.serve(request.cost, self.setup.deadline, self.now, &mut self.rng);
        let limit = self.setup.limit.min(member.limit());
        assert!(member.in_flight <= limit, "{} of {limit} in flight", member.in_flight);
        self.open.insert(self.scheduled, Attempt { request, slot, begun: self.now, success });
        self.schedule(takes, Event::End(self.scheduled));
    }

    fn pick(&mut self, request: &Request) -> Option<Pick> {
        let (kind, seed, now) = (self.setup.kind, self.setup.seed, self.now);
        let place = || place(kind, seed, now);
        let Worker { policy, rng, order, .. } = &mut self.workers[request.worker];
        let view = View {
            order,
            members: &self.members,
            tried: &request.tried,
            limit: self.setup.limit,
            slow_start: self.setup.slow_start,
            now: self.now,
        };
        let picked = policy.pick(&view, Ask { now: self.now, key: Some(request.key) }, rng);
        match picked {
            None => {
                let somebody = (0..view.len()).find(|&index| view.may_be_picked(index));
                assert_eq!(somebody, None, "{}: no pick, but it was eligible: {view:?}", place());
            }
            Some(Pick { index, reason }) => {
                assert!(view.may_be_picked(index), "{}: picked {index} of {view:?}", place());
                if self.setup.kind == PolicyKind::LeastRequest && reason != Reason::Probe && view.len() <= 16
                {
                    let load = |index| (u64::from(view.in_flight(index)), u64::from(view.weight(index)));
                    let (own, weight) = load(index);
                    // Who failed lately is idle because of it.
                    let fine =
                        |other: usize| view.latency(other).is_none_or(|latency| latency.failing() == 0);
                    let all = (0..view.len()).filter(|&other| view.may_be_picked(other) && fine(other));
                    let idler = all.into_iter().find(|&other| {
                        let (theirs, their_weight) = load(other);
                        theirs * weight < own * their_weight
                    });
                    assert_eq!(idler, None, "{}: {index} is busier: {view:?}", place());
                }
            }
        }
        picked
    }

    fn end(&mut self, attempt: u64) {
        let attempt = self.open.remove(&attempt).expect("an attempt ends once");
        let Attempt { request, slot, begun, success } = attempt;
        let member = &mut self.members[slot];
        member.in_flight = member.in_flight.checked_sub(1).expect("in-flight counts are never negative");
        let took = self.now.since(begun);
        if success {
            member.latency.observe(took, self.now, DECAY);
        } else {
            member.latency.fail(took, self.now, DECAY);
        }
        let thresholds = self
            .setup
            .outlier
            .map_or((None, None), |rules| member.ejection.failures_that_eject(&rules, self.now));
        if member.ended(success, took, thresholds) {
            self.judge();
        }
        if success {
            self.served += 1;
            self.took += took;
        } else if request.tried.len() > self.setup.retries as usize {
            self.failed += 1;
        } else if self.withdraw(request.worker) {
            let retry = u32::try_from(request.tried.len() - 1).expect("few attempts");
            let wait = backoff(retry, Duration::from_millis(25), Duration::from_millis(250), &mut self.rng);
            self.schedule(wait, Event::Retry(request));
        } else {
            self.over_budget += 1;
        }
    }

    fn withdraw(&mut self, number: usize) -> bool {
        let Worker { budget, requests, retries, .. } = &mut self.workers[number];
        let granted = budget.withdraw(self.now);
        if granted {
            retries.push_back(self.now);
            let now = self.now;
            for times in [&mut *requests, &mut *retries] {
                while times.front().is_some_and(|time| now.since(*time) >= Duration::from_secs(10)) {
                    times.pop_front();
                }
            }
            let (percent, floor) = self.setup.budget;
            let allowed = requests.len() as f64 * f64::from(percent) / 100.0 + floor * 10.0;
            assert!(
                retries.len() as f64 <= allowed + 1e-9,
                "{}: {} of {allowed}",
                self.setup.seed,
                retries.len()
            );
        }
        granted
    }

    fn watch(&mut self) {
        self.members.iter_mut().for_each(|member| member.next_second(self.now));
        self.judge();
        let mut open = vec![0; self.members.len()];
        self.open.values().for_each(|attempt| open[attempt.slot] += 1);
        let counted: Vec<u32> = self.members.iter().map(|member| member.in_flight).collect();
        assert_eq!(counted, open, "{}: in flight per member", self.place());
        if self.now < self.end {
            self.schedule(Duration::from_secs(1), Event::Watch);
        }
    }

    fn judge(&mut self) {
        let Some(rules) = self.setup.outlier else { return };
        // As in a gateway, members that have left are none.
        let slots: Vec<usize> = (0..self.members.len()).filter(|&slot| self.members[slot].present).collect();
        let samples: Vec<Sample> = slots.iter().map(|&slot| self.members[slot].sample()).collect();
        let mut ejections: Vec<_> = slots.iter().map(|&slot| self.members[slot].ejection).collect();
        let changes = judge(&rules, &samples, &mut ejections, self.now);
        for (&slot, ejection) in slots.iter().zip(ejections) {
            self.members[slot].ejection = ejection;
        }
        for change in changes {
            match change {
                Change::Eject { .. } => self.ejected.push(self.now.since(second(100))),
                Change::Readmit { index } => self.members[slots[index]].forget(),
            }
        }
        let serving =
            || slots.iter().map(|&slot| &self.members[slot]).filter(|member| member.sample().serves);
        let (all, out) = (serving().count(), serving().filter(|member| member.ejected()).count());
        let most = (all * rules.max_ejected_percent as usize / 100).max(1);
        assert!(out <= most && (all == 0 || out < all), "{}: {out} of {all} are out", self.place());
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Join(spec) => {
                let id = self.members.len() as u64;
                let adaptive = self.setup.adaptive.map(|(min, max)| AdaptiveLimit::new(min, max));
                self.members.push(Member::new(id, spec, Some(self.now), adaptive));
            }
            Action::Leave(slot) => self.members[slot].present = false,
            Action::Return(slot) => {
                self.members[slot].present = true;
                self.members[slot].joined = Some(self.now);
            }
            Action::Weight(slot, weight) => self.members[slot].spec.weight = weight,
            Action::Service(slot, service) => return self.members[slot].spec.service = service,
            Action::Fault(slot, fault) => return self.members[slot].spec.fault = fault,
            Action::Healthy(slot, healthy) => return self.members[slot].healthy = healthy,
            Action::Probe(slot) => {
                if self.members[slot].ejection.readmit_early(self.now) {
                    self.members[slot].forget();
                }
                return;
            }
        }
        self.prepare();
        // Each worker at its own time, but soon.
        for worker in 0..self.workers.len() {
            let late = Duration::from_millis(self.rng.below_u64(5));
            self.schedule(late, Event::Notice(worker));
        }
    }

    /// One table for all workers, as after a reload.
    fn prepare(&mut self) {
        let order = self.order();
        let places: Vec<Place<'_>> = order
            .iter()
            .map(|&(slot, weight)| Place {
                host: "frps.example.com",
                port: u16::try_from(20_000 + slot).expect("few members"),
                key: lb_algos::stable_hash(&[&slot.to_le_bytes()]),
                weight,
            })
            .collect();
        self.prepared = Prepared::build(self.setup.kind, &places);
    }

    fn order(&self) -> Vec<(usize, u32)> {
        let present = self.members.iter().enumerate().filter(|(_, member)| member.present);
        present.map(|(slot, member)| (slot, member.spec.weight)).collect()
    }

    fn notice(&mut self, number: usize) {
        let order = self.order();
        let worker = &mut self.workers[number];
        worker.order = order;
        let view = View {
            order: &worker.order,
            members: &self.members,
            tried: &[],
            limit: self.setup.limit,
            slow_start: None,
            now: self.now,
        };
        worker.policy.rebuild(&view, &self.prepared);
    }

    fn draw(&mut self, bound: usize) -> usize {
        self.rng.below(u32::try_from(bound).expect("a small number")) as usize
    }
}

/// A panic inside a policy tells where, too.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.place());
        }
    }
}

fn place(kind: PolicyKind, seed: u64, now: Tick) -> String {
    format!("FLEET_SEED={seed} {kind:?} {:?} after the start", now.since(second(100)))
}

fn second(seconds: u64) -> Tick {
    Tick::from_nanos(seconds * 1_000_000_000)
}
