//! Configurations made by hand and a control plane in a box, for tests.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use frp_gateway_config::{model::*, secret::Secret};

use super::{
    Handle, ReloadResult, reload,
    state::Fixed,
    task::{Control, Parts},
};
use crate::{
    clock,
    data::{access_log::AccessLogHandle, worker::Workers},
    snapshot::Published,
};

/// Credentials `user` and `pass`.
pub(crate) fn frps_admin(url: &str) -> FrpsAdmin {
    FrpsAdmin {
        url: url.into(),
        user: "user".into(),
        password: Secret::new("pass"),
        interval: Duration::from_secs(2),
    }
}

/// An frps at `127.0.0.1` with a vhost port and no admin API.
pub(crate) fn frps(name: &str, port: u16) -> Frps {
    Frps {
        name: name.into(),
        host: "127.0.0.1".into(),
        zone: None,
        labels: BTreeMap::new(),
        control_port: None,
        token: None,
        vhost_http_port: Some(port),
        vhost_https_port: None,
        drain: false,
        weight: 1,
        in_flight: None,
        connections: None,
        admin: None,
        plugin: None,
        tunnel_host: "127.0.0.1".into(),
        subdomain_host: None,
        not_found_marker: None,
    }
}

/// A listener on a free port.
pub(crate) fn listener(name: &str) -> Listener {
    Listener {
        http2: None,
        name: name.into(),
        bind: "127.0.0.1:0".parse().unwrap(),
        protocol: Protocol::Http,
        pool: None,
        proxy_protocol: Vec::new(),
        frp: None,
        tls: None,
        trusted_proxies: Vec::new(),
        timeouts: ListenerTimeouts {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            stream_idle: Duration::from_secs(300),
        },
        limits: ListenerLimits {
            head_bytes: 32 * 1024,
            request_line_bytes: 8 * 1024,
            headers: 100,
            body_bytes: None,
            connections: 1000,
            in_flight: None,
        },
    }
}

/// A pool of `(frps, weight)`.
pub(crate) fn pool(name: &str, members: &[(&str, u32)]) -> Pool {
    let member = |(frps, weight): &(&str, u32)| PoolMember {
        frps: (*frps).into(),
        weight: *weight,
        priority: 0,
        port: None,
    };
    Pool {
        protocol: PoolProtocol::H1,
        tls: None,
        name: name.into(),
        carries: frp_gateway_config::model::Carries::Http,
        hold: None,
        proxy_protocol: None,
        frps: members.iter().map(member).collect(),
        tunnels: None,
        balance: Balance::RoundRobin,
        health: None,
        latency_decay: Duration::from_secs(2),
        hash_bound: Some(125),
        affinity: None,
        slow_start: None,
        locality: Locality::Ignore,
        panic_threshold: 0,
        outlier: None,
        limits: Limits {
            connections: None,
            in_flight: None,
            queue: Queue { size: 1000, timeout: Duration::from_secs(1) },
            adaptive: None,
        },
        retry: Retry {
            attempts: 2,
            per_try_timeout: None,
            on: Vec::new(),
            budget: Budget { percent: 20, floor: 3 },
            backoff: Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) },
            hedge: None,
        },
        connect_timeout: Duration::from_secs(2),
        keepalive: Duration::from_secs(60),
        fail_timeout: Duration::from_secs(1),
        absent_timeout: Duration::from_secs(5),
    }
}

/// TCP checks.
pub(crate) fn health() -> Health {
    Health {
        check: HealthCheck::Tcp,
        interval: Duration::from_secs(2),
        fast_interval: Duration::from_millis(500),
        jitter: 10,
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
    }
}

/// The rules that `outlier: {}` stands for.
pub(crate) fn outlier() -> Outlier {
    Outlier {
        consecutive_failures: 5,
        consecutive_gateway_errors: 3,
        success_ratio: Some(SuccessRatio { minimum: 80, min_requests: 20 }),
        latency_factor: None,
        window: Duration::from_secs(10),
        base_ejection: Duration::from_secs(10),
        max_ejection: Duration::from_secs(300),
        max_ejected: 50,
    }
}

