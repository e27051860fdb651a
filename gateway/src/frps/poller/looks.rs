//! Which single proxies are to be looked at, when, and who waits for what comes of it. No I/O; time is passed in.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::frps::{
    Proxy,
    ask::{Registration, Verdict},
};

/// First pause before a claimed proxy that isn't there yet is looked at again; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(3);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(640);

/// Somebody who wants to be sure of a tunnel.
type Waiting = (Arc<Registration>, oneshot::Sender<Verdict>);

/// All that is wanted.
#[derive(Debug, Default)]
pub(super) struct Looks {
    wanted: HashMap<String, Wanted>,
    in_flight: usize,
}

#[derive(Debug)]
struct Wanted {
    /// When the next look is due; `None` while one is under way and nobody wants another.
    due: Option<Instant>,
    /// It was announced: looked for until then.
    until: Option<Instant>,
    looks: u32,
    under_way: bool,
    /// Came before the look under way began.
    asked: Vec<Waiting>,
    /// Came after: the look under way may be older than their question.
    waiting: Vec<Waiting>,
    /// The same, for a listing under way: it began after these came.
    before_listing: bool,
}

impl Looks {
    /// Names that wait for a look which isn't under way.
    pub(super) fn waiting(&self) -> usize {
        self.wanted.len() - self.in_flight
    }

    /// Looks under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// When the next look is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.wanted.values().filter(|wanted| !wanted.under_way).filter_map(|wanted| wanted.due).min()
    }

    /// A look is wanted; `until`: the proxy is expected to come up by then.
    pub(super) fn want(&mut self, name: String, until: Option<Instant>, now: Instant) {
        let wanted = self.wanted.entry(name).or_insert_with(Wanted::new);
        wanted.due = Some(now);
        wanted.before_listing = false;
        if until.is_some() {
            (wanted.until, wanted.looks) = (until, 0);
        }
    }

    /// Somebody wants to be sure: a look that begins from now on will tell.
    pub(super) fn verify(
        &mut self,
        tunnel: Arc<Registration>,
        reply: oneshot::Sender<Verdict>,
        now: Instant,
    ) {
        let wanted = self.wanted.entry(tunnel.name.clone()).or_insert_with(Wanted::new);
        wanted.due = Some(now);
        wanted.before_listing = false;
        wanted.waiting.push((tunnel, reply));
    }

    /// Names to be looked at now, with at most `most` under way.
    pub(super) fn due(&mut self, now: Instant, most: usize) -> Vec<String> {
        let mut due: Vec<_> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| !wanted.under_way)
            .filter_map(|(name, wanted)| Some((wanted.due.filter(|due| *due <= now)?, name.clone())))
            .collect();
        due.sort();
        due.truncate(most.saturating_sub(self.in_flight));
        for (_, name) in &due {
            if let Some(wanted) = self.wanted.get_mut(name) {
                (wanted.under_way, wanted.due) = (true, None);
                wanted.looks += 1;
                wanted.asked.append(&mut wanted.waiting);
                self.in_flight += 1;
            }
        }
        due.into_iter().map(|(_, name)| name).collect()
    }

    /// A look came to `found`. Whether an announced proxy has lapsed.
    pub(super) fn looked(&mut self, name: &str, found: Option<&Proxy>, now: Instant) -> bool {
        let Some(wanted) = self.wanted.get_mut(name) else { return false };
        wanted.under_way = false;
        self.in_flight -= 1;
        answer(&mut wanted.asked, found);
        let lapsed = wanted.settle(found.is_some(), now);
        if wanted.due.is_none() {
            self.wanted.remove(name);
        }
        lapsed
    }

    /// A look failed: what was announced is looked at later, the rest is left to the listings.
    pub(super) fn failed(&mut self, name: &str, now: Instant) {
        let Some(wanted) = self.wanted.get_mut(name) else { return };
        wanted.under_way = false;
        self.in_flight -= 1;
        unknown(&mut wanted.asked);
        match wanted.until.filter(|until| *until > now) {
            Some(_) => wanted.due = Some(now + LONGEST_PAUSE),
            None if wanted.due.is_none() && wanted.waiting.is_empty() => {
                self.wanted.remove(name);
            }
            None => {}
        }
    }

    /// Nobody can be told anything now.
    pub(super) fn all_unknown(&mut self) {
        for wanted in self.wanted.values_mut() {
            unknown(&mut wanted.waiting);
        }
        self.wanted.retain(|_, wanted| wanted.under_way || wanted.until.is_some());
    }

    /// A listing begins: it will answer what is wanted by now.
    pub(super) fn listing_begins(&mut self) {
        for wanted in self.wanted.values_mut().filter(|wanted| !wanted.under_way) {
            wanted.before_listing = true;
        }
    }

    /// A listing (sorted by name) came. Names of announced proxies that have lapsed.
    pub(super) fn listed(&mut self, proxies: &[Proxy], now: Instant) -> Vec<String> {
        let mut lapsed = Vec::new();
        self.wanted.retain(|name, wanted| {
            if !wanted.before_listing || wanted.under_way {
                return true;
            }
            let found = proxies.binary_search_by(|proxy| proxy.name.as_str().cmp(name)).ok();
            let found = found.and_then(|at| proxies.get(at));
            answer(&mut wanted.waiting, found);
            wanted.due = None;
            if wanted.settle(found.is_some(), now) {
                lapsed.push(name.clone());
            }
            wanted.due.is_some()
        });
        lapsed
    }
}

