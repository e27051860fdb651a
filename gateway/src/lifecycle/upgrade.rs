//! Asking for an upgrade, from the admin API: one at a time, carried out by the life of the process.

use tokio::sync::{mpsc, oneshot};

pub use super::successor::Refusal;

/// Askers that may wait; there is one upgrade at a time anyway.
const WAITING: usize = 4;

/// What came of an upgrade.
pub type Outcome = Result<u32, Refusal>;

/// Where to ask. Clones ask the same process.
#[derive(Debug, Clone)]
pub struct Upgrades(mpsc::Sender<oneshot::Sender<Outcome>>);

impl Upgrades {
    /// Where to ask, and where it is answered.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<oneshot::Sender<Outcome>>) {
        let (ask, asked) = mpsc::channel(WAITING);
        (Self(ask), asked)
    }

    /// Replaces the process: its successor's id, once that one serves.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing has changed then.
    pub async fn ask(&self) -> Outcome {
        let (answer, answered) = oneshot::channel();
        match self.0.try_send(answer) {
            Ok(()) => answered.await.unwrap_or(Err(Refusal::NotServing("is ending"))),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refusal::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refusal::NotServing("is ending")),
        }
    }
}
