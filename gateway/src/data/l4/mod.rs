//! Traffic that nobody here looks into: bytes of tcp tunnels, TLS that ends behind us, datagrams ([`udp`]).
//!
//! [`tcp`] and [`sni`] say where a connection goes, [`carry`] gives it to a member and stays with it, [`pump`] moves the
//! bytes, [`tally`] counts and logs how it ended. [`proxy_in`] is for connections of every protocol: who they are from.

pub mod carry;
pub mod client_hello;
pub mod proxy_header;
pub mod proxy_in;
pub mod pump;
pub mod sni;
pub mod tally;
pub mod tcp;
pub mod udp;
