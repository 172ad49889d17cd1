//! The one program: the table of the names that it answers to, and nothing else.
#![forbid(unsafe_code)]

use std::process::ExitCode;

static PROGRAM: cni::Program = cni::Program {
    name: env!("CARGO_PKG_NAME"),
    release: env!("CARGO_PKG_VERSION"),
    plugins: &[
        ("host-local", &host_local::HostLocal),
        ("ipvlan", &ipvlan::PLUGIN),
        ("ipvlan-l2", &ipvlan::PLUGIN_L2),
        ("loopback", &loopback::PLUGIN),
        ("macvlan", &macvlan::PLUGIN),
    ],
    commands: operator::COMMANDS,
};

fn main() -> ExitCode {
    operator::run(&PROGRAM).unwrap_or_else(|| cni::run(&PROGRAM))
}
