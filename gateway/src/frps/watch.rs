//! One frps as the data plane sees it: whom to ask whether a port is still the tunnel's, and whether to doubt what is known.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use lb_algos::Tick;
use tokio::{sync::oneshot, time::timeout};

use super::ask::{Ask, Asks, Registration, Verdict};

/// Longest wait for a verdict.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is shared about one frps. Outlives snapshots and pollers.
#[derive(Debug, Default)]
pub struct FrpsWatch {
    asks: ArcSwapOption<Asks>,
    /// When something last happened that may have moved ports between tunnels.
    doubted: AtomicU64,
    /// When the last complete listing began.
    listed: AtomicU64,
    /// It calls us itself: when we hear nothing, nothing was registered.
    calls_us: AtomicBool,
}

impl FrpsWatch {
    /// A poller has begun, or (`None`) ended.
    pub fn set_poller(&self, asks: Option<Asks>) {
        self.asks.store(asks.map(Arc::new));
    }

    /// Something happened that may have moved ports: until the next listing, what is known isn't enough.
    pub fn doubt(&self, now: Tick) {
        self.doubted.fetch_max(now.as_nanos().max(1), Relaxed);
    }

    /// A plugin call was heard, from the frps itself or from an agent.
    pub fn heard(&self, by_agent: bool) {
        self.calls_us.store(!by_agent, Relaxed);
    }

    /// What a complete listing, begun at `begun`, says is in force: endpoints that it doesn't have are retired.
    pub fn listed(&self, begun: Tick) {
        self.listed.fetch_max(begun.as_nanos(), Release);
    }

    /// Whether something has happened since the last listing that may have moved ports.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.doubted.load(Relaxed) > self.listed.load(Acquire)
    }

    /// Whether it was the frps itself that called last, as opposed to an agent.
    #[must_use]
    pub fn calls_us(&self) -> bool {
        self.calls_us.load(Relaxed)
    }

    /// Takes over what another process knew: where that one had doubts, so have we.
    pub fn remember(&self, calls_us: bool, doubted: bool, now: Tick) {
        if doubted {
            self.doubt(now);
        }
        if calls_us {
            self.heard(false);
        }
    }

    /// Asks the poller; lost when there is none.
    pub fn ask(&self, ask: Ask) {
        if let Some(asks) = &*self.asks.load() {
            // A poller that has just ended answers nothing, which is an answer.
            drop(asks.send(ask));
        }
    }

    /// Whether the port that was just connected to is `tunnel`'s.
    ///
    /// Sound because the question is put after the connect: who has the port then had it at the connect (a registration is
    /// never repeated). When the admin API can't tell, what is known counts if nothing can have happened since: the frps calls us itself
    /// before each registration, and hasn't. An agent may have answered it behind a network that is cut.
    pub async fn is_still(&self, tunnel: &Arc<Registration>) -> bool {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Verify { tunnel: Arc::clone(tunnel), reply });
        match timeout(PATIENCE, answer).await {
            Ok(Ok(Verdict::Same)) => true,
            Ok(Ok(Verdict::Changed)) => false,
            Ok(Ok(Verdict::Unknown) | Err(_)) | Err(_) => self.calls_us() && !self.is_doubted(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn tunnel() -> Arc<Registration> {
        Arc::new(Registration { name: "t".into(), port: 1, sealed: "s".into(), started: "1".into() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_counts_and_silence_leaves_what_is_known_unless_it_is_in_doubt() {
        let (watch, tunnel) = (FrpsWatch::default(), tunnel());
        let at = |seconds: u64| Tick::from_nanos(seconds * 1_000_000_000);
        assert!(!watch.is_still(&tunnel).await, "nobody to ask, and it never called us");
        watch.heard(false);
        assert!(watch.is_still(&tunnel).await, "nobody to ask, nothing has happened");
        watch.heard(true);
        assert!(!watch.is_still(&tunnel).await, "somebody else answers it");
        watch.heard(false);
        watch.doubt(at(5));
        assert!(!watch.is_still(&tunnel).await, "something happened since the last listing");
        watch.listed(at(6));
        assert!(watch.is_still(&tunnel).await, "and the listing after it");
        for (verdict, still) in [(Verdict::Same, true), (Verdict::Changed, false), (Verdict::Unknown, true)] {
            let (asks, mut asked) = mpsc::unbounded_channel();
            watch.set_poller(Some(asks));
            let answer = tokio::spawn(async move {
                match asked.recv().await {
                    Some(Ask::Verify { reply, .. }) => drop(reply.send(verdict)),
                    other => panic!("{other:?}"),
                }
            });
            assert_eq!(watch.is_still(&tunnel).await, still, "{verdict:?}");
            answer.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_process_trusted_is_trusted_and_what_it_doubted_is_doubted() {
        let tunnel = tunnel();
        for (calls_us, doubted, still) in
            [(true, false, true), (true, true, false), (false, false, false), (false, true, false)]
        {
            let watch = FrpsWatch::default();
            watch.remember(calls_us, doubted, Tick::from_nanos(1));
            assert_eq!(watch.is_still(&tunnel).await, still, "calls {calls_us} doubted {doubted}");
        }
        let watch = FrpsWatch::default();
        watch.heard(false);
        watch.remember(false, false, Tick::from_nanos(1));
        assert!(watch.is_still(&tunnel).await, "what we have heard ourselves is newer");
    }
}
