//! `frp-gateway agent`: answers one frps as its server plugin while gateways may be down, and tells them what it heard.
//!
//! Stateless: an answer is a function of the call and the policy file, so it is the one a gateway would have given (but for
//! conflicts with tunnels of other servers, which the gateways settle). What it tells is a hint; a gateway that misses it finds
//! the tunnel with its next listing. Hence no queue on disk and no acknowledgement.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use frp_gateway_config::model::{self, Config, FrpsAdmin};
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
    net::TcpListener,
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    control::{
        Fault,
        reload::{self, Content},
    },
    frps::{
        admin::AdminClient,
        decide::Rules,
        heard::{Heard, Report},
        plugin::{self, HEARD_CAP, PluginState, PluginStats, Told},
    },
    lifecycle::{Ending, StartError},
};

/// Things that may wait for one gateway; newer ones are dropped then, since its next listing will tell.
const BACKLOG: usize = 10_000;
/// Most things in one report.
const BATCH: usize = 256;
/// Deadline of one report.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pauses between tries of a report.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often frps is asked for its `subDomainHost`, and while it is not known.
const ASK_HOST: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(2));

/// Runs the agent until a signal ends it.
///
/// # Errors
/// See [`StartError`].
pub fn run(path: &Path) -> Result<Ending, StartError> {
    let seen = Content::of(path);
    let accepted = reload::load(path).map_err(StartError::Config)?;
    let (config, agent) = section(&accepted.config).map_err(StartError::Config)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "runtime", source })?;
    runtime.block_on(serve(path.to_owned(), seen, config, agent))
}

/// The configuration as far as this agent is concerned: its own frps alone.
fn section(config: &Config) -> Result<(Config, model::Agent), Vec<Fault>> {
    let Some(agent) = config.agent.clone() else {
        let message =
            "this file has no agent section; write agent: { frps: NAME, gateways: [\"http://HOST:9901\"] }";
        return Err(vec![Fault::plain("no-agent", "agent", message)]);
    };
    let mut own = config.clone();
    own.frps.retain(|frps| frps.name == agent.frps);
    Ok((own, agent))
}

async fn serve(
    path: PathBuf,
    mut seen: Content,
    mut config: Config,
    mut agent: model::Agent,
) -> Result<Ending, StartError> {
    let system = |what| move |source| StartError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("signal handlers"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("signal handlers"))?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(system("signal handlers"))?;
    let address = agent.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| StartError::Agent { address, source })?;
    let address = listener.local_addr().map_err(system("plugin listener"))?;
    let subdomain_host = Arc::new(ArcSwapOption::<String>::empty());
    let (heard, mut told) = mpsc::channel(HEARD_CAP);
    let known_host = Arc::clone(&subdomain_host);
    let state = Arc::new(PluginState {
        rules: ArcSwapOption::empty(),
        allow: ArcSwapOption::empty(),
        stats: PluginStats::default(),
        subdomain_host: Box::new(move |_| known_host.load().as_ref().map(|host| String::clone(host))),
        // Those of other servers are known to the gateways alone, which settle them.
        conflict: Box::new(|_| None),
        heard,
    });
    apply(&state, &config);
    let mut tasks = Tasks::start(&config, &agent, &subdomain_host);
    let server = tokio::spawn(plugin::serve(listener, Arc::clone(&state)));
    tracing::info!(frps = %agent.frps, %address, gateways = agent.gateways.len(), "agent started");
    let ending = loop {
        tokio::select! {
            told = told.recv() => match told {
                Some(Told { heard, .. }) => tasks.tell(&heard),
                None => break Ending::Cut,
            },
            () = sleep(LOOK) => {
                let now = Content::of(&path);
                if now != seen {
                    seen = now;
                    reload(&path, &state, &mut config, &mut agent, &mut tasks, &subdomain_host);
                }
            }
            _ = hang_up.recv() => reload(&path, &state, &mut config, &mut agent, &mut tasks, &subdomain_host),
            _ = terminate.recv() => break Ending::Drained,
            _ = interrupt.recv() => break Ending::Drained,
        }
    };
    server.abort();
    tracing::info!("agent stopped");
    Ok(ending)
}

fn apply(state: &PluginState, config: &Config) {
    state.rules.store(Rules::new(config).map(Arc::new));
    state.allow.store(config.plugin.as_ref().map(|plugin| Arc::new(plugin.allow.clone())));
}

