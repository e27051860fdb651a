//! A fleet in virtual time: worker threads with a policy each, members that are slow, flap, hang, fail in a millisecond
//! or merely seem to answer, visitors whose requests cost unlike amounts, and churn; with outlier ejection, retries
//! under a budget, circuit limits and slow start around the policies, as a gateway has them.
//!
//! `chaos` plays thousands of random worlds and checks what must always hold (listed at [`world::World`]); `promises`
//! are single situations with numbers. Every run follows from its seed, which a failure prints; `FLEET_SEED=17 cargo
//! test -p lb-algos --test fleet_simulation` plays that one alone, `FLEET_TIMES=20` twenty times as many as usual.

mod chaos;
mod member;
mod promises;
mod setup;
mod world;
