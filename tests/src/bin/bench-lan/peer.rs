//! Client and server of small exchanges of one byte in each direction. Each is a process with a time limit, and ends
//! with its parent.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

/// A peer ends after this time, also if a request is lost.
const ENDS_AFTER: Duration = Duration::from_secs(10);
/// The argument of such a process.
pub(crate) const ARGUMENT: &str = "--peer";
/// A peer prints this when it is ready. A client then waits for the end of its stdin.
pub(crate) const READY: u8 = b'!';
/// The exchanges before a client is ready. They resolve addresses and warm caches.
const WARM_UP: usize = 50;

/// `--peer serve|rr|crr ADDRESS [MILLISECONDS]`.
pub(crate) fn main(arguments: &[&str]) -> Result<(), String> {
    let address = |text: &str| text.parse::<SocketAddr>().map_err(|e| format!("{text}: {e}"));
    let time = |text: &str| text.parse().map(Duration::from_millis).map_err(|e| format!("{text}: {e}"));
    match *arguments {
        ["serve", at] => {
            let at = address(at)?;
            serve(at).map_err(|e| format!("serve on {at}: {e}"))
        }
        [kind @ ("rr" | "crr"), to, millis] => {
            let (to, time) = (address(to)?, time(millis)?);
            let samples = if kind == "rr" { repeat(to, time) } else { reconnect(to, time) };
            samples.and_then(|samples| samples.write()).map_err(|e| format!("{kind} with {to}: {e}"))
        }
        _ => Err(format!("{arguments:?}: unknown arguments of a peer")),
    }
}

/// Serves one client after the other until stdin ends.
fn serve(at: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(at)?;
    say_ready()?;
    thread::spawn(|| {
        await_end_of_stdin();
        process::exit(0);
    });
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        // An error means that the client is gone.
        while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
    }
}

/// The time of each exchange, in nanoseconds, and of all together.
pub(crate) struct Samples {
    pub(crate) nanos: Vec<u32>,
    pub(crate) elapsed: Duration,
}

impl Samples {
    fn gather(time: Duration, mut exchange: impl FnMut() -> io::Result<()>) -> io::Result<Self> {
        let begun = Instant::now();
        let (mut nanos, mut last) = (Vec::new(), begun);
        while last - begun < time {
            exchange()?;
            let now = Instant::now();
            nanos.push(u32::try_from((now - last).as_nanos()).unwrap_or(u32::MAX));
            last = now;
        }
        Ok(Self { nanos, elapsed: last - begun })
    }

    fn write(&self) -> io::Result<()> {
        let mut bytes = u64::try_from(self.elapsed.as_nanos()).unwrap_or(u64::MAX).to_le_bytes().to_vec();
        bytes.extend(self.nanos.iter().flat_map(|nanos| nanos.to_le_bytes()));
        io::stdout().lock().write_all(&bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (elapsed, nanos) = bytes.split_first_chunk::<8>()?;
        let (nanos, rest) = nanos.as_chunks::<4>();
        let nanos: Vec<u32> = nanos.iter().copied().map(u32::from_le_bytes).collect();
        let elapsed = Duration::from_nanos(u64::from_le_bytes(*elapsed));
        (rest.is_empty() && !nanos.is_empty()).then_some(Self { nanos, elapsed })
    }
}

fn repeat(to: SocketAddr, time: Duration) -> io::Result<Samples> {
    let mut stream = connect(to)?;
    for _ in 0..WARM_UP {
        exchange(&mut stream)?;
    }
    begin_together()?;
    Samples::gather(time, || exchange(&mut stream))
}

/// TCP_CRR: a connection for each exchange. The client closes first, so that the ports in TIME_WAIT are those of the
/// client.
fn reconnect(to: SocketAddr, time: Duration) -> io::Result<Samples> {
    let whole = || exchange(&mut connect(to)?);
    whole()?;
    begin_together()?;
    Samples::gather(time, whole)
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ENDS_AFTER))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    let mut byte = [7];
    stream.write_all(&byte)?;
    stream.read_exact(&mut byte)
}

fn begin_together() -> io::Result<()> {
    say_ready()?;
    await_end_of_stdin();
    Ok(())
}

fn say_ready() -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(&[READY])?;
    out.flush()
}

fn await_end_of_stdin() {
    let mut byte = [0];
    while !matches!(io::stdin().lock().read(&mut byte), Ok(0)) {}
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn samples_are_gathered_until_the_time_is_over() {
        let samples = Samples::gather(Duration::from_millis(5), || Ok(())).unwrap();
        assert!(samples.elapsed >= Duration::from_millis(5));
        let sum: u64 = samples.nanos.iter().copied().map(u64::from).sum();
        assert_eq!(u128::from(sum), samples.elapsed.as_nanos());
        let refused = Samples::gather(Duration::ZERO, || Err(ErrorKind::ConnectionRefused.into()));
        assert!(refused.is_ok_and(|samples| samples.nanos.is_empty()), "an exchange without time");
        let refused = Samples::gather(Duration::from_secs(1), || Err(ErrorKind::ConnectionRefused.into()));
        assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::ConnectionRefused));
    }

    #[test]
    fn truncated_samples_are_refused() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0];
        assert_eq!(Samples::decode(&bytes).map(|samples| samples.nanos), Some(vec![5]));
        for length in [0, 7, 8, 11] {
            assert!(Samples::decode(&bytes[..length]).is_none(), "{length} bytes");
        }
    }
}
