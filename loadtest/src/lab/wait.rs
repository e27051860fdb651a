//! Waiting for a condition, never for an amount of time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::LabError;

/// Asks `condition` again and again until it answers `Some`, at most for `deadline`.
///
/// The first question comes at once, the pauses grow from 2 ms to 50 ms. `what` completes the sentence
/// "waited 5s for …".
///
/// # Errors
/// [`LabError::Timeout`] when the deadline passes first.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Result<T, LabError> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(2);
    loop {
        // A question that hangs must not outlive the deadline either.
        if let Ok(Some(value)) = tokio::time::timeout_at(end, condition()).await {
            return Ok(value);
        }
        if Instant::now() + pause >= end {
            let what = what.to_owned();
            return Err(LabError::Timeout { what, after: deadline, detail: "it did not come true".into() });
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
