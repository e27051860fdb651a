//! Reads the live counters when somebody scrapes. Nothing is registered per series, so what a reload removes is gone.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use frp_gateway_config::model::Carries;
use lb_algos::Tick;
use prometheus::{
    Encoder, Registry, TextEncoder,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto,
};

use super::{Kind, Metric, TABLE};
use crate::{
    acme::stats::Ended,
    clock,
    control::{
        directory::{Phase, Tunnel, selects},
        relays::REFUSALS,
        task::Board,
    },
    data::{
        access_log::AccessLogHandle,
        reason::{Among, Because},
    },
    error::ERROR_CLASSES,
    frps::plugin::{OPS, PluginState, RESULTS},
    snapshot::{Endpoint, Member, Pool, Published, Snapshot},
    telemetry::{
        audit::AuditHandle,
        log,
        shard::{Counter, Histogram, LATENCY_BOUNDS, Shards},
        stats::{
            CLASSES, ENDS, EndpointShard, FAILURES, HANDSHAKES, ListenerShard, PoolShard, RequestShard,
            TunnelStats,
        },
    },
    tls::{Store, client::UNWELCOME, leaf::seconds_until},
};

/// All that `/metrics` shows.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    /// Reads from these when scraped.
    ///
    /// # Errors
    /// The table has a name that Prometheus doesn't allow, or one twice.
    pub fn new(
        published: Published,
        board: Board,
        access_log: AccessLogHandle,
        certificates: Arc<Store>,
        heard: Option<(Arc<PluginState>, AuditHandle)>,
    ) -> Result<Self, prometheus::Error> {
        let descs = TABLE.iter().map(|metric| {
            let labels = metric.labels.iter().map(ToString::to_string).collect();
            Desc::new(metric.name.into(), metric.help.into(), labels, std::collections::HashMap::new())
        });
        let gateway = Gateway {
            published,
            board,
            access_log,
            certificates,
            heard,
            descs: descs.collect::<Result<_, _>>()?,
        };
        let registry = Registry::new();
        registry.register(Box::new(gateway))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self(registry))
    }

    /// The text format, version 0.0.4.
    ///
    /// # Errors
    /// A family is malformed.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0.gather(), &mut text)?;
        Ok(text)
    }
}

struct Gateway {
    published: Published,
    board: Board,
    access_log: AccessLogHandle,
    certificates: Arc<Store>,
    heard: Option<(Arc<PluginState>, AuditHandle)>,
    descs: Vec<Desc>,
}

impl Collector for Gateway {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let snapshot = self.published.load();
        let mut families = Families::default();
        routes(&mut families, &snapshot);
        listeners(&mut families, &snapshot);
        pools(&mut families, &snapshot);
        let serves = self.board.load().config.as_ref().is_some_and(|config| config.tunnels.serve);
        if serves {
            auto(&mut families, &snapshot.tunnel_stats);
        }
        tunnels(&mut families, &snapshot);
        relays(&mut families, &snapshot);
        certificates(&mut families, &self.certificates);
        self.process(&mut families);
        families.finish()
    }
}

fn routes(families: &mut Families, snapshot: &Snapshot) {
    for route in &snapshot.routes {
        for (index, split) in route.splits.iter().enumerate() {
            let pool = &*split.pool.name;
            if route.splits[..index].iter().any(|before| &*before.pool.name == pool) {
                continue; // named twice, counted once
            }
            answers(families, [&route.name, pool, "tunnels"], &split.stats.rest);
            for (member, requests) in split.pool.members.iter().zip(&split.stats.requests) {
                answers(families, [&route.name, pool, member.endpoint.label()], requests);
            }
            duration(families, [&route.name, pool], &split.stats.latency);
        }
    }
}

/// Answers by class.
fn answers(families: &mut Families, [route, pool, endpoint]: [&str; 3], requests: &Shards<RequestShard>) {
    for (at, class) in CLASSES.iter().enumerate() {
        let count = requests.sum(|shard| &shard.by_class[at]);
        if count > 0 {
            families.add(super::REQUESTS, &[route, pool, endpoint, class], count);
        }
    }
}

fn duration(families: &mut Families, labels: [&str; 2], latency: &Shards<Histogram>) {
    let (mut buckets, mut sum_ns) = ([0; LATENCY_BOUNDS.len() + 1], 0);
    for shard in latency.iter() {
        shard.add_to(&mut buckets, &mut sum_ns);
    }
    if buckets.iter().any(|count| *count > 0) {
        families.add_histogram(super::REQUEST_DURATION, &labels, &buckets, sum_ns);
    }
}

