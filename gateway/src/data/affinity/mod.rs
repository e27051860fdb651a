//! Affinity: what keeps a visitor at one endpoint.
//!
//! Two ways. A cookie names the member outright ([`Sealer`] makes and reads its value, [`cookie_values`] finds it in a
//! request, [`strip`] hides it from the application). Or a [`key`] of the request is hashed, and the same key goes to the
//! same member while the pool stays as it is. Everything here is a pure function: time and chance are arguments, nothing
//! is remembered, so a gateway that restarts and another that stands in for it read the same sessions.
//!
//! What it doesn't do: pick. A session at a member that isn't eligible is [`super::pick`]'s to settle.

mod cookie;
pub mod key;
mod sealer;

pub use cookie::{cookie_values, strip};
pub use sealer::{Opened, Sealer, Session};

#[cfg(test)]
mod tests;
