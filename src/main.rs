//! The one program: the table of the names that it answers to, and its first instruction.
//!
//! That is C's `main`, and not the language's: what the standard library does before that one (it reads and parses
//! /proc/self/maps to be able to say that a stack has overflowed) takes a tenth of the time of an empty process.
#![no_main]
#![deny(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::panic;

#[cfg(not(target_env = "gnu"))]
compile_error!("only glibc hands words and environment to a program whose main is C's");

static PROGRAM: cni::Program = cni::Program {
    name: env!("CARGO_PKG_NAME"),
    release: env!("CARGO_PKG_VERSION"),
    // A name that is taken out here goes into the operator crate's FORMER, so that installations give it back.
    plugins: &[
        ("host-local", &host_local::HostLocal),
        ("ipvlan", &ipvlan::PLUGIN),
        ("ipvlan-l2", &ipvlan::PLUGIN_L2),
        ("loopback", &loopback::PLUGIN),
        ("macvlan", &macvlan::PLUGIN),
    ],
    commands: operator::COMMANDS,
    run: linux::process::run,
};

/// The words and the environment come from the standard library, which the C library hands them to as well.
// SAFETY: the C library calls `main`, once, as C declares it. Nothing else of that name is linked.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    linux::process::begin();
    let run = || operator::run(&PROGRAM).unwrap_or_else(|| cni::run(&PROGRAM));
    // No panic may leave a function of C; the standard library's number for one.
    panic::catch_unwind(run).unwrap_or(101).into()
}
