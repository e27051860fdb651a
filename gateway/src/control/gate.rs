//! Whether visitors may be let in, and whether they are: between the start of the process and the control plane.

use tokio::sync::watch;

/// Closed while another process still serves and may go on to; opened once. Clones are handles on the same.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<Phase>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Held,
    Allowed,
    Open,
}

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Allowed))
    }
}

impl Gate {
    /// One that stays closed until [`Self::allow`].
    #[must_use]
    pub fn held() -> Self {
        Self(watch::Sender::new(Phase::Held))
    }

    /// Visitors may be let in as soon as the control plane knows where to send them.
    pub fn allow(&self) {
        self.raise(Phase::Allowed);
    }

    /// Visitors are let in.
    pub fn open(&self) {
        self.raise(Phase::Open);
    }

    /// Whether visitors may not be let in yet.
    #[must_use]
    pub fn is_held(&self) -> bool {
        *self.0.borrow() == Phase::Held
    }

    /// Whether visitors are let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.0.borrow() == Phase::Open
    }

    /// Waits for [`Self::allow`].
    pub async fn allowed(&self) {
        self.reach(Phase::Allowed).await;
    }

    /// Waits for [`Self::open`].
    pub async fn opened(&self) {
        self.reach(Phase::Open).await;
    }

    fn raise(&self, to: Phase) {
        self.0.send_if_modified(|phase| std::mem::replace(phase, to.max(*phase)) < to);
    }

    async fn reach(&self, wanted: Phase) {
        // The sender is ours: it is not gone.
        drop(self.0.subscribe().wait_for(|phase| *phase >= wanted).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_opens_in_order_and_never_closes() {
        let gate = Gate::held();
        assert!(gate.is_held() && !gate.is_open());
        gate.allow();
        gate.allowed().await;
        assert!(!gate.is_held() && !gate.is_open());
        gate.open();
        gate.allow();
        gate.opened().await;
        assert!(gate.is_open());
    }
}