fn reload(
    path: &Path,
    state: &PluginState,
    config: &mut Config,
    agent: &mut model::Agent,
    tasks: &mut Tasks,
    subdomain_host: &Arc<ArcSwapOption<String>>,
) {
    let loaded = reload::load(path).and_then(|accepted| section(&accepted.config));
    match loaded {
        Ok((new, new_agent)) => {
            if new_agent.listen != agent.listen {
                tracing::warn!(running = %agent.listen, configured = %new_agent.listen, "a change of agent.listen needs a restart");
            }
            if new_agent != *agent || new.frps != config.frps {
                *tasks = Tasks::start(&new, &new_agent, subdomain_host);
            }
            apply(state, &new);
            (*config, *agent) = (new, new_agent);
            tracing::info!("reloaded");
        }
        Err(faults) => {
            for fault in &faults {
                tracing::error!("{}", fault.text);
            }
            tracing::error!(errors = faults.len(), "reload refused, the old configuration stays in force");
        }
    }
}

/// What runs beside the server. Ends with this.
struct Tasks {
    gateways: Vec<mpsc::Sender<Heard>>,
    running: Vec<JoinHandle<()>>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

impl Tasks {
    fn start(config: &Config, agent: &model::Agent, subdomain_host: &Arc<ArcSwapOption<String>>) -> Self {
        let mut tasks = Self { gateways: Vec::new(), running: Vec::new() };
        for url in &agent.gateways {
            let (sender, receiver) = mpsc::channel(BACKLOG);
            tasks.gateways.push(sender);
            let gateway = Gateway::new(url, agent);
            tasks.running.push(tokio::spawn(gateway.report_all(receiver)));
        }
        let admin = config.frps.iter().find_map(|frps| frps.admin.clone());
        if let Some(admin) = admin {
            tasks.running.push(tokio::spawn(ask_host(admin, Arc::clone(subdomain_host))));
        }
        tasks
    }

    fn tell(&self, heard: &Heard) {
        for gateway in &self.gateways {
            // A gateway that is away for so long lists everything when it is back.
            drop(gateway.try_send(heard.clone()));
        }
    }
}

/// Keeps `subDomainHost` known, so that no plugin call has to wait for it.
async fn ask_host(admin: FrpsAdmin, known: Arc<ArcSwapOption<String>>) {
    loop {
        // A client of its own each time: what it remembers is what we want to know anew.
        let client = AdminClient::new(&admin);
        match timeout(PATIENCE, client.subdomain_host()).await {
            Ok(Ok(host)) => {
                known.store(Some(Arc::new(host)));
                sleep(ASK_HOST.0).await;
            }
            Ok(Err(_)) | Err(_) => sleep(ASK_HOST.1).await,
        }
    }
}

/// One gateway that is told.
struct Gateway {
    http: Client<HttpConnector, Full<Bytes>>,
    url: String,
    frps: String,
    authorization: Option<HeaderValue>,
    reachable: bool,
}

impl Gateway {
    fn new(url: &str, agent: &model::Agent) -> Self {
        let token = agent.token.as_ref().map(|token| format!("Bearer {}", token.expose()));
        let authorization = token.and_then(|token| HeaderValue::from_str(&token).ok()).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self {
            http: Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build_http(),
            url: url.trim_end_matches('/').to_owned(),
            frps: agent.frps.clone(),
            authorization,
            reachable: true,
        }
    }

    async fn report_all(mut self, mut heard: mpsc::Receiver<Heard>) {
        let mut batch = Vec::new();
        while heard.recv_many(&mut batch, BATCH).await > 0 {
            let report = Report { frps: self.frps.clone(), heard: std::mem::take(&mut batch) };
            let Ok(body) = serde_json::to_vec(&report) else { continue };
            let body = Bytes::from(body);
            let mut pause = PAUSES.0;
            loop {
                let answer = match timeout(PATIENCE, self.post(body.clone())).await {
                    Ok(answer) => answer,
                    Err(_late) => Err(format!("no answer within {PATIENCE:?}")),
                };
                let (reached, reason) = match answer {
                    Ok(StatusCode::NO_CONTENT) => (true, String::new()),
                    Ok(StatusCode::NOT_FOUND) => {
                        (false, "it doesn't know this agent: is agent.token its plugin.agent_token?".into())
                    }
                    Ok(status) => (false, format!("it answers with status {}", status.as_u16())),
                    Err(reason) => (false, reason),
                };
                if reached != self.reachable {
                    self.reachable = reached;
                    if reached {
                        tracing::info!(gateway = %self.url, "gateway is told again");
                    } else {
                        tracing::warn!(gateway = %self.url, %reason, "gateway cannot be told; it will find out by listing");
                    }
                }
                if reached {
                    break;
                }
                sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }

    async fn post(&self, body: Bytes) -> Result<StatusCode, String> {
        let mut request =
            Request::post(format!("{}/agent", self.url)).header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let response = self.http.request(request).await.map_err(|error| error.to_string())?;
        Ok(response.status())
    }
}
