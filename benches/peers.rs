//! The same work by other balancers: tower's (two choices, with its pending-request and peak-EWMA loads) and
//! pingora-load-balancing. `cargo bench -p frp-gateway-benches --features peers pick`.
//!
//! Each as its users would drive it. tower's balancer is a service: one pick is `poll_ready`, `call` and the end of an answer
//! that is ready at once; it belongs to one thread, so two threads have one each. pingora's `select` knows no load and is
//! shared; it answers with a copy of the chosen backend. tower's has no weights.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use pingora_load_balancing::{
    Backend, Backends, LoadBalancer,
    discovery::Static,
    selection::{BackendIter, BackendSelection, Random, RoundRobin, consistent::KetamaHashing},
};
use tower::{
    Service,
    balance::p2c::Balance,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma, PendingRequests},
};

use crate::{Case, FLEETS, weight};

/// All cases.
pub(crate) fn cases() -> impl Iterator<Item = Case> {
    FLEETS.into_iter().flat_map(|size| {
        let mut all = vec![tower_pending(size), tower_ewma(size)];
        for threads in [1, 2] {
            all.push(pingora::<RoundRobin>("round robin", size, threads));
            all.push(pingora::<Random>("random", size, threads));
            all.push(pingora::<KetamaHashing>("ketama", size, threads));
        }
        all
    })
}

/// Answers at once.
#[derive(Debug, Clone)]
struct Answer;

impl Service<u32> for Answer {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok(request))
    }
}

fn tower_pending(size: usize) -> Case {
    let services: Vec<_> =
        (0..size).map(|_| PendingRequests::new(Answer, CompleteOnResponse::default())).collect();
    let mut balance = Balance::new(ServiceList::new::<u32>(services));
    Case::new(format!("pick, begin, end tower p2c pending of {size}"), move |turns| {
        drive(&mut balance, turns)
    })
}

fn tower_ewma(size: usize) -> Case {
    let decay = Duration::from_secs(2).as_secs_f64() * 1e9;
    let services: Vec<_> = (0..size)
        .map(|_| PeakEwma::new(Answer, Duration::from_millis(1), decay, CompleteOnResponse::default()))
        .collect();
    let mut balance = Balance::new(ServiceList::new::<u32>(services));
    Case::new(format!("pick, begin, end tower p2c peak_ewma of {size}"), move |turns| {
        drive(&mut balance, turns)
    })
}

fn drive<S: Service<u32>>(balance: &mut S, turns: u32) {
    let mut cx = Context::from_waker(Waker::noop());
    for turn in 0..turns {
        assert!(matches!(balance.poll_ready(&mut cx), Poll::Ready(Ok(()))), "all services are ready");
        let answer = pin!(balance.call(turn));
        assert!(black_box(answer.poll(&mut cx)).is_ready(), "every service answers at once");
    }
}

fn pingora<S>(name: &str, size: usize, threads: u32) -> Case
where
    S: BackendSelection + Send + Sync + 'static,
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
    let select = move |balancer: &LoadBalancer<S>, turns: u32| {
        for turn in 0..turns {
            let key = u64::from(turn).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            assert!(black_box(balancer.select(&key, 256)).is_some(), "all backends are healthy");
        }
    };
    let name = format!("pick pingora {name} of {size}, threads {threads}");
    Case::new(name, move |turns| {
        if threads == 1 {
            return select(&balancer, turns);
        }
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| select(&balancer, turns));
            }
        });
    })
}
