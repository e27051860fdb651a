//! Telling the gateways: one queue and one task for each, so that one that is away delays nobody.
//!
//! What is told are hints. They wait in memory, within bounds; the oldest go first when there are too many, and a gateway that
//! missed some finds the tunnels with its next listing. One may be told twice, when its answer was lost.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use frp_gateway_config::model;
use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    body::Bytes,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::frps::heard::Heard;

/// Things that may wait for one gateway.
const MOST_WAITING: usize = 10_000;
/// Their size, bytes: whoever reaches frps can say long names.
const MOST_WAITING_BYTES: usize = 8 * 1024 * 1024;
/// Most things in one report.
const BATCH: usize = 256;
/// Largest report, bytes: safely under what the plugin listener of a gateway reads (256 KiB).
const BATCH_BYTES: usize = 192 * 1024;
/// Deadline of one report.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pauses between tries of a report, doubling.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// All gateways that are told. What still waits is lost when this is dropped: see [`Gateways::finish`].
#[derive(Debug)]
pub(super) struct Gateways {
    all: Vec<Gateway>,
    closing: watch::Sender<bool>,
}

/// One gateway, its queue and its task.
#[derive(Debug)]
struct Gateway {
    reach: Reach,
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How one gateway is reached, and for which frps: what makes it the same gateway after a reload.
#[derive(Debug, Clone, PartialEq)]
struct Reach {
    url: String,
    frps: String,
    token: Option<frp_gateway_config::secret::Secret>,
}

impl Gateways {
    /// Tells those that the configuration names.
    pub(super) fn start(agent: &model::Agent) -> Self {
        let mut gateways = Self { all: Vec::new(), closing: watch::Sender::new(false) };
        gateways.change(agent);
        gateways
    }

    /// Takes over a changed configuration: what waits for a gateway that stays keeps waiting.
    pub(super) fn change(&mut self, agent: &model::Agent) {
        let mut before = std::mem::take(&mut self.all);
        for url in &agent.gateways {
            let url = url.trim_end_matches('/').to_owned();
            let reach = Reach { url, frps: agent.frps.clone(), token: agent.token.clone() };
            if self.all.iter().any(|gateway| gateway.reach == reach) {
                continue;
            }
            let same = before.iter().position(|gateway| gateway.reach == reach);
            self.all.push(same.map(|at| before.swap_remove(at)).unwrap_or_else(|| {
                let queue = Arc::new(Queue::default());
                let teller = Teller::new(&reach, Arc::clone(&queue), self.closing.subscribe());
                Gateway { reach, queue, task: tokio::spawn(teller.run()) }
            }));
        }
    }

    /// Tells every gateway, soon. Never waits.
    pub(super) fn tell(&self, heard: &Heard) {
        let Ok(json) = serde_json::to_vec(heard) else { return };
        let json = Bytes::from(json);
        for gateway in &self.all {
            gateway.queue.push(json.clone());
        }
    }

    /// Tries to tell what still waits, once. Returns how many things were left untold, all gateways together.
    pub(super) async fn finish(mut self, within: Duration) -> usize {
        self.closing.send_replace(true);
        let all_told = async {
            for gateway in &mut self.all {
                if let Err(error) = (&mut gateway.task).await {
                    tracing::error!(gateway = %gateway.reach.url, %error, "the task of a gateway ended badly");
                }
            }
        };
        // Late is late: the next listing of that gateway tells it.
        drop(timeout(within, all_told).await);
        self.all.iter().map(|gateway| gateway.queue.lock().things.len()).sum()
    }
}

/// What waits for one gateway, oldest first, each as JSON.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    things: VecDeque<Bytes>,
    bytes: usize,
    /// How many have ever left the front: the number of the front thing.
    first: u64,
    /// Dropped since the gateway was last reached.
    dropped: u64,
}

/// The oldest things that fit one report.
struct Batch {
    body: Bytes,
    /// Number of the first thing behind it.
    end: u64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// O(1), but for what it drops.
    fn push(&self, json: Bytes) {
        let mut waiting = self.lock();
        if json.len() > BATCH_BYTES {
            waiting.dropped += 1;
            return;
        }
        waiting.bytes += json.len();
        waiting.things.push_back(json);
        while waiting.things.len() > MOST_WAITING || waiting.bytes > MOST_WAITING_BYTES {
            waiting.pop();
            waiting.dropped += 1;
        }
        drop(waiting);
        self.filled.notify_one();
    }

