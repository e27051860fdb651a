//! A pingora proxy that does the same job as the other contestants: `pingora-yardstick PORT WORKERS BACKEND_PORT…`
//!
//! 1,000 hosts over ten pools, path prefix, round robin, X-Forwarded-For, upstream keep-alive, no log. Written as the
//! pingora examples do it, without tricks: it shows what the gateway would cost on that framework.

use std::collections::HashMap;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use frp_gateway_benches::job::HOSTS;
use pingora_core::prelude::HttpPeer;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::{ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

// As the gateway has it. With the C library's allocator it makes an mprotect call every few requests.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const POOLS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<u16> = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let [port, workers, backends @ ..] = args.as_slice() else {
        return Err("usage: pingora-yardstick PORT WORKERS BACKEND_PORT…".into());
    };
    let conf = ServerConf {
        threads: usize::from(*workers),
        work_stealing: false, // cheaper than the default here
        upstream_keepalive_pool_size: 1_024,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Table::new(backends));
    service.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(service);
    server.run_forever()
}

struct Table {
    hosts: HashMap<String, (&'static str, Arc<Pool>)>, // path prefix, pool
}

struct Pool {
    backends: Vec<SocketAddr>,
    next: AtomicUsize,
}

impl Table {
    fn new(ports: &[u16]) -> Self {
        let backends: Vec<_> =
            ports.iter().map(|&port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect();
        let pools: Vec<_> = (0..POOLS)
            .map(|_| Arc::new(Pool { backends: backends.clone(), next: AtomicUsize::new(0) }))
            .collect();
        let hosts = (0..HOSTS)
            .map(|host| (format!("h{host}.example.com"), ("/", Arc::clone(&pools[host % POOLS]))))
            .collect();
        Self { hosts }
    }

    fn find(&self, host: &str, path: &str) -> Option<&Pool> {
        let host = host.split_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
        let (prefix, pool) = self.hosts.get(&host)?;
        path.starts_with(prefix).then_some(pool.as_ref())
    }
}

#[async_trait]
impl ProxyHttp for Table {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, session: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let head = session.req_header();
        let host = head.headers.get("host").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(pool) = self.find(host, head.uri.path()) else {
            return pingora_core::Error::e_explain(ErrorType::HTTPStatus(404), "unknown host");
        };
        let turn = pool.next.fetch_add(1, Ordering::Relaxed) % pool.backends.len();
        Ok(Box::new(HttpPeer::new(pool.backends[turn], false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        if let Some(peer) = session.client_addr().and_then(|address| address.as_inet()) {
            request.insert_header("X-Forwarded-For", peer.ip().to_string())?;
        }
        Ok(())
    }
}
