//! The one table of all metrics. `/metrics` is filled from it ([`collect`]), `docs/reference/metrics.md` is written from
//! it ([`reference()`]), and a test compares.

pub mod collect;

use std::fmt::Write;

use super::shard::LATENCY_BOUNDS;

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Names of its labels, in order.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub help: &'static str,
}

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the thing it counts for goes away.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! table {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal)*) => {
        $(#[doc = $help] pub const $id: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// Every metric of our own, in the order of the reference.
        pub const TABLE: &[Metric] = &[$($id),*];
    };
}

table! {
    REQUESTS: Counter "frp_gateway_requests_total" ["route", "pool", "endpoint", "class"]
        "Answers that came from an endpoint, by status class. Only series that were touched are shown."
    REQUEST_DURATION: Histogram "frp_gateway_request_duration_seconds" ["route", "pool"]
        "Time from the last byte of a request's head to the last byte of its answer. Only series that were touched are shown."
    OWN_ANSWERS: Counter "frp_gateway_own_answers_total" ["listener", "class"]
        "Answers that the gateway made itself, and connections that nobody served, by reason; the same word is in the x-frp-gateway response header."
    CONNECTIONS_ACCEPTED: Counter "frp_gateway_connections_accepted_total" ["listener"]
        "Visitors' connections accepted."
    CONNECTIONS_OPEN: Gauge "frp_gateway_connections_open" ["listener"]
        "Visitors' connections open now."
    CONNECTIONS_REFUSED: Counter "frp_gateway_connections_refused_total" ["listener"]
        "Visitors' connections closed at once because limits.connections was reached."
    PROXY_HEADER_ERRORS: Counter "frp_gateway_proxy_header_errors_total" ["listener"]
        "Connections closed because the PROXY protocol header that their peer must send was missing, malformed or late."
    HTTP2_FLOODS: Counter "frp_gateway_http2_floods_total" ["listener"]
        "HTTP/2 connections closed with ENHANCE_YOUR_CALM: the visitor sent too many frames that bring nothing, or too large heads."
    TLS_HANDSHAKES: Counter "frp_gateway_tls_handshakes_total" ["listener", "result"]
        "Handshakes of https listeners by how they ended: full, resumed (by a ticket), failed (one side refused, the log says why), slow (timeouts.header), gone (the visitor went away). Only series that were touched are shown."
    CLIENTS_REFUSED: Counter "frp_gateway_clients_refused_total" ["listener", "reason"]
        "Handshakes that ended for the client's certificate: no_certificate, unknown_issuer, expired (or not valid yet), revoked, not_allowed, bad_certificate. Only series that were touched are shown."
    CLIENTS_CUT: Counter "frp_gateway_clients_cut_total" ["listener", "reason"]
        "Connections cut because their client's certificate isn't good any more, by the same reasons. Only series that were touched are shown."
    CONNECTIONS_UPGRADED: Gauge "frp_gateway_connections_upgraded" ["listener"]
        "Visitors' connections that changed protocol (WebSocket) and are open now."
    EXCHANGES_ABORTED: Counter "frp_gateway_exchanges_aborted_total" ["listener"]
        "Exchanges cut by the endpoint after the answer had begun."
    VISITORS_GONE: Counter "frp_gateway_visitors_gone_total" ["listener"]
        "Visitors who went away before their answer was complete."
    RELAYS: Counter "frp_gateway_relays_total" ["listener", "end"]
        "Connections of tcp and tls_passthrough listeners, and sessions of udp ones, that have ended, by how. Only series that were touched are shown."
    RELAYED_BYTES: Counter "frp_gateway_relayed_bytes_total" ["listener", "direction"]
        "Bytes of connections that have ended: in (from visitors), out (to visitors). Only series that were touched are shown."
    DATAGRAMS_DROPPED: Counter "frp_gateway_datagrams_dropped_total" ["listener"]
        "Datagrams that were not sent on: no member, too many sessions or too many waiting, a full socket."
    ENDPOINT_IN_FLIGHT: Gauge "frp_gateway_endpoint_in_flight" ["endpoint"]
        "Requests at the endpoint that have not ended."
    ENDPOINT_CONNECTS: Counter "frp_gateway_endpoint_connects_total" ["endpoint"]
        "New connections to the endpoint that came up."
    ENDPOINT_REUSES: Counter "frp_gateway_endpoint_reuses_total" ["endpoint"]
        "Exchanges on a kept connection to the endpoint."
    ENDPOINT_FAILURES: Counter "frp_gateway_endpoint_failures_total" ["endpoint", "reason"]
        "Attempts that failed at the endpoint, by reason."
    ENDPOINT_ABSENT: Counter "frp_gateway_endpoint_absent_total" ["endpoint"]
        "Answers recognised as the frps's own page for a host without a tunnel."
    ENDPOINT_UP: Gauge "frp_gateway_endpoint_up" ["pool", "endpoint"]
        "1 while the pool sends requests to the endpoint; 0 while its health checks fail or its last connect did."
    ENDPOINT_EJECTED: Gauge "frp_gateway_endpoint_ejected" ["pool", "endpoint"]
        "1 while the pool leaves the endpoint out because of what its traffic shows. Only of pools with outlier rules."
    ENDPOINT_EJECTIONS: Counter "frp_gateway_endpoint_ejections_total" ["pool", "endpoint", "cause"]
        "Ejections by cause. Only of pools with outlier rules."
    ENDPOINT_LIMIT: Gauge "frp_gateway_endpoint_limit" ["pool", "endpoint"]
        "Requests that may be in flight at the endpoint, as the adaptive limit stands. Only of pools that have one."
    POOL_RETRIES: Counter "frp_gateway_pool_retries_total" ["pool"]
        "Attempts after the first."
    POOL_PICKS: Counter "frp_gateway_pool_picks_total" ["pool", "reason", "among"]
        "Members picked, by what decided and which members were looked at. Only series that were touched are shown."
    POOL_RETRY_BUDGET_EXHAUSTED: Counter "frp_gateway_pool_retry_budget_exhausted_total" ["pool"]
        "Retries not made because the retry budget was empty."
    POOL_HEDGES: Counter "frp_gateway_pool_hedges_total" ["pool"]
        "Second attempts begun beside a slow one."
    POOL_REJECTED: Counter "frp_gateway_pool_rejected_total" ["pool"]
        "Answers thrown away and asked for elsewhere because of their status (retry.on)."
    POOL_QUEUED: Counter "frp_gateway_pool_queued_total" ["pool"]
        "Requests that waited because every eligible endpoint was at its limit."
    POOL_OVERFLOWED: Counter "frp_gateway_pool_overflowed_total" ["pool"]
        "Requests refused because the queue was full or the wait too long."
    POOL_QUEUE: Gauge "frp_gateway_pool_queue_length" ["pool"]
        "Requests waiting now."
    POOL_HELD: Gauge "frp_gateway_pool_held" ["pool"]
        "Requests that wait now for a tunnel to come back."
    POOL_HOLDS: Counter "frp_gateway_pool_holds_total" ["pool"]
        "Requests that waited for a tunnel to come back."
    POOL_HOLD_EXPIRED: Counter "frp_gateway_pool_hold_expired_total" ["pool"]
        "Requests for which none came back in time."
    POOL_HOLD_REFUSED: Counter "frp_gateway_pool_hold_refused_total" ["pool"]
        "Requests that were answered at once because too many waited already."
    ENDPOINT_CONNECTIONS: Gauge "frp_gateway_endpoint_connections" ["endpoint"]
        "Open connections to the endpoint, idle ones included."
    POOL_EXHAUSTED: Counter "frp_gateway_pool_exhausted_total" ["pool"]
        "Requests whose attempts or endpoints ran out."
    CONFIG_LAST_RELOAD_SUCCESSFUL: Gauge "frp_gateway_config_last_reload_successful" []
        "1 when the last reload succeeded or found nothing new, 0 when it was refused."
    CONFIG_LAST_RELOAD_SUCCESS: Gauge "frp_gateway_config_last_reload_success_timestamp_seconds" []
        "Unix time of the last reload that succeeded or found nothing new."
    CONFIG_RELOADS: Counter "frp_gateway_config_reloads_total" ["result"]
        "Reloads by result: changed (the first load included), unchanged, refused."
    CONFIG_GENERATION: Gauge "frp_gateway_config_generation" []
        "Number of the configuration in force; grows by one with each that differs."
    FRPS_LISTING_STALE: Gauge "frp_gateway_frps_listing_stale" ["frps"]
        "1 while the admin API of the frps does not answer and its last listing, if any, is used."
    FRPS_TUNNELS: Gauge "frp_gateway_frps_tunnels" ["frps"]
        "Tunnels of every type that are known of the frps."
    TUNNELS: Gauge "frp_gateway_tunnels" ["frps", "state"]
        "Tunnels of the frps by state: live, suspect (said to be closing), claimed (announced, not seen yet), unserved (live, but not served here)."
    TUNNELS_STALE: Gauge "frp_gateway_tunnels_stale" ["frps"]
        "Tunnels of the frps that are used as they were last known, because its admin API does not answer."
    TUNNEL_HOSTS: Gauge "frp_gateway_tunnel_hosts" []
        "Hosts that some tunnel claims."
    TUNNEL_CONFLICTS: Gauge "frp_gateway_tunnel_conflicts" []
        "Claims of a host that belongs to another user; nothing is sent there."
    TUNNEL_EVENTS: Counter "frp_gateway_tunnel_events_total" ["event"]
        "What happened to tunnels: claimed, live, changed, closing, gone, lapsed."
    TUNNEL_REQUESTS: Counter "frp_gateway_tunnel_requests_total" ["tunnel", "class"]
        "Answers that came from a tunnel by its own port. The first tunnels.series tunnels have a series each, the rest share tunnel=other. Only series that were touched are shown."
    CONTROL_CONNECTIONS: Gauge "frp_gateway_control_connections" ["listener", "frps"]
        "Clients of FRP relayed now. Behind TLS that is passed through, a work connection (tcpMux off) counts until it is recognised."
    CONTROL_PLACED: Counter "frp_gateway_control_connections_placed_total" ["listener", "frps"]
        "Connections of frpc that were placed on the frps, work connections and those that went elsewhere afterwards included."
    CONTROL_REPLAYED: Counter "frp_gateway_control_connections_replayed_total" ["listener", "frps"]
        "Connections of frpc that went to another frps because this one did not answer."
    CONTROL_REFUSED: Counter "frp_gateway_control_connections_refused_total" ["listener", "reason"]
        "Connections of frpc given up before an frps answered: slow (timeouts.header), unknown (not FRP), too_many (of one address, not logged in), tls, certificate (the client's), no_frps, gone (the client itself). Only series that were touched are shown."
    PLUGIN_CALLS: Counter "frp_gateway_plugin_calls_total" ["op", "result"]
        "Plugin calls of frps by operation and what was answered. Only series that were touched are shown."
    PLUGIN_DENIED: Counter "frp_gateway_plugin_denied_total" ["reason"]
        "What the plugin listener turned away: address (plugin.allow, or too many connections), path (nobody's, or a wrong token)."
    PLUGIN_REPORTS: Counter "frp_gateway_plugin_reports_total" []
        "Reports of agents."
    AUDIT_DROPPED: Counter "frp_gateway_audit_dropped_total" []
        "Audit lines lost because their destination was too slow or failed."
    ACCESS_LOG_DROPPED: Counter "frp_gateway_access_log_dropped_total" []
        "Access-log lines lost because their destination was too slow or failed."
    LOG_DROPPED: Counter "frp_gateway_log_dropped_total" []
        "Log lines lost because standard error was too slow."
    CERTIFICATES: Gauge "frp_gateway_certificates" ["listener"]
        "Certificates that the listener serves."
    CERTIFICATE_EXPIRY: Gauge "frp_gateway_certificate_expiry_seconds" ["listener", "name", "key"]
        "Seconds until the certificate expires, negative afterwards; name is its first DNS name, key the kind of its key. The 1,000 that expire soonest."
    CERTIFICATE_CHANGES: Counter "frp_gateway_certificate_changes_total" ["result"]
        "Files of certificates that changed, by result: swapped, refused (the old certificate stays in force)."
    CERTIFICATE_FAULTS: Gauge "frp_gateway_certificate_faults" []
        "Certificates whose files hold something newer that cannot be served."
    ACME_ORDERS: Counter "frp_gateway_acme_orders_total" ["result"]
        "Orders of certificates by how they ended: issued, renewed, failed (the authority refused, or saw no proof; the log has its words), unreachable (no answer), limited (the authority wants fewer), shared (another gateway had it); refused: not ordered, since nobody may have one for the name, or its user no more."
    ACME_NEXT_RENEWAL: Gauge "frp_gateway_acme_next_renewal_seconds" []
        "Seconds until the first certificate of the authority is due to be renewed, negative while that is late; no series while there is none. Late by more than an hour: the log has the reason."
    BUILD_INFO: Gauge "frp_gateway_build_info" ["version"]
        "Always 1; the version is the label."
}

