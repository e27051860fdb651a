//! args → lib → exit code. Nothing else.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    frp_gateway::cli::main(&frp_gateway::cli::Arguments::parse())
}
