//! Open-loop load: requests leave at their times, whatever has become of those before them.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use frp_gateway_loadtest::http::{self, Connection};
use tokio::task::{JoinHandle, spawn_local};

/// How one request went.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When it was due, from the start of the load.
    pub(crate) due: Duration,
    /// From then until its whole answer.
    pub(crate) latency: Duration,
    /// Which application answered; `None` = none did.
    pub(crate) app: Option<usize>,
    /// Status; 0 = no answer.
    pub(crate) status: u16,
}

/// Load on one contestant. Ends when stopped.
#[derive(Debug)]
pub(crate) struct Load {
    samples: Rc<RefCell<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Load {
    /// `rate` requests a second for `host`, each with an `X-User` of its own kind (1,000 kinds).
    pub(crate) fn start(address: SocketAddr, host: &'static str, rate: u32, begun: Instant) -> Self {
        let samples: Rc<RefCell<Vec<Sample>>> = Rc::default();
        let kept: Rc<RefCell<Vec<Connection>>> = Rc::default();
        let collected = Rc::clone(&samples);
        let task = spawn_local(async move {
            let first = begun.elapsed();
            for number in 0_u32.. {
                let due = first + Duration::from_secs(1) * number / rate;
                tokio::time::sleep_until((begun + due).into()).await;
                let (samples, kept) = (Rc::clone(&collected), Rc::clone(&kept));
                spawn_local(async move {
                    let (app, status) = ask(address, host, number, &kept).await;
                    let latency = begun.elapsed() - due;
                    samples.borrow_mut().push(Sample { due, latency, app, status });
                });
            }
        });
        Self { samples, task }
    }

    /// Stops asking and gives what was seen, in the order of due times.
    pub(crate) async fn stop(self, grace: Duration) -> Vec<Sample> {
        self.task.abort();
        tokio::time::sleep(grace).await;
        let mut samples = self.samples.take();
        samples.sort_by_key(|sample| sample.due);
        samples
    }
}

async fn ask(
    address: SocketAddr,
    host: &str,
    number: u32,
    kept: &RefCell<Vec<Connection>>,
) -> (Option<usize>, u16) {
    // A generator of its own: neighbours in time must not be neighbours in key.
    let user = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let request = http::request("GET", host, "/").header("x-user", format!("user-{}", user % 1000));
    let idle = kept.borrow_mut().pop();
    let connection = match idle {
        Some(connection) => Ok(connection),
        None => Connection::open(address).await,
    };
    let Ok(mut connection) = connection else { return (None, 0) };
    let Ok(reply) = connection.send(request.body(http::empty())).await else { return (None, 0) };
    let app = reply.app().and_then(|name| name.strip_prefix("app-")?.parse().ok());
    kept.borrow_mut().push(connection);
    (app, reply.status)
}