/// Tunnels that are routes by themselves, together.
fn auto(families: &mut Families, stats: &TunnelStats) {
    answers(families, ["auto", "auto", "tunnels"], &stats.split.rest);
    duration(families, ["auto", "auto"], &stats.split.latency);
    pool_counters(families, "auto", &stats.pool);
}

/// Each tunnel for itself, and who claims what.
fn tunnels(families: &mut Families, snapshot: &Snapshot) {
    let stats = &snapshot.tunnel_stats;
    let named = stats.series.iter().map(|(name, requests)| (&**name, requests));
    for (tunnel, requests) in named.chain([("other", &stats.other)]) {
        for (at, class) in CLASSES.iter().enumerate() {
            let count = requests.sum(|shard| &shard.by_class[at]);
            if count > 0 {
                families.add(super::TUNNEL_REQUESTS, &[tunnel, class], count);
            }
        }
    }
    families.add(super::TUNNEL_HOSTS, &[], snapshot.tunnels.len() as u64);
    let conflicts: usize = snapshot.tunnels.iter().map(|(_, host)| host.losers.len()).sum();
    families.add(super::TUNNEL_CONFLICTS, &[], conflicts as u64);
}

/// Clients of FRP.
fn relays(families: &mut Families, snapshot: &Snapshot) {
    let names = |name: &str| snapshot.listeners.iter().flatten().any(|listener| *listener.name == *name);
    for ((listener, frps), counts) in snapshot.relays.counts() {
        if names(&listener) {
            families.add(super::CONTROL_CONNECTIONS, &[&listener, &frps], counts.open);
            families.add(super::CONTROL_PLACED, &[&listener, &frps], counts.placed);
            families.add(super::CONTROL_REPLAYED, &[&listener, &frps], counts.replayed);
        }
    }
    for (listener, counts) in snapshot.relays.refusals() {
        for (reason, count) in REFUSALS.iter().zip(counts) {
            if count > 0 && names(&listener) {
                families.add(super::CONTROL_REFUSED, &[&listener, reason], count);
            }
        }
    }
}

/// Series of certificates that are shown, those that expire soonest.
const MOST_CERTIFICATES: usize = 1000;

fn certificates(families: &mut Families, store: &Store) {
    let now = SystemTime::now();
    let shown = store.shown(now);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut expiries: BTreeMap<(&str, &str, &str), i64> = BTreeMap::new();
    for view in &shown {
        for listener in &view.listeners {
            *counts.entry(listener).or_default() += 1;
            // Namesakes are one series: the one that expires first.
            let left = expiries.entry((listener, &view.name, &view.key)).or_insert(i64::MAX);
            *left = view.seconds_left.min(*left);
        }
    }
    for (listener, count) in counts {
        families.add(super::CERTIFICATES, &[listener], count);
    }
    let mut expiries: Vec<_> = expiries.into_iter().collect();
    expiries.sort_by_key(|(_, left)| *left);
    for ((listener, name, key), left) in expiries.into_iter().take(MOST_CERTIFICATES) {
        families.add_signed(super::CERTIFICATE_EXPIRY, &[listener, name, key], left);
    }
    let counts = store.counts();
    families.add(super::CERTIFICATE_CHANGES, &["swapped"], counts.swapped);
    families.add(super::CERTIFICATE_CHANGES, &["refused"], counts.refused);
    let faults = shown.iter().filter(|view| view.fault.is_some()).count();
    families.add(super::CERTIFICATE_FAULTS, &[], faults as u64);
    let orders = store.orders();
    for ended in Ended::ALL {
        let count = orders.iter().find(|(word, _)| *word == ended.word()).map_or(0, |(_, count)| *count);
        families.add(super::ACME_ORDERS, &[ended.word()], count);
    }
    if let Some(at) = store.next_renewal() {
        families.add_signed(super::ACME_NEXT_RENEWAL, &[], seconds_until(at, now));
    }
}

