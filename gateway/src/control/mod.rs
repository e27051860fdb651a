//! The control plane: events → reducer → new state and effects → compile → one published snapshot. One writer.
//!
//! Reading order: [`event`], [`state`], [`effect`], [`reducer`] (pure, the decisions), [`compile`] (pure, state →
//! snapshot), [`task`] (runs it all), [`reload`] (file → event), [`resolve`] (names → addresses).

pub mod announce;
pub mod clients;
pub mod compile;
pub mod directory;
pub mod effect;
pub mod event;
pub mod gate;
pub mod hooks;
pub mod migration;
pub mod place;
pub mod pulse;
pub mod reducer;
pub mod relays;
pub mod reload;
pub mod resolve;
pub mod state;
pub mod task;
#[cfg(test)]
pub mod testing;

pub use self::{
    event::Event,
    gate::Gate,
    state::{Fault, State},
    task::{Handle, ReloadResult},
};
