//! tower's balancer: two choices without weights, by requests pending or by peak EWMA.
//!
//! It is a service, so a pick is `poll_ready`, `call` and the end of an answer that is ready at once; the table takes off
//! what the same costs without a balancer ([`plain`]). It needs `&mut`, and its loads can't be shared between two balancers:
//! for two threads there is either one behind a mutex, held for `poll_ready` and `call`, or one for each, which then knows
//! nothing of what the other sends. No runtime: nothing is ever pending.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tower::{
    Service,
    balance::p2c::Balance,
    discover::ServiceList,
    load::{CompleteOnResponse, Load, PeakEwma, PendingRequests},
};

use crate::{
    contestant::{Contestant, Lane, lanes},
    ours::DECAY,
};

/// The call alone.
pub(crate) const PLAIN: &str = "plain call";
pub(crate) const PENDING: &str = "tower PendingRequests";
pub(crate) const EWMA: &str = "tower PeakEwma";
/// Added to the name where each thread has its own.
pub(crate) const OWN: &str = ", one for each thread";

type Balancer<S> = Balance<ServiceList<Vec<S>>, u32>;

pub(crate) fn plain(size: usize) -> Contestant {
    Contestant::new(PLAIN, size, lanes(1, |_| unlocked(Answer)))
}

pub(crate) fn all(size: usize) -> impl Iterator<Item = Contestant> {
    let decay = DECAY.as_secs_f64() * 1e9;
    let ewma = move || PeakEwma::new(Answer, Duration::from_millis(1), decay, CompleteOnResponse::default());
    let pending = || PendingRequests::new(Answer, CompleteOnResponse::default());
    of(PENDING, size, pending).into_iter().chain(of(EWMA, size, ewma))
}

fn of<S>(name: &str, size: usize, service: impl Fn() -> S + Sync) -> [Contestant; 3]
where
    S: Service<u32, Error = Infallible> + Load<Metric: std::fmt::Debug> + Send + 'static,
    S::Future: Send,
{
    let balancer = || -> Balancer<S> {
        Balance::new(ServiceList::new((0..size).map(|_| service()).collect::<Vec<_>>()))
    };
    let shared = Arc::new(Mutex::new(balancer()));
    [
        Contestant::new(name, size, lanes(1, |_| unlocked(balancer()))),
        Contestant::new(name, size, lanes(2, |_| locked(shared.clone()))),
        Contestant::new(format!("{name}{OWN}"), size, lanes(2, |_| unlocked(balancer()))),
    ]
}

fn unlocked<S: Service<u32> + Send + 'static>(mut service: S) -> Lane {
    Box::new(move |turns| {
        let mut cx = Context::from_waker(Waker::noop());
        for turn in 0..turns {
            let answer = pin!(send(black_box(&mut service), turn, &mut cx));
            assert!(black_box(answer.poll(&mut cx)).is_ready(), "every service answers at once");
        }
    })
}

fn locked<S: Service<u32> + Send + 'static>(service: Arc<Mutex<S>>) -> Lane {
    Box::new(move |turns| {
        let mut cx = Context::from_waker(Waker::noop());
        for turn in 0..turns {
            let answer = send(&mut *service.lock().expect("nobody panics"), turn, &mut cx);
            let answer = pin!(answer);
            assert!(black_box(answer.poll(&mut cx)).is_ready(), "every service answers at once");
        }
    })
}

fn send<S: Service<u32>>(service: &mut S, request: u32, cx: &mut Context<'_>) -> S::Future {
    assert!(matches!(service.poll_ready(cx), Poll::Ready(Ok(()))), "all services are ready");
    service.call(request)
}

/// Answers at once.
#[derive(Debug, Clone, Copy)]
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