fn listeners(families: &mut Families, snapshot: &Snapshot) {
    for listener in snapshot.listeners.iter().flatten() {
        let name = &*listener.name;
        let sum = |counter: fn(&ListenerShard) -> &Counter| listener.stats.sum(counter);
        families.add(super::CONNECTIONS_ACCEPTED, &[name], sum(|shard| &shard.accepted));
        families.add(super::CONNECTIONS_OPEN, &[name], sum(|shard| &shard.open));
        families.add(super::CONNECTIONS_REFUSED, &[name], sum(|shard| &shard.refused));
        families.add(super::PROXY_HEADER_ERRORS, &[name], sum(|shard| &shard.proxy_header_errors));
        families.add(super::HTTP2_FLOODS, &[name], sum(|shard| &shard.http2_floods));
        families.add(super::CONNECTIONS_UPGRADED, &[name], sum(|shard| &shard.upgraded));
        families.add(super::EXCHANGES_ABORTED, &[name], sum(|shard| &shard.aborted));
        families.add(super::VISITORS_GONE, &[name], sum(|shard| &shard.visitor_gone));
        let touched = |families: &mut Families, metric, label: &str, count: u64| {
            if count > 0 {
                families.add(metric, &[name, label], count);
            }
        };
        for (at, end) in ENDS.iter().enumerate() {
            touched(families, super::RELAYS, end, listener.stats.sum(|shard| &shard.relays[at]));
        }
        for (at, result) in HANDSHAKES.iter().enumerate() {
            let count = listener.stats.sum(|shard| &shard.handshakes[at]);
            touched(families, super::TLS_HANDSHAKES, result, count);
        }
        for (at, reason) in UNWELCOME.iter().enumerate() {
            let refused = listener.stats.sum(|shard| &shard.clients_refused[at]);
            touched(families, super::CLIENTS_REFUSED, reason, refused);
            let cut = listener.stats.sum(|shard| &shard.clients_cut[at]);
            touched(families, super::CLIENTS_CUT, reason, cut);
        }
        for (at, direction) in ["in", "out"].iter().enumerate() {
            let bytes = listener.stats.sum(|shard| &shard.relayed[at]);
            touched(families, super::RELAYED_BYTES, direction, bytes);
        }
        families.add(super::DATAGRAMS_DROPPED, &[name], sum(|shard| &shard.datagrams_dropped));
        for (at, class) in ERROR_CLASSES.iter().enumerate() {
            let count = listener.stats.sum(|shard| &shard.own_answers[at]);
            families.add(super::OWN_ANSWERS, &[name, class], count);
        }
    }
}

fn pools(families: &mut Families, snapshot: &Snapshot) {
    let now = clock::now();
    let (mut seen, mut endpoints) = (HashSet::new(), Vec::new());
    for pool in &snapshot.pools {
        pool_counters(families, &pool.name, &pool.stats);
        families.add(super::POOL_QUEUE, &[&pool.name], pool.queue.len().into());
        // Tunnels come and go, and there may be thousands.
        if pool.of_tunnels && pool.members.len() > snapshot.tunnel_stats.most {
            continue;
        }
        for member in &pool.members {
            let endpoint = &*member.endpoint;
            let up = member.state.is_healthy() && !endpoint.is_down(now);
            families.add(super::ENDPOINT_UP, &[&pool.name, endpoint.label()], u64::from(up));
            watch_verdicts(families, pool, member, now);
            if seen.insert(endpoint.number) {
                endpoints.push(endpoint);
            }
        }
    }
    // A vhost port is another endpoint for a pool of tunnels than for one of servers; their series is one.
    endpoints.sort_by(|one, other| one.label().cmp(other.label()));
    for namesakes in endpoints.chunk_by(|one, other| one.label() == other.label()) {
        endpoint_counters(families, namesakes);
    }
}

fn pool_counters(families: &mut Families, pool: &str, stats: &Shards<PoolShard>) {
    let sum = |counter: fn(&PoolShard) -> &Counter| stats.sum(counter);
    families.add(super::POOL_RETRIES, &[pool], sum(|shard| &shard.retries));
    families.add(super::POOL_EXHAUSTED, &[pool], sum(|shard| &shard.exhausted));
    families.add(super::POOL_RETRY_BUDGET_EXHAUSTED, &[pool], sum(|shard| &shard.budget_exhausted));
    families.add(super::POOL_HEDGES, &[pool], sum(|shard| &shard.hedges));
    families.add(super::POOL_REJECTED, &[pool], sum(|shard| &shard.rejected));
    families.add(super::POOL_QUEUED, &[pool], sum(|shard| &shard.queued));
    families.add(super::POOL_OVERFLOWED, &[pool], sum(|shard| &shard.overflowed));
    families.add(super::POOL_HELD, &[pool], sum(|shard| &shard.held));
    families.add(super::POOL_HOLDS, &[pool], sum(|shard| &shard.holds));
    families.add(super::POOL_HOLD_EXPIRED, &[pool], sum(|shard| &shard.hold_expired));
    families.add(super::POOL_HOLD_REFUSED, &[pool], sum(|shard| &shard.hold_refused));
    for reason in Because::ALL {
        for among in Among::ALL {
            let count = stats.sum(|shard| &shard.picks.by_reason[reason as usize][among as usize]);
            if count > 0 {
                families.add(super::POOL_PICKS, &[pool, reason.label(), among.label()], count);
            }
        }
    }
}

