//! A lab of real processes: frps, frpc and the gateway, on loopback ports that nobody else has.
//!
//! ```no_run
//! # async fn story() -> Result<(), frp_gateway_loadtest::lab::LabError> {
//! use frp_gateway_loadtest::{demo::DemoApp, http, lab::{Frpc, FrpcOptions, Frps, FrpsOptions, Gateway, Proxy}};
//!
//! let mut frps = Frps::start(FrpsOptions::new("a")).await?;
//! let app = DemoApp::start("shop")?;
//! let _frpc = Frpc::start(FrpcOptions::new(&frps).proxy(Proxy::http("web", app.addr(), &["app.test"]))).await?;
//! let gateway = Gateway::start("target/debug/frp-gateway", &format!("
//! frps: [{}]
//! listeners: [{{ name: web, bind: '127.0.0.1:0', protocol: http }}]
//! pools: [{{ name: all, frps: [a] }}]
//! routes: [{{ pool: all }}]", frps.yaml())).await?;
//! let reply = http::get(gateway.listener("web").await?, "app.test", "/").await?;
//! assert_eq!(reply.text(), "hello from shop\n");
//! frps.kill9();
//! # Ok(()) }
//! ```
//!
//! Every start returns when the thing answers, not when it was spawned; no wait is a fixed sleep, each has a deadline
//! and its error carries the process's log. A value that is dropped kills its process and waits for the end, and when the
//! test process itself is killed the system kills the children (see [`Process`]).
//!
//! What it needs: `frp-lab/build` has run. `FRP_LAB_BIN` names another folder with `0.71/frps` and so on.
//! `FRP_LAB_KEEP=1` keeps the temporary folders with configurations and logs, and prints their paths.

mod agent;
mod binaries;
mod error;
mod folder;
mod frpc;
mod frps;
mod gateway;
mod pebble;
mod peer;
mod ports;
mod process;
mod relay;
mod wait;

pub use agent::Agent;
pub use binaries::Version;
pub use error::LabError;
pub use frpc::{Frpc, FrpcOptions, Proxy, ProxyStatus};
pub use frps::{ADMIN_PASSWORD, ADMIN_USER, Frps, FrpsOptions, TOKEN};
pub use gateway::{Gateway, GatewayOptions};
pub use pebble::{Pebble, PebbleOptions};
pub use peer::Peer;
pub use ports::FreePorts;
pub use process::Process;
pub use relay::{Relay, Weather};
pub use wait::until;
