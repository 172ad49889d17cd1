//! Notes a request to stop (Ctrl-C, SIGTERM), so that a program can end in order and leave nothing.

use std::sync::OnceLock;
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

/// How we were asked first.
static ASKED: OnceLock<String> = OnceLock::new();

/// Takes the signals that ask, from now on. Before other threads are started, and they get none of them; processes that
/// we start get them as ever, since the standard library gives each an empty mask.
pub fn listen() -> Result<(), String> {
    let failed = |errno: nix::Error| format!("take signals: {errno}");
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().map_err(failed)?;
    let descriptor = SignalFd::new(&signals).map_err(failed)?;
    thread::spawn(move || {
        while let Ok(Some(info)) = descriptor.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            let name = signal.map_or("a signal", Signal::as_str);
            ASKED.get_or_init(|| format!("interrupted by {name} from process {}", info.ssi_pid));
        }
    });
    Ok(())
}

/// An error, once we have been asked.
pub fn check() -> Result<(), String> {
    ASKED.get().map_or(Ok(()), |how| Err(how.clone()))
}