fn watch_verdicts(families: &mut Families, pool: &Pool, member: &Member, now: Tick) {
    let labels = [&*pool.name, member.endpoint.label()];
    if pool.outlier.is_some() {
        families.add(super::ENDPOINT_EJECTED, &labels, u64::from(member.state.is_ejected(now)));
        for (cause, count) in member.state.ejections() {
            families.add(super::ENDPOINT_EJECTIONS, &[labels[0], labels[1], cause.label()], count);
        }
    }
    if pool.limits.adaptive.is_some() {
        families.add(super::ENDPOINT_LIMIT, &labels, member.state.limit().into());
    }
}

/// Of endpoints of one name, together.
fn endpoint_counters(families: &mut Families, namesakes: &[&Endpoint]) {
    let Some(name) = namesakes.first().map(|endpoint| endpoint.label()) else { return };
    let now = |gauge: fn(&Endpoint) -> u32| namesakes.iter().map(|one| u64::from(gauge(one))).sum();
    families.add(super::ENDPOINT_IN_FLIGHT, &[name], now(Endpoint::in_flight));
    families.add(super::ENDPOINT_CONNECTIONS, &[name], now(Endpoint::connections));
    let sum = |counter: &dyn Fn(&EndpointShard) -> &Counter| {
        namesakes.iter().map(|one| one.stats.sum(counter)).sum::<u64>()
    };
    families.add(super::ENDPOINT_CONNECTS, &[name], sum(&|shard| &shard.connects));
    families.add(super::ENDPOINT_REUSES, &[name], sum(&|shard| &shard.reuses));
    families.add(super::ENDPOINT_ABSENT, &[name], sum(&|shard| &shard.absent));
    for (at, reason) in FAILURES.iter().enumerate() {
        families.add(super::ENDPOINT_FAILURES, &[name, reason], sum(&|shard| &shard.failures[at]));
    }
}

impl Gateway {
    fn process(&self, families: &mut Families) {
        let state = self.board.load();
        let reloads = &state.reloads;
        families.add(super::CONFIG_GENERATION, &[], state.generation);
        let successful = reloads.last_try.is_some() && reloads.faults.is_empty();
        families.add(super::CONFIG_LAST_RELOAD_SUCCESSFUL, &[], u64::from(successful));
        if let Some(at) = reloads.last_success {
            let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            families.add(super::CONFIG_LAST_RELOAD_SUCCESS, &[], seconds);
        }
        families.add(super::CONFIG_RELOADS, &["changed"], reloads.changed);
        families.add(super::CONFIG_RELOADS, &["unchanged"], reloads.unchanged);
        families.add(super::CONFIG_RELOADS, &["refused"], reloads.failed);
        for (name, frps) in &state.frps {
            families.add(super::FRPS_LISTING_STALE, &[name], u64::from(frps.is_stale()));
            families.add(super::FRPS_TUNNELS, &[name], frps.tunnels() as u64);
            let count = |wanted: &dyn Fn(&Tunnel) -> bool| {
                frps.table.values().filter(|tunnel| wanted(tunnel)).count() as u64
            };
            let serves = |tunnel: &Tunnel| match tunnel.way.carries() {
                Some(Carries::Http | Carries::Tls) => true,
                // Nobody can ask for a port by name: it is for pools.
                Some(carries @ (Carries::Tcp | Carries::Udp)) => state.config.iter().any(|config| {
                    let mut pools = config.pools.iter().filter(|pool| pool.carries == carries);
                    pools.any(|pool| pool.tunnels.as_ref().is_some_and(|one| selects(one, tunnel)))
                }),
                None => false,
            };
            let live = count(&|tunnel| serves(tunnel) && tunnel.phase == Phase::Live);
            let suspect = count(&|tunnel| serves(tunnel) && tunnel.phase == Phase::Suspect);
            families.add(super::TUNNELS, &[name, "live"], live);
            families.add(super::TUNNELS, &[name, "suspect"], suspect);
            families.add(super::TUNNELS, &[name, "claimed"], frps.claimed.len() as u64);
            families.add(super::TUNNELS, &[name, "unserved"], count(&|tunnel| !serves(tunnel)));
            let stale = if frps.is_stale() { live + suspect } else { 0 };
            families.add(super::TUNNELS_STALE, &[name], stale);
        }
        let counts = state.counts;
        for (event, count) in [
            ("claimed", counts.claimed),
            ("live", counts.live),
            ("changed", counts.changed),
            ("closing", counts.closing),
            ("gone", counts.gone),
            ("lapsed", counts.lapsed),
        ] {
            families.add(super::TUNNEL_EVENTS, &[event], count);
        }
        if let Some((plugin, audit)) = &self.heard {
            let stats = &plugin.stats;
            for (op, calls) in OPS.iter().zip(&stats.calls) {
                for (result, count) in RESULTS.iter().zip(calls) {
                    let count = count.load(Relaxed);
                    if count > 0 {
                        families.add(super::PLUGIN_CALLS, &[op, result], count);
                    }
                }
            }
            families.add(super::PLUGIN_DENIED, &["address"], stats.denied.load(Relaxed));
            families.add(super::PLUGIN_DENIED, &["path"], stats.unknown.load(Relaxed));
            families.add(super::PLUGIN_REPORTS, &[], stats.reports.load(Relaxed));
            families.add(super::AUDIT_DROPPED, &[], audit.dropped());
        }
        families.add(super::ACCESS_LOG_DROPPED, &[], self.access_log.dropped());
        families.add(super::LOG_DROPPED, &[], log::dropped());
        families.add(super::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1);
    }
}

