//! What must wait until a step has succeeded.

use std::sync::Arc;

use lb_algos::Tick;

use crate::snapshot::MemberState;

/// What a compile wants changed in states that it shares with the snapshot in force; to be done when its step succeeds.
#[derive(Debug, Default)]
pub struct Settlement(Vec<Unsettled>);

/// One state, and what is to be done about it.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// The state.
    pub(super) state: Arc<MemberState>,
    /// It left the pool and is back.
    pub(super) returned: bool,
    /// The pool has no health checks: nothing could ever set their verdict right again.
    pub(super) unchecked: bool,
    /// The pool has no outlier rules.
    pub(super) unwatched: bool,
    /// The pool has no adaptive limit.
    pub(super) unlimited: bool,
}

impl Settlement {
    /// Adds one.
    pub(super) fn push(&mut self, unsettled: Unsettled) {
        self.0.push(unsettled);
    }

    /// Does it.
    pub fn apply(self, now: Tick) {
        for Unsettled { state, returned, unchecked, unwatched, unlimited } in self.0 {
            if unchecked {
                state.set_healthy(true, now);
            }
            if unwatched {
                state.forget_ejections(now);
            }
            if unlimited {
                state.forget_limit();
            }
            if returned {
                state.rejoin(now);
            }
        }
    }
}
