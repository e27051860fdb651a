//! The program's own commands, run against a gateway.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::process::{Command, Output};

use frp_gateway_loadtest::lab::Gateway;

/// Runs the program with these arguments against the admin port.
pub fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_frp-gateway"))
        .args(arguments)
        .args(["--admin", &gateway.admin().to_string()])
        .env_remove("FRP_GATEWAY_TOKEN")
        .output()
        .expect("it runs")
}

/// What it wrote.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
