//! The listener that frps call as server plugin, and agents report to. Used by the gateway and by the agent.
//!
//! Unforgiving peer: frps sets no deadline on the call, its frpc waits, and whatever isn't 200 with JSON refuses the proxy. So a
//! handler does no I/O, takes no lock over an await, and its answer leaves in one packet.

mod pace;

use std::{
    collections::HashSet,
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    rt::{Read, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};

use self::pace::{Paced, Turn};
use super::{
    decide::{Call, Context, Question, Rules},
    heard::{Heard, Report},
};

/// Largest body, bytes: frp's own messages are at most 64 KiB.
const BODY_CAP: usize = 256 * 1024;
/// Deadline of a head, from its first byte, and of a body.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest silence between two calls: an frps keeps its connection, and a close that crosses its next call refuses a proxy.
const IDLE: Duration = Duration::from_secs(120);
/// Connections at once; each frps keeps one or a few.
const MOST_CONNECTIONS: usize = 1024;
/// Things heard that may wait to be taken.
pub const HEARD_CAP: usize = 65_536;

/// Operations, as the `op` label.
pub const OPS: [&str; 4] = ["Login", "NewProxy", "CloseProxy", "other"];
/// How a call ended, as the `result` label.
pub const RESULTS: [&str; 5] = ["unchanged", "taken_over", "refused", "left", "invalid"];

/// What is counted.
#[derive(Debug, Default)]
pub struct PluginStats {
    /// By [`OPS`] and [`RESULTS`].
    pub calls: [[AtomicU64; RESULTS.len()]; OPS.len()],
    /// Connections from addresses that may not connect.
    pub denied: AtomicU64,
    /// Requests for a path that is nobody's, and agents with a wrong token.
    pub unknown: AtomicU64,
    /// Reports of agents.
    pub reports: AtomicU64,
    /// Things heard that nobody took in time.
    pub lost: AtomicU64,
    /// Names of frps of whose unasked operations we have complained: such a call may come with every visitor.
    complained: Mutex<HashSet<String>>,
}

/// `subDomainHost` by name of the frps.
pub type SubdomainHosts = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;
/// Reason to refuse a claim, if somebody else has what it wants.
pub type Conflicts = Box<dyn Fn(&Question<'_>) -> Option<String> + Send + Sync>;

/// What the handlers work on.
pub struct PluginState {
    /// In force; `None` = nobody is answered.
    pub rules: ArcSwapOption<Rules>,
    /// Who may connect.
    pub allow: ArcSwapOption<Vec<IpNet>>,
    /// Counters.
    pub stats: PluginStats,
    /// `subDomainHost` of an frps as it told; `None` = not known yet.
    pub subdomain_host: SubdomainHosts,
    /// Why a claim is in conflict with what is known.
    pub conflict: Conflicts,
    /// Gets what was heard, with the name of the frps, before the answer leaves.
    pub heard: mpsc::Sender<Told>,
    /// Another process answers from now on.
    pub leaving: watch::Sender<bool>,
}

impl PluginState {
    /// Accepts no more, and ends every connection after the call that is under way: the process that has the socket now
    /// is to hear of the next one.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }
}

/// What was heard.
#[derive(Debug)]
pub struct Told {
    /// Name of the frps.
    pub frps: String,
    /// What.
    pub heard: Heard,
    /// An agent told it, as opposed to the frps itself.
    pub by_agent: bool,
}

impl fmt::Debug for PluginState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginState").field("stats", &self.stats).finish_non_exhaustive()
    }
}

/// Serves until aborted, or until [`PluginState::leave`].
pub async fn serve(listener: TcpListener, state: Arc<PluginState>) {
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut complained: Option<Instant> = None;
    let mut leaving = state.leaving.subscribe();
    loop {
        let accepted = tokio::select! {
            () = async { drop(leaving.wait_for(|leaving| *leaving).await) } => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "plugin listener cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !is_allowed(&state, peer.ip()) {
            state.stats.denied.fetch_add(1, Relaxed);
            if complained.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
                complained = Some(Instant::now());
                tracing::warn!(peer = %peer.ip(), "plugin listener: this address may not connect (plugin.allow)");
            }
            continue;
        }
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            state.stats.denied.fetch_add(1, Relaxed);
            continue;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            connection(stream, peer, state).await;
            drop(permit);
        });
    }
}

fn is_allowed(state: &PluginState, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    state.allow.load().as_ref().is_some_and(|nets| nets.iter().any(|net| net.contains(&peer)))
}

