//! pingora-load-balancing: rules by turn, chance and key, with weights. None knows load.
//!
//! Shared by threads as it is; `select` answers with a copy of the backend.

use std::{
    collections::BTreeSet,
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use pingora_load_balancing::{
    Backend, Backends, LoadBalancer,
    discovery::Static,
    selection::{BackendIter, BackendSelection, Consistent, FNVHash, Random, RoundRobin},
};

use crate::{
    contestant::{Contestant, Lane, lanes},
    ours::{key, weight},
};

pub(crate) const ROUND_ROBIN: &str = "pingora RoundRobin";
pub(crate) const RANDOM: &str = "pingora Random";
pub(crate) const FNV: &str = "pingora FNVHash";
pub(crate) const CONSISTENT: &str = "pingora Consistent";

pub(crate) fn all(size: usize) -> impl Iterator<Item = Contestant> {
    [
        of::<RoundRobin>(ROUND_ROBIN, size),
        of::<Random>(RANDOM, size),
        of::<FNVHash>(FNV, size),
        of::<Consistent>(CONSISTENT, size),
    ]
    .into_iter()
    .flatten()
}

fn of<S>(name: &str, size: usize) -> [Contestant; 2]
where
    S: BackendSelection<Config: Send + Sync> + Send + Sync + 'static,
    S::Iter: BackendIter,
{
    let backends: BTreeSet<Backend> = (1_u16..)
        .zip(0..size)
        .map(|(port, index)| {
            let weight = usize::try_from(weight(index)).expect("weights are small");
            Backend::new_with_weight(&format!("10.0.0.1:{port}"), weight).expect("an address")
        })
        .collect();
    let balancer = Arc::new(LoadBalancer::<S>::from_backends(Backends::new(Static::new(backends))));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(pin!(balancer.update()).poll(&mut cx).is_ready(), "a static list is there at once");
    [1, 2].map(|threads| Contestant::new(name, size, lanes(threads, |_| lane(balancer.clone()))))
}

fn lane<S>(balancer: Arc<LoadBalancer<S>>) -> Lane
where
    S: BackendSelection<Config: Send + Sync> + Send + Sync + 'static,
    S::Iter: BackendIter,
{
    Box::new(move |turns| {
        for turn in 0..turns {
            let selected = black_box(&balancer).select(black_box(&key(turn)), 256);
            assert!(black_box(selected).is_some(), "all backends are healthy");
        }
    })
}