/// What the `prometheus` crate adds about the process.
const PROCESS: [(&str, Kind, &str); 7] = [
    ("process_cpu_seconds_total", Kind::Counter, "User and system CPU time, whole seconds."),
    ("process_max_fds", Kind::Gauge, "Limit of open file descriptors."),
    ("process_open_fds", Kind::Gauge, "Open file descriptors."),
    ("process_resident_memory_bytes", Kind::Gauge, "Resident memory."),
    ("process_start_time_seconds", Kind::Gauge, "Unix time of the start."),
    ("process_threads", Kind::Gauge, "Threads."),
    ("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory."),
];

/// Text of `docs/reference/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Generated from the table in `gateway/src/telemetry/metrics.rs`; a test compares. To write it anew: \
         `UPDATE_GOLDEN=1 cargo test -p frp-gateway metrics`.\n\n\
         `GET /metrics` on the admin listener. The unit is the last word of the name. Labels hold names from the \
         configuration, never anything a visitor sent; `endpoint` is the name of its frps, or `tunnels` for all tunnels of a pool together. \
         Tunnels without a pool of their own have route and pool `auto`. Series appear and vanish with \
         what they count for; counters survive a reload.\n\n\
         Tunnels come and go, so their series are bounded: the first `tunnels.series` (100) tunnels are counted one by one, and a \
         pool of tunnels shows its members (`frp_gateway_endpoint_…`, as `FRPS/TUNNEL`) while it has no more than that; pools that tunnels make by themselves \
         never do. `GET /api/v1/tunnels` and `frp-gateway status --tunnels` show every one.\n\n\
         | name | type | labels | meaning |\n| --- | --- | --- | --- |\n",
    );
    let mut row = |name: &str, kind: Kind, labels: &str, help: &str| {
        writeln!(text, "| `{name}` | {} | {labels} | {help} |", kind.word())
            .expect("writing to a String cannot fail");
    };
    for metric in TABLE {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        row(metric.name, metric.kind, &labels.join(", "), metric.help);
    }
    for (name, kind, help) in PROCESS {
        row(name, kind, "", help);
    }
    let bounds: Vec<_> = LATENCY_BOUNDS.iter().map(ToString::to_string).collect();
    let list = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    text += &format!(
        "\n## Values of bounded labels\n\n\
         - `class` of `frp_gateway_requests_total`: {}\n\
         - `class` of `frp_gateway_own_answers_total`: {}\n\
         - `reason`: {}\n\
         - `cause`: {}\n\
         - `end`: {}\n\
         - Buckets of `frp_gateway_request_duration_seconds`, seconds: {}\n",
        list(&super::stats::CLASSES),
        list(&crate::error::ERROR_CLASSES),
        list(&super::stats::FAILURES),
        list(&lb_algos::outlier::Cause::ALL.map(lb_algos::outlier::Cause::label)),
        list(&super::stats::ENDS),
        bounds.join(", "),
    );
    text
}

#[cfg(test)]
mod tests;