    /// A report of the oldest things, which stay until [`Queue::forget`]. `None` when there are none.
    fn batch(&self, frps: &str) -> Option<Batch> {
        let waiting = self.lock();
        let mut body = format!("{{\"frps\":{},\"heard\":[", serde_json::Value::from(frps)).into_bytes();
        let mut end = waiting.first;
        for thing in waiting.things.iter().take(BATCH) {
            let is_first = end == waiting.first;
            // The first always fits: what is larger never came in.
            if !is_first && body.len() + thing.len() > BATCH_BYTES {
                break;
            }
            if !is_first {
                body.push(b',');
            }
            body.extend_from_slice(thing);
            end += 1;
        }
        body.extend_from_slice(b"]}");
        (end > waiting.first).then(|| Batch { body: body.into(), end })
    }

    /// Takes out everything before `end`. Some of it may have been dropped meanwhile.
    fn forget(&self, end: u64) -> u64 {
        let mut waiting = self.lock();
        let before = waiting.first;
        while waiting.first < end && waiting.pop() {}
        waiting.first - before
    }
}

impl Waiting {
    fn pop(&mut self) -> bool {
        let Some(oldest) = self.things.pop_front() else { return false };
        self.bytes -= oldest.len();
        self.first += 1;
        true
    }
}

/// Why a report didn't arrive.
#[derive(Debug)]
enum Untold {
    /// Later it may.
    NotNow(String),
    /// It never will: the gateway can't read it.
    Never(String),
}

/// Tells one gateway.
struct Teller {
    http: Client<HttpConnector, Full<Bytes>>,
    url: String,
    frps: String,
    authorization: Option<HeaderValue>,
    queue: Arc<Queue>,
    closing: watch::Receiver<bool>,
    /// As the log has it.
    is_reachable: bool,
}

impl Teller {
    fn new(reach: &Reach, queue: Arc<Queue>, closing: watch::Receiver<bool>) -> Self {
        let token = reach.token.as_ref().map(|token| format!("Bearer {}", token.expose()));
        let authorization = token.and_then(|token| HeaderValue::from_str(&token).ok()).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self {
            http: Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build_http(),
            url: format!("{}/agent", reach.url),
            frps: reach.frps.clone(),
            authorization,
            queue,
            closing,
            is_reachable: true,
        }
    }

    /// Until closed; then once more.
    async fn run(mut self) {
        let mut pause = PAUSES.0;
        loop {
            let Some(batch) = self.queue.batch(&self.frps) else {
                let queue = Arc::clone(&self.queue);
                tokio::select! {
                    () = queue.filled.notified() => {}
                    () = closed(&mut self.closing) => return,
                }
                continue;
            };
            let answer = timeout(PATIENCE, self.post(batch.body)).await;
            match answer.unwrap_or_else(|_late| Err(Untold::NotNow(format!("no answer within {PATIENCE:?}"))))
            {
                Ok(()) => {
                    self.queue.forget(batch.end);
                    pause = PAUSES.0;
                    self.reached();
                    continue;
                }
                Err(Untold::Never(reason)) => {
                    let dropped = self.queue.forget(batch.end);
                    self.queue.lock().dropped += dropped;
                    self.missed(&reason);
                }
                Err(Untold::NotNow(reason)) => self.missed(&reason),
            }
            if *self.closing.borrow() {
                return;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = closed(&mut self.closing) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn reached(&mut self) {
        let dropped = std::mem::take(&mut self.queue.lock().dropped);
        if !self.is_reachable || dropped > 0 {
            tracing::info!(gateway = %self.url, dropped, "gateway is told again");
        }
        self.is_reachable = true;
    }

    fn missed(&mut self, reason: &str) {
        if self.is_reachable {
            tracing::warn!(gateway = %self.url, %reason, "gateway cannot be told; it will find out by listing");
        }
        self.is_reachable = false;
    }

    async fn post(&self, body: Bytes) -> Result<(), Untold> {
        let not_now = |error: &dyn std::error::Error| Untold::NotNow(error.to_string());
        let mut request = Request::post(&self.url).header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request.body(Full::new(body)).map_err(|error| not_now(&error))?;
        let response = self.http.request(request).await.map_err(|error| not_now(&error))?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(()),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Err(Untold::Never(format!(
                "it cannot read the report (status {})",
                response.status().as_u16()
            ))),
            StatusCode::NOT_FOUND => Err(Untold::NotNow(
                "it doesn't know this agent: is agent.token its plugin.agent_token?".to_owned(),
            )),
            StatusCode::UNPROCESSABLE_ENTITY => {
                Err(Untold::NotNow(format!("it has no frps {:?} with a plugin", self.frps)))
            }
            status => Err(Untold::NotNow(format!("it answers with status {}", status.as_u16()))),
        }
    }
}

/// Waits until all are told to end, or their owner is gone.
async fn closed(closing: &mut watch::Receiver<bool>) {
    drop(closing.wait_for(|closing| *closing).await);
}

#[cfg(test)]
mod tests;