impl Wanted {
    const fn new() -> Self {
        Self {
            due: None,
            until: None,
            looks: 0,
            under_way: false,
            asked: Vec::new(),
            waiting: Vec::new(),
            before_listing: false,
        }
    }

    /// Sets when to look again, if at all. Whether it has lapsed.
    fn settle(&mut self, found: bool, now: Instant) -> bool {
        self.before_listing = false;
        if found {
            self.until = None;
            return false;
        }
        match self.until {
            Some(until) if until > now => {
                let pause = FIRST_PAUSE.saturating_mul(1 << self.looks.min(10)).min(LONGEST_PAUSE);
                self.due = Some(self.due.map_or(now + pause, |due| due.min(now + pause)));
                false
            }
            Some(_) => {
                self.until = None;
                true
            }
            None => false,
        }
    }
}

fn answer(waiting: &mut Vec<Waiting>, found: Option<&Proxy>) {
    for (tunnel, reply) in waiting.drain(..) {
        let same = found.is_some_and(|proxy| {
            proxy.port == Some(tunnel.port)
                && proxy.sealed.as_deref().unwrap_or_default() == &*tunnel.sealed
                && proxy.started == tunnel.started
        });
        // Whoever asked may have gone.
        let _gone = reply.send(if same { Verdict::Same } else { Verdict::Changed });
    }
}

fn unknown(waiting: &mut Vec<Waiting>) {
    for (_, reply) in waiting.drain(..) {
        let _gone = reply.send(Verdict::Unknown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(name: &str, port: u16) -> Proxy {
        Proxy {
            name: name.into(),
            port: Some(port),
            sealed: Some("s".into()),
            started: "1".into(),
            ..Proxy::default()
        }
    }

    fn registration(name: &str, port: u16) -> Arc<Registration> {
        Arc::new(Registration { name: name.into(), port, sealed: "s".into(), started: "1".into() })
    }

    const NO_LIMIT: usize = 16;

    #[test]
    fn a_look_that_began_before_the_question_does_not_answer_it() {
        let (mut looks, now) = (Looks::default(), Instant::now());
        looks.want("web".into(), None, now);
        assert_eq!(looks.due(now, NO_LIMIT), ["web"]);
        let (reply, mut answer) = oneshot::channel();
        looks.verify(registration("web", 1), reply, now);
        assert!(!looks.looked("web", Some(&proxy("web", 1)), now));
        assert!(answer.try_recv().is_err(), "the look was older");
        assert_eq!(looks.due(now, NO_LIMIT), ["web"], "so there is another");
        looks.looked("web", Some(&proxy("web", 1)), now);
        assert_eq!(answer.try_recv(), Ok(Verdict::Same));
        assert_eq!((looks.waiting(), looks.in_flight()), (0, 0));
    }

    #[test]
    fn questions_share_a_look_and_each_gets_its_own_answer() {
        let (mut looks, now) = (Looks::default(), Instant::now());
        let mut answers: Vec<_> = [1, 2]
            .map(|port| {
                let (reply, answer) = oneshot::channel();
                looks.verify(registration("web", port), reply, now);
                answer
            })
            .into();
        assert_eq!(looks.due(now, NO_LIMIT).len(), 1);
        looks.looked("web", Some(&proxy("web", 1)), now);
        let answers: Vec<_> = answers.iter_mut().map(|answer| answer.try_recv().unwrap()).collect();
        assert_eq!(answers, [Verdict::Same, Verdict::Changed]);
    }

    #[test]
    fn what_was_announced_is_looked_for_until_it_lapses() {
        let (mut looks, begun) = (Looks::default(), Instant::now());
        looks.want("web".into(), Some(begun + Duration::from_secs(5)), begun);
        let (mut now, mut tries) = (begun, 0);
        loop {
            assert_eq!(looks.due(now, NO_LIMIT), ["web"]);
            tries += 1;
            if looks.looked("web", None, now) {
                break;
            }
            now = looks.next_due().unwrap();
        }
        assert!((8..20).contains(&tries), "{tries} looks");
        assert!(now >= begun + Duration::from_secs(5) && now < begun + Duration::from_secs(6));
        assert_eq!(looks.waiting(), 0);
    }

    #[test]
    fn a_listing_answers_what_was_asked_before_it_began() {
        let (mut looks, now) = (Looks::default(), Instant::now());
        let (early, mut early_answer) = oneshot::channel();
        looks.verify(registration("a", 1), early, now);
        looks.want("b".into(), None, now);
        looks.listing_begins();
        let (late, mut late_answer) = oneshot::channel();
        looks.verify(registration("c", 1), late, now);
        looks.listed(&[proxy("a", 1), proxy("c", 1)], now);
        assert_eq!(early_answer.try_recv(), Ok(Verdict::Same));
        assert!(late_answer.try_recv().is_err());
        assert_eq!(looks.due(now, NO_LIMIT), ["c"]);
    }

    #[test]
    fn a_failed_look_leaves_nobody_waiting() {
        let (mut looks, now) = (Looks::default(), Instant::now());
        let (one, mut first) = oneshot::channel();
        looks.verify(registration("a", 1), one, now);
        looks.due(now, NO_LIMIT);
        let (two, mut second) = oneshot::channel();
        looks.verify(registration("b", 1), two, now);
        looks.failed("a", now);
        looks.all_unknown();
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(Verdict::Unknown), Ok(Verdict::Unknown)));
        assert_eq!((looks.waiting(), looks.in_flight()), (0, 0));
    }
}