/// A route of one host to one pool.
pub(crate) fn route(name: &str, host: &str, pool: &str) -> Route {
    Route {
        redirect: None,
        hsts: None,
        client: None,
        name: name.into(),
        matches: RouteMatch {
            client: Vec::new(),
            hosts: vec![HostMatch::Exact(host.into())],
            path: PathMatch::Prefix("/".into()),
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
        },
        pools: vec![WeightedPool { name: pool.into(), weight: 1 }],
        timeout: None,
        listeners: Vec::new(),
        in_flight: None,
    }
}

/// frps `a` and `b`, pool `shop` of both, route `shop`, listener `web`.
pub(crate) fn config() -> Config {
    Config {
        acme: None,
        zone: None,
        admin: Admin { listen: "127.0.0.1:9900".parse().unwrap(), token: None },
        runtime: Runtime {
            workers: 2,
            drain_timeout: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            upgrade_timeout: Duration::from_secs(60),
        },
        access_log: AccessLog::Off,
        frps: vec![frps("a", 8001), frps("b", 8002)],
        listeners: vec![listener("web")],
        pools: vec![pool("shop", &[("a", 1), ("b", 1)])],
        routes: vec![route("shop", "shop.test", "shop")],
        plugin: None,
        takeover: Takeover { http: true, https: false, rules: Vec::new() },
        claims: Claims { allow: true, share: false, rules: Vec::new() },
        tunnels: Tunnels {
            serve: false,
            listeners: Vec::new(),
            timeout: Some(Duration::from_secs(30)),
            pool: pool("auto", &[]),
            series: 100,
        },
        audit: AccessLog::Off,
        agent: None,
    }
}

/// [`config`], changed.
pub(crate) fn config_with(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    let mut config = config();
    change(&mut config);
    Arc::new(config)
}

/// A control plane on a real file with real workers, which ends with this.
pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) handle: Handle,
    pub(crate) published: Published,
    running: tokio::task::JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A file with one listener `web` on a free port, and `more` at its end.
pub(crate) fn yaml(more: &str) -> String {
    format!(
        "admin: {{ listen: \"127.0.0.1:0\" }}\n\
         runtime: {{ workers: 2 }}\n\
         frps:\n  - {{ name: a, host: 127.0.0.1, vhost_http_port: 8001 }}\n\
         pools:\n  - {{ name: shop, frps: [a] }}\n\
         routes:\n  - {{ name: shop, match: {{ host: shop.test }}, pools: [{{ name: shop }}] }}\n\
         listeners:\n  - {{ name: web, bind: \"127.0.0.1:0\", protocol: http }}\n{more}"
    )
}

impl Rig {
    /// Started on `text`; nobody watches the file.
    pub(crate) async fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        std::fs::write(&path, text).unwrap();
        Self::start_in(folder, path).await
    }

    /// Started on the file at `path`.
    pub(crate) async fn start_in(folder: tempfile::TempDir, path: PathBuf) -> Self {
        let first = reload::load(&path).unwrap_or_else(|faults| panic!("{faults:#?}"));
        let published = Published::default();
        let access_log = AccessLogHandle::off();
        let workers = Arc::new(
            Workers::start(2, &published, &access_log, &crate::telemetry::audit::AuditHandle::off()).unwrap(),
        );
        let admin = first.config.admin.listen;
        let (mut control, handle) = Control::new(Parts {
            path,
            fixed: Fixed { workers: 2, admin, started: clock::now() },
            published: Arc::clone(&published),
            workers,
            access_log,
            audit: crate::telemetry::audit::AuditHandle::off(),
            migrations: Arc::new(super::migration::Migrations::new(Arc::new(super::migration::NoClients))),
        });
        control.start(first).await.unwrap_or_else(|faults| panic!("{faults:#?}"));
        let running = tokio::spawn(control.run());
        Self { folder, handle, published, running }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("gateway.yaml")
    }

    /// Writes the file and reloads.
    pub(crate) async fn reload(&self, text: &str) -> ReloadResult {
        std::fs::write(self.path(), text).unwrap();
        self.handle.reload("test").await.unwrap()
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