/// Families in the making.
#[derive(Default)]
struct Families(Vec<(&'static str, proto::MetricFamily)>);

impl Families {
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only f64; exact up to 2^53")]
    fn add(&mut self, metric: Metric, labels: &[&str], value: u64) {
        let mut sample = proto::Metric::from_label(pairs(metric, labels));
        match metric.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value as f64);
                sample.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value as f64);
                sample.set_gauge(gauge);
            }
            Kind::Histogram => debug_assert!(false, "{} needs buckets", metric.name),
        }
        self.push(metric, sample);
    }

    /// A gauge that may be negative.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only f64; exact up to 2^53")]
    fn add_signed(&mut self, metric: Metric, labels: &[&str], value: i64) {
        let mut sample = proto::Metric::from_label(pairs(metric, labels));
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value as f64);
        sample.set_gauge(gauge);
        self.push(metric, sample);
    }

    #[expect(clippy::cast_precision_loss, reason = "104 days of latency are exact to the nanosecond")]
    fn add_histogram(
        &mut self,
        metric: Metric,
        labels: &[&str],
        buckets: &[u64; LATENCY_BOUNDS.len() + 1],
        sum_ns: u64,
    ) {
        let mut histogram = proto::Histogram::default();
        let mut below = 0;
        let cumulative = LATENCY_BOUNDS.iter().zip(buckets).map(|(bound, count)| {
            below += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        histogram.set_bucket(cumulative.collect());
        histogram.set_sample_count(buckets.iter().sum());
        histogram.set_sample_sum(sum_ns as f64 / 1e9);
        let mut sample = proto::Metric::from_label(pairs(metric, labels));
        sample.set_histogram(histogram);
        self.push(metric, sample);
    }

    fn push(&mut self, metric: Metric, sample: proto::Metric) {
        // Samples of a family mostly come one after the other, so look from the end.
        let at = self.0.iter().rposition(|(name, _)| *name == metric.name).unwrap_or_else(|| {
            let mut family = proto::MetricFamily::default();
            family.set_name(metric.name.into());
            family.set_help(metric.help.into());
            family.set_field_type(match metric.kind {
                Kind::Counter => proto::MetricType::COUNTER,
                Kind::Gauge => proto::MetricType::GAUGE,
                Kind::Histogram => proto::MetricType::HISTOGRAM,
            });
            self.0.push((metric.name, family));
            self.0.len() - 1
        });
        self.0[at].1.mut_metric().push(sample);
    }

    fn finish(self) -> Vec<proto::MetricFamily> {
        self.0.into_iter().map(|(_, family)| family).collect()
    }
}

fn pairs(metric: Metric, values: &[&str]) -> Vec<proto::LabelPair> {
    debug_assert_eq!(metric.labels.len(), values.len(), "labels of {}", metric.name);
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    metric.labels.iter().zip(values).map(pair).collect()
}
