//! The data plane: accept → match → pick → forward → answer. `docs/request-path.md` walks through it.
//!
//! One thread per core ([`worker`]), each with its own runtime, listening sockets, upstream connections and counters;
//! nothing a request touches is shared for writing, except in-flight counts. One task drives a visitor's connection
//! ([`connection`]) and both sides of its present exchange ([`http`]); the bodies flow through small poll-driven
//! machines ([`relay`]).

pub mod absent;
pub mod access_log;
pub mod affinity;
pub mod answer;
pub mod attempt;
pub mod attempts;
pub mod auth;
pub mod buffer;
pub mod client;
pub mod connect;
pub mod connection;
pub mod exchange;
pub mod explain;
pub mod frames;
pub mod frp;
pub mod grpc;
pub mod h2;
pub mod h2c;
pub mod headers;
pub mod hedge;
pub mod hold;
pub mod http;
pub mod https;
pub mod io;
pub mod l4;
pub mod line;
pub mod listener;
pub mod misdirected;
pub mod outcome;
pub mod pick;
pub mod proof;
pub mod reason;
pub mod redirect;
pub mod refuse;
pub mod relay;
pub mod respond;
pub mod session;
pub mod sockets;
pub mod stream;
pub mod tiers;
pub mod tls_stream;
pub mod upgrade;
pub mod upstream;
pub mod wait;
pub mod watch;
pub mod worker;
