//! The program: the table of its plugins, and its `main`.
//!
//! `main` is that of C. Before Rust's `main`, the standard library reads and parses /proc/self/maps, only to report
//! stack overflows. That takes a tenth of the time of an empty process.
#![no_main]
#![deny(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::panic;

#[cfg(not(target_env = "gnu"))]
compile_error!("only glibc hands words and environment to a program whose main is C's");

static PROGRAM: cni::Program = cni::Program {
    name: env!("CARGO_PKG_NAME"),
    release: env!("CARGO_PKG_VERSION"),
    // If you remove a name here, add it to FORMER in the crate operator, so that `install` removes it from nodes.
    plugins: &[
        ("host-local", &host_local::HostLocal),
        ("ipvlan", &ipvlan::PLUGIN),
        ("ipvlan-l2", &ipvlan::PLUGIN_L2),
        ("loopback", &loopback::PLUGIN),
        ("macvlan", &macvlan::PLUGIN),
        ("static", &static_ipam::Static),
    ],
    commands: operator::COMMANDS,
    run: linux::process::run,
};

/// Needs no parameters: glibc passes arguments and environment to the standard library too.
// SAFETY: the C library calls `main`, once, as C declares it. Nothing else of that name is linked.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    linux::process::begin();
    let run = || operator::run(&PROGRAM).unwrap_or_else(|| cni::run(&PROGRAM));
    // A panic must not leave a C function. 101 is the exit status that Rust uses for a panic.
    panic::catch_unwind(run).unwrap_or(101).into()
}
