//! The program lan-pool: the IPAM plugin, and the commands for people.
#![forbid(unsafe_code)]

use std::process::ExitCode;

static PROGRAM: cni::Program = cni::Program {
    name: env!("CARGO_PKG_NAME"),
    release: env!("CARGO_PKG_VERSION"),
    plugins: &[("lan-pool", &lan_pool::LanPool)],
    commands: lan_pool::commands::HELP,
    run: cni::RUN_NOTHING,
};

fn main() -> ExitCode {
    // The installer recognises our files by the mark, so it has to be in the bytes of the program.
    std::hint::black_box(operator::MARK);
    linux::process::begin();
    lan_pool::commands::run(&PROGRAM).unwrap_or_else(|| cni::run(&PROGRAM)).into()
}
