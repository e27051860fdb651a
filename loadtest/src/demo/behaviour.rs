//! How a demo application misbehaves, and the loopback port by which others change that while it serves.
//!
//! `POST /delay?ms=500&jitter=5`: every answer that much later, ± jitter. `POST /fail?percent=100&status=500&ms=1`: that
//! share of answers, health checks included, is that status, so much later, whatever the delay. `POST /healthy?yes=0`.
//! The port is not the application's own: whoever reaches that through a tunnel must not steer it.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use super::parameter;

/// What may be changed at any time.
#[derive(Debug)]
pub(super) struct Behaviour {
    pub(super) delay_ms: AtomicU64,
    pub(super) jitter_ms: AtomicU64,
    pub(super) fail_percent: AtomicU64,
    pub(super) fail_status: AtomicU64,
    pub(super) fail_ms: AtomicU64,
    pub(super) healthy: AtomicBool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            delay_ms: AtomicU64::new(0),
            jitter_ms: AtomicU64::new(0),
            fail_percent: AtomicU64::new(0),
            fail_status: AtomicU64::new(500),
            fail_ms: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
        }
    }
}

impl Behaviour {
    /// How long request `number` waits, and the status it fails with. Chance comes from the number: runs are repeatable.
    pub(super) fn of(&self, number: u64) -> (Duration, Option<u16>) {
        let chance = scrambled(number);
        if chance % 100 < self.fail_percent.load(Relaxed) {
            let status = u16::try_from(self.fail_status.load(Relaxed)).unwrap_or(500);
            return (Duration::from_millis(self.fail_ms.load(Relaxed)), Some(status));
        }
        let (delay, jitter) = (self.delay_ms.load(Relaxed), self.jitter_ms.load(Relaxed).min(60_000));
        let steps = 2_000 * jitter + 1;
        let micros = delay.saturating_mul(1_000).saturating_add((chance >> 8) % steps);
        (Duration::from_micros(micros.saturating_sub(1_000 * jitter)), None)
    }

    /// Everything fails at once with this status; `None` = nothing does.
    pub(super) fn set_failing(&self, status: Option<u16>) {
        let status = status.filter(|status| (200..=599).contains(status));
        self.fail_status.store(status.unwrap_or(500).into(), Relaxed);
        self.fail_ms.store(0, Relaxed);
        self.fail_percent.store(if status.is_some() { 100 } else { 0 }, Relaxed);
    }

    fn set(&self, path: &str, query: &str) -> Option<()> {
        match path {
            "/delay" => {
                self.delay_ms.store(parameter(query, "ms", 0), Relaxed);
                self.jitter_ms.store(parameter(query, "jitter", 0), Relaxed);
            }
            "/fail" => {
                let status = parameter(query, "status", 500);
                if !(200..=599).contains(&status) {
                    return None;
                }
                self.fail_status.store(status, Relaxed);
                self.fail_ms.store(parameter(query, "ms", 0), Relaxed);
                self.fail_percent.store(parameter(query, "percent", 0), Relaxed);
            }
            "/healthy" => self.healthy.store(parameter(query, "yes", 1) != 0, Relaxed),
            _ => return None,
        }
        Some(())
    }
}

/// Answers control requests until dropped.
pub(super) async fn control(listener: std::net::TcpListener, behaviour: Arc<Behaviour>) -> io::Error {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return error,
        };
        let behaviour = Arc::clone(&behaviour);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let uri = request.uri();
                let done = (request.method() == Method::POST)
                    .then(|| behaviour.set(uri.path(), uri.query().unwrap_or_default()))
                    .flatten();
                let mut answer = Response::new(Full::new(Bytes::new()));
                *answer.status_mut() = hyper::StatusCode::NO_CONTENT;
                if done.is_none() {
                    *answer.status_mut() = hyper::StatusCode::BAD_REQUEST;
                }
                async { Ok::<_, Infallible>(answer) }
            });
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

/// `SplitMix64`'s output function: neighbouring numbers give unrelated ones.
fn scrambled(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_the_jitter_and_use_all_of_it() {
        let behaviour = Behaviour::default();
        behaviour.set("/delay", "ms=50&jitter=5").expect("a known path");
        let delays: Vec<Duration> = (0..1_000).map(|number| behaviour.of(number).0).collect();
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!(
            *least >= Duration::from_millis(45) && *most <= Duration::from_millis(55),
            "{least:?} to {most:?}"
        );
        assert!(
            *least < Duration::from_millis(46) && *most > Duration::from_millis(54),
            "{least:?} to {most:?}"
        );
    }

    #[test]
    fn the_asked_share_fails() {
        let behaviour = Behaviour::default();
        for (percent, least, most) in [(0, 0, 0), (30, 2_800, 3_200), (100, 10_000, 10_000)] {
            behaviour.set("/fail", &format!("percent={percent}&status=503&ms=1")).expect("a known path");
            let failed = (0..10_000).filter(|&number| behaviour.of(number).1 == Some(503)).count();
            assert!((least..=most).contains(&failed), "{failed} of 10000 at {percent} %");
        }
        assert_eq!(behaviour.of(0), (Duration::from_millis(1), Some(503)), "a failure has its own delay");
    }

    #[test]
    fn nonsense_changes_nothing() {
        let behaviour = Behaviour::default();
        assert!(behaviour.set("/fail", "percent=100&status=99").is_none());
        assert!(behaviour.set("/nothing", "").is_none());
        assert_eq!(behaviour.of(7), (Duration::ZERO, None));
    }
}
