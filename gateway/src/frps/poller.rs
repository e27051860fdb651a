//! Asks one frps for its live tunnels, again and again, and turns each answer into an event.

use std::time::Duration;

use frp_gateway_config::model::FrpsAdmin;
use lb_algos::Rng;

use super::admin::{AdminClient, AdminError};
use crate::control::{Event, Handle, state::ServerKey};

/// Deadline of one listing, all its pages included.
pub const LISTING_DEADLINE: Duration = Duration::from_secs(5);

/// How long a claimed proxy is looked for: after that it has lapsed.
pub const CLAIM_DEADLINE: Duration = Duration::from_secs(5);

/// Polls until the task is aborted or the control plane is gone. The first listing begins at once.
pub async fn poll(frps: String, server: ServerKey, admin: FrpsAdmin, control: Handle, mut rng: Rng) {
    let mut client = AdminClient::new(&admin);
    loop {
        let event = match list(&mut client, LISTING_DEADLINE).await {
            Ok(listing) => Event::FrpsListed { frps: frps.clone(), server: server.clone(), listing },
            Err(error) => Event::FrpsUnreachable {
                frps: frps.clone(),
                server: server.clone(),
                reason: error.to_string(),
            },
        };
        if !control.send(event).await {
            return;
        }
        tokio::time::sleep(jittered(admin.interval, &mut rng)).await;
    }
}

/// One listing within `deadline`.
///
/// # Errors
/// See [`AdminError`].
pub async fn list(client: &mut AdminClient, deadline: Duration) -> Result<super::Listing, AdminError> {
    tokio::time::timeout(deadline, client.list()).await.unwrap_or(Err(AdminError::Timeout(deadline)))
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
