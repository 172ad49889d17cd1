//! Being asked to stop, by Ctrl-C or by who has started us: noted, so that whoever looks can end in order and leave
//! nothing behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Takes the signals that ask, from now on. Before other threads are started, and they get none of them; processes that
/// we start get them as ever, since the standard library gives each an empty mask.
pub(crate) fn listen() -> Result<(), String> {
    let failed = |errno: nix::Error| format!("take signals: {errno}");
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().map_err(failed)?;
    let descriptor = SignalFd::new(&signals).map_err(failed)?;
    thread::spawn(move || {
        while descriptor.read_signal().is_ok() {
            ASKED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// An error, once we have been asked.
pub(crate) fn check() -> Result<(), String> {
    if ASKED.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
}
