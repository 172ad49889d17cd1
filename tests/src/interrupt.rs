//! Receives signals that ask the program to stop, such as that of Ctrl-C. The program can then clean up and end.

use std::sync::OnceLock;
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

static INTERRUPTED: OnceLock<String> = OnceLock::new();

/// Receives the signals from now on. Call it before other threads start, so that they do not get the signals. Child
/// processes get them as usual, because the standard library clears the signal mask of each child.
pub fn listen() -> Result<(), String> {
    let failed = |errno: nix::Error| format!("receive signals: {errno}");
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().map_err(failed)?;
    let descriptor = SignalFd::new(&signals).map_err(failed)?;
    thread::spawn(move || {
        while let Ok(Some(info)) = descriptor.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            let name = signal.map_or("a signal", Signal::as_str);
            INTERRUPTED.get_or_init(|| format!("interrupted by {name} from process {}", info.ssi_pid));
        }
    });
    Ok(())
}

pub fn check() -> Result<(), String> {
    INTERRUPTED.get().map_or(Ok(()), |how| Err(how.clone()))
}
