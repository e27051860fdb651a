//! Who balances: the gateway with one policy each, and the peers that are installed.

use std::{net::SocketAddr, path::Path};

use frp_gateway_loadtest::lab::{Frps, Gateway, LabError, Peer};

/// One balancer in front of the fleet.
#[derive(Debug)]
pub(crate) struct Contestant {
    /// `gateway peak_ewma`, `haproxy leastconn` …
    pub(crate) name: String,
    /// Where visitors go.
    pub(crate) address: SocketAddr,
    /// Ours, for live edits.
    pub(crate) gateway: Option<Gateway>,
    _peer: Option<Peer>,
}

/// The YAML of a gateway over `frps` with these pool keys; `top` are further top-level lines.
pub(crate) fn yaml(frps: &[(&str, u16, &str)], pool: &str, top: &str) -> String {
    let entries: Vec<_> = frps
        .iter()
        .map(|(name, port, more)| {
            format!("  - {{ name: {name}, host: 127.0.0.1, vhost_http_port: {port}{more} }}")
        })
        .collect();
    format!(
        "{top}\nruntime: {{ workers: 1 }}\nlisteners:\n  - {{ name: web, bind: \"127.0.0.1:0\" }}\nfrps:\n{}\npools:\n  - {{ name: shop{pool} }}\n",
        entries.join("\n")
    )
}

/// The gateway with these pool keys (`, balance: random`).
pub(crate) async fn gateway(
    name: &str,
    binary: &str,
    frps: &[(&str, u16, &str)],
    pool: &str,
    top: &str,
) -> Result<Contestant, LabError> {
    let gateway = Gateway::start(binary, &yaml(frps, pool, top)).await?;
    let address = gateway.listener("web").await?;
    Ok(Contestant { name: format!("gateway {name}"), address, gateway: Some(gateway), _peer: None })
}

/// HAProxy with this `balance`; `check` is appended to each server line.
pub(crate) async fn haproxy(
    name: &str,
    fleet: &[&Frps],
    balance: &str,
    check: &str,
) -> Result<Contestant, LabError> {
    let servers: Vec<_> = fleet
        .iter()
        .enumerate()
        .map(|(at, frps)| format!("    server s{at} {} {check}", frps.http()))
        .collect();
    let config = |port: u16, _: &Path| {
        format!(
            "global\n    nbthread 1\ndefaults\n    mode http\n    http-reuse always\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\nfrontend web\n    bind 127.0.0.1:{port}\n    default_backend all\nbackend all\n    balance {balance}\n{}\n",
            servers.join("\n")
        )
    };
    let arguments = |file: &Path| vec!["-db".into(), "-f".into(), file.display().to_string()];
    let peer = Peer::start("haproxy", "/usr/sbin/haproxy", config, arguments).await?;
    Ok(Contestant {
        name: format!("haproxy {name}"),
        address: peer.address(),
        gateway: None,
        _peer: Some(peer),
    })
}

/// nginx with this method line in its upstream.
pub(crate) async fn nginx(name: &str, fleet: &[&Frps], method: &str) -> Result<Contestant, LabError> {
    let servers: Vec<_> = fleet.iter().map(|frps| format!("        server {};", frps.http())).collect();
    let config = |port: u16, folder: &Path| {
        let folder = folder.display();
        format!(
            "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr crit;\nuser root;\nevents {{ worker_connections 4096; }}\nhttp {{\n    access_log off;\n    client_body_temp_path {folder}/a;\n    proxy_temp_path {folder}/b;\n    fastcgi_temp_path {folder}/c;\n    uwsgi_temp_path {folder}/d;\n    scgi_temp_path {folder}/e;\n    upstream all {{\n        {method}\n{}\n        keepalive 128;\n    }}\n    server {{\n        listen 127.0.0.1:{port};\n        location / {{\n            proxy_http_version 1.1;\n            proxy_set_header Connection \"\";\n            proxy_set_header Host $host;\n            proxy_pass http://all;\n        }}\n    }}\n}}\n",
            servers.join("\n")
        )
    };
    let arguments = |file: &Path| vec!["-c".into(), file.display().to_string()];
    let peer = Peer::start("nginx", "/usr/sbin/nginx", config, arguments).await?;
    Ok(Contestant {
        name: format!("nginx {name}"),
        address: peer.address(),
        gateway: None,
        _peer: Some(peer),
    })
}
