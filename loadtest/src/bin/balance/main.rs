//! How each policy behaves when one of five applications behind real frps turns slow, fails fast, loses its tunnel; what a
//! newcomer gets; where a zone spills. All contestants stand before the same fleet at the same time, so they see the very
//! same thing. `balance GATEWAY OUTPUT_FOLDER [--quick]` writes `balance.json`, `balance.md` and one SVG per policy.

mod contestant;
mod load;
mod plot;
mod report;

use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use frp_gateway_loadtest::{
    demo::DemoApp,
    lab::{Frpc, FrpcOptions, Frps, FrpsOptions, LabError, Proxy},
};
use tokio::task::LocalSet;

use self::{
    contestant::Contestant,
    load::{Load, Sample},
};

/// Applications, each behind an frps of its own.
const FLEET: usize = 5;
/// The one that things happen to.
const VICTIM: usize = 2;
const HOST: &str = "shop.test";
const DELAY: Duration = Duration::from_millis(50);
/// Requests a second and contestant.
const RATE: u32 = 100;
const GRACE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let [gateway, folder] =
        &arguments.iter().filter(|argument| !argument.starts_with("--")).collect::<Vec<_>>()[..]
    else {
        writeln!(io::stderr(), "usage: balance GATEWAY_BINARY OUTPUT_FOLDER [--quick]").ok();
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime
        .map_err(Into::into)
        .and_then(|runtime| LocalSet::new().block_on(&runtime, run(gateway, &PathBuf::from(folder), quick)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "balance: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

/// An application behind an frps.
struct Site {
    frps: Frps,
    frpc: Option<Frpc>,
    app: DemoApp,
}

impl Site {
    async fn start(index: usize) -> Result<Self, LabError> {
        let app = DemoApp::start(&format!("app-{index}"))?;
        app.set_delay(DELAY);
        let frps = Frps::start(FrpsOptions::new(&format!("s{index}"))).await?;
        let mut site = Self { frps, frpc: None, app };
        site.open().await?;
        Ok(site)
    }

    /// Opens its tunnel.
    async fn open(&mut self) -> Result<(), LabError> {
        let proxy = Proxy::http("web", self.app.addr(), &[HOST]);
        let frpc = Frpc::start(FrpcOptions::new(&self.frps).proxy(proxy)).await?;
        let names = frpc.proxy_names();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        self.frps.wait_online(&names, Duration::from_secs(20)).await?;
        self.frpc = Some(frpc);
        Ok(())
    }
}

/// What happens when, from the start of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The victim turns slow.
    pub(crate) slow: Duration,
    /// It is itself again.
    pub(crate) well: Duration,
    /// It fails in no time.
    pub(crate) failing: Duration,
    /// It is itself again.
    pub(crate) mended: Duration,
    /// Its frpc is killed.
    pub(crate) killed: Duration,
    /// Its frpc is back.
    pub(crate) back: Duration,
    /// The load stops.
    pub(crate) end: Duration,
}

impl Times {
    fn new(quick: bool) -> Self {
        let spans: [u64; 7] = if quick { [2, 3, 6, 2, 5, 2, 5] } else { [5, 10, 15, 8, 12, 8, 12] };
        let mut at = Duration::ZERO;
        let [slow, well, failing, mended, killed, back, end] = spans.map(|seconds| {
            at += Duration::from_secs(seconds);
            at
        });
        Self { slow, well, failing, mended, killed, back, end }
    }
}

async fn run(gateway: &str, folder: &Path, quick: bool) -> Result<(), Box<dyn Error>> {
    let times = Times::new(quick);
    say("starting five frps, frpc and applications");
    let mut sites = Vec::new();
    for index in 0..FLEET {
        sites.push(Site::start(index).await?);
    }
    let contestants = contestants(gateway, &sites).await?;
    say(&format!("{} contestants, {RATE} requests/s each, {} s", contestants.len(), times.end.as_secs()));
    let runs = main_run(&mut sites, &contestants, times).await?;
    drop(contestants);
    say("newcomer");
    let newcomers = newcomer(gateway, &sites).await?;
    say("zones");
    let zones = zones(gateway, &mut sites).await?;
    report::write(folder, times, &runs, &newcomers, &zones)?;
    say(&format!("written to {}", folder.display()));
    Ok(())
}

async fn contestants(binary: &str, sites: &[Site]) -> Result<Vec<Contestant>, LabError> {
    let names: Vec<String> = (0..sites.len()).map(|index| format!("s{index}")).collect();
    let frps: Vec<_> =
        names.iter().zip(sites).map(|(name, site)| (name.as_str(), site.frps.http().port(), "")).collect();
    let policies = [
        ("round_robin", ", balance: round_robin"),
        ("random", ", balance: random"),
        ("least_request", ", balance: least_request"),
        ("peak_ewma", ", balance: peak_ewma"),
        ("maglev", ", balance: maglev, affinity: { header: x-user }"),
        ("ring_hash", ", balance: ring_hash, affinity: { header: x-user }"),
        ("least_request + outlier + retry", ", balance: least_request, outlier: {}, retry: { on: [500] }"),
        ("peak_ewma + outlier + retry", ", balance: peak_ewma, outlier: {}, retry: { on: [500] }"),
    ];
    let mut all = Vec::new();
    for (name, pool) in policies {
        all.push(contestant::gateway(name, binary, &frps, pool, "").await?);
    }
    let fleet: Vec<&Frps> = sites.iter().map(|site| &site.frps).collect();
    if Path::new("/usr/sbin/haproxy").exists() {
        for (name, balance, check) in [
            ("roundrobin", "roundrobin", ""),
            ("leastconn", "leastconn", ""),
            ("random(2)", "random(2)", ""),
            (
                "leastconn + observe",
                "leastconn",
                "check observe layer7 error-limit 5 on-error mark-down inter 1s",
            ),
        ] {
            all.push(contestant::haproxy(name, &fleet, balance, check).await?);
        }
    }
    if Path::new("/usr/sbin/nginx").exists() {
        for (name, method) in [
            ("round robin", ""),
            ("least_conn", "least_conn;"),
            ("hash consistent", "hash $http_x_user consistent;"),
        ] {
            all.push(contestant::nginx(name, &fleet, method).await?);
        }
    }
    Ok(all)
}

/// Slow, failing, gone: one after the other.
async fn main_run(
    sites: &mut [Site],
    contestants: &[Contestant],
    times: Times,
) -> Result<Vec<(String, Vec<Sample>)>, LabError> {
    let begun = Instant::now();
    let loads: Vec<_> = contestants.iter().map(|one| Load::start(one.address, HOST, RATE, begun)).collect();
    let until = |at: Duration| tokio::time::sleep_until((begun + at).into());
    let victim = &mut sites[VICTIM];
    until(times.slow).await;
    victim.app.set_delay(DELAY * 10);
    until(times.well).await;
    victim.app.set_delay(DELAY);
    until(times.failing).await;
    victim.app.set_failing(Some(500));
    until(times.mended).await;
    victim.app.set_failing(None);
    until(times.killed).await;
    drop(victim.frpc.take());
    until(times.back).await;
    victim.open().await?;
    until(times.end).await;
    let mut runs = Vec::new();
    for (one, load) in contestants.iter().zip(loads) {
        // The first of them waits for all.
        let grace = if runs.is_empty() { GRACE } else { Duration::ZERO };
        runs.push((one.name.clone(), load.stop(grace).await));
    }
    Ok(runs)
}

/// A fifth member joins by an edit of the YAML: its share of the requests, second by second.
async fn newcomer(binary: &str, sites: &[Site]) -> Result<Vec<(String, Vec<Sample>)>, LabError> {
    let names: Vec<String> = (0..sites.len()).map(|index| format!("s{index}")).collect();
    let frps: Vec<_> =
        names.iter().zip(sites).map(|(name, site)| (name.as_str(), site.frps.http().port(), "")).collect();
    let mut contestants = Vec::new();
    for (name, pool) in [
        ("least_request", ", balance: least_request"),
        ("peak_ewma", ", balance: peak_ewma"),
        ("least_request, slow_start: 10s", ", balance: least_request, slow_start: 10s"),
        ("peak_ewma, slow_start: 10s", ", balance: peak_ewma, slow_start: 10s"),
    ] {
        contestants.push((contestant::gateway(name, binary, &frps[..FLEET - 1], pool, "").await?, pool));
    }
    let begun = Instant::now();
    let loads: Vec<_> =
        contestants.iter().map(|(one, _)| Load::start(one.address, HOST, 2 * RATE, begun)).collect();
    tokio::time::sleep_until((begun + report::JOINS).into()).await;
    for (one, pool) in &contestants {
        if let Some(gateway) = &one.gateway {
            let yaml = contestant::yaml(&frps, pool, "");
            gateway.edit(&yaml)?;
        }
    }
    tokio::time::sleep_until((begun + report::JOINS + Duration::from_secs(14)).into()).await;
    let mut runs = Vec::new();
    for ((one, _), load) in contestants.iter().zip(loads) {
        let grace = if runs.is_empty() { Duration::from_secs(1) } else { Duration::ZERO };
        runs.push((one.name.clone(), load.stop(grace).await));
    }
    Ok(runs)
}

/// Two members in the own zone, three elsewhere: an frps of the own zone dies, then the other one too.
async fn zones(binary: &str, sites: &mut [Site]) -> Result<Vec<Sample>, LabError> {
    let names: Vec<String> = (0..sites.len()).map(|index| format!("s{index}")).collect();
    let frps: Vec<_> = names
        .iter()
        .zip(&*sites)
        .enumerate()
        .map(|(at, (name, site))| {
            (name.as_str(), site.frps.http().port(), if at < 2 { ", zone: here" } else { ", zone: there" })
        })
        .collect();
    let pool = ", balance: least_request, locality: prefer, health: { tcp: {}, interval: 200ms, fall: 1 }";
    let one = contestant::gateway("zones", binary, &frps, pool, "zone: here").await?;
    let begun = Instant::now();
    let load = Load::start(one.address, HOST, 2 * RATE, begun);
    tokio::time::sleep_until((begun + report::ZONE_STEP).into()).await;
    sites[0].frps.kill9();
    tokio::time::sleep_until((begun + report::ZONE_STEP * 2).into()).await;
    sites[1].frps.kill9();
    tokio::time::sleep_until((begun + report::ZONE_STEP * 3).into()).await;
    Ok(load.stop(Duration::from_secs(1)).await)
}

fn say(line: &str) {
    writeln!(io::stderr(), "balance: {line}").ok();
}