async fn connection(stream: TcpStream, peer: SocketAddr, state: Arc<PluginState>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    converse(TokioIo::new(stream), peer, state).await;
}

/// Answers one connection until it ends.
async fn converse<I>(io: I, peer: SocketAddr, state: Arc<PluginState>)
where
    I: Read + Write + Unpin + Send + 'static,
{
    let mut leaving = state.leaving.subscribe();
    let turn = Arc::new(Turn::default());
    let io = Paced::new(io, Arc::clone(&turn), PATIENCE);
    let service = service_fn(move |request| {
        let (state, answering) = (Arc::clone(&state), turn.answering());
        async move {
            let answer = answer(&state, request).await;
            drop(answering);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Some(IDLE)) // counts the silence before a head, too; the head itself is paced
        .max_buf_size(64 * 1024)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = async { drop(leaving.wait_for(|leaving| *leaving).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(peer = %peer.ip(), %error, "plugin connection ended");
    }
}

async fn answer(state: &PluginState, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let Some(rules) = state.rules.load_full() else { return plain(StatusCode::SERVICE_UNAVAILABLE) };
    let path = request.uri().path();
    if request.method() == Method::GET && path == "/healthz" {
        return plain(StatusCode::OK);
    }
    if let Some(secret) = path.strip_prefix("/frps/")
        && let Some(frps) = rules.frps_of(secret)
        && request.method() == Method::POST
    {
        return plugin_call(state, &rules, frps, request).await;
    }
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if path == "/agent"
        && request.method() == Method::POST
        && token.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|token| rules.is_agent(token))
    {
        return report(state, &rules, request).await;
    }
    state.stats.unknown.fetch_add(1, Relaxed);
    plain(StatusCode::NOT_FOUND)
}

async fn plugin_call(
    state: &PluginState,
    rules: &Rules,
    frps: &str,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let op = query.split('&').find_map(|pair| pair.strip_prefix("op=")).unwrap_or_default().to_owned();
    let id =
        request.headers().get("x-frp-reqid").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let body = match read(request).await {
        Ok(body) => body,
        Err(status) => return plain(status),
    };
    let subdomain_host = (state.subdomain_host)(frps);
    let context = Context {
        subdomain_host: subdomain_host.as_deref(),
        conflict: &*state.conflict,
        now: SystemTime::now(),
    };
    let decision = rules.decide(frps, Call { op: &op, id: &id, body: &body }, &context);
    let op_index = OPS.iter().position(|known| *known == op).unwrap_or(OPS.len() - 1);
    let result_index = RESULTS.iter().position(|known| *known == decision.result);
    if let Some(counter) = result_index.and_then(|result| state.stats.calls.get(op_index)?.get(result)) {
        counter.fetch_add(1, Relaxed);
    }
    if let Some(why) = decision.why
        && (decision.result != "unchanged" || is_first_complaint(state, frps))
    {
        tracing::warn!(%frps, op = OPS.get(op_index), result = decision.result, why, "plugin call");
    }
    if let Some(heard) = decision.heard {
        tell(state, Told { frps: frps.to_owned(), heard, by_agent: false });
    }
    let mut response = Response::new(Full::new(Bytes::from(decision.answer)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn report(state: &PluginState, rules: &Rules, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = match read(request).await {
        Ok(body) => body,
        Err(status) => return plain(status),
    };
    let Ok(Report { frps, heard }) = serde_json::from_slice(&body) else {
        return plain(StatusCode::BAD_REQUEST);
    };
    if !rules.knows(&frps) {
        tracing::warn!(%frps, "an agent reports for an frps that has no plugin here");
        return plain(StatusCode::UNPROCESSABLE_ENTITY);
    }
    state.stats.reports.fetch_add(1, Relaxed);
    for heard in heard {
        tell(state, Told { frps: frps.clone(), heard, by_agent: true });
    }
    plain(StatusCode::NO_CONTENT)
}

/// Whether nobody has complained of the operations of this frps yet. At most one entry per configured frps.
fn is_first_complaint(state: &PluginState, frps: &str) -> bool {
    state.stats.complained.lock().unwrap_or_else(PoisonError::into_inner).insert(frps.to_owned())
}

fn tell(state: &PluginState, told: Told) {
    if state.heard.try_send(told).is_err() {
        state.stats.lost.fetch_add(1, Relaxed);
    }
}

async fn read(request: Request<Incoming>) -> Result<Bytes, StatusCode> {
    if request.body().size_hint().lower() > BODY_CAP as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let body = Limited::new(request.into_body(), BODY_CAP).collect();
    match timeout(PATIENCE, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_late) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
