//! One measurement of one setup: a stream, small exchanges on one connection, and many connections in parallel.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{self, Amount, Exchange, FIRST_PORT, Peers, STREAM_PORT};
use crate::way::Built;

/// The maximum number of parallel clients of TCP_CRR.
pub(crate) const PAIRS: u16 = 32;
/// The number of clients in a guest.
pub(crate) const GUEST_PAIRS: u16 = 8;

/// The ticks of /proc/stat in a second. (USER_HZ)
const TICKS: f64 = 100.0;

/// How long the load of other processes is measured.
const LOAD_FOR: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    Whole,
    Guest,
    Quick,
}

impl Effort {
    /// The maximum number of rounds.
    pub(crate) fn rounds(self) -> usize {
        match self {
            Self::Whole => 13,
            Self::Guest => 7,
            Self::Quick => 1,
        }
    }

    /// The time for all rounds. No round starts that would end later.
    pub(crate) fn within(self) -> Duration {
        Duration::from_secs(match self {
            Self::Whole => 9 * 60,
            Self::Guest => 4 * 60,
            Self::Quick => 60,
        })
    }

    fn amount(self) -> Amount {
        match self {
            Self::Whole | Self::Guest => Amount::Seconds(1),
            Self::Quick => Amount::Megabytes(16),
        }
    }

    fn repeat(self) -> Duration {
        Duration::from_millis(if self == Self::Quick { 50 } else { 500 })
    }

    fn reconnect(self) -> Duration {
        Duration::from_millis(if self == Self::Quick { 50 } else { 1000 })
    }

    /// The parallel clients of TCP_CRR. Each client and each server is a process.
    fn pairs(self) -> u16 {
        match self {
            Self::Whole => PAIRS,
            // A process takes 20 to 35 ms to start in a guest.
            Self::Guest => GUEST_PAIRS,
            Self::Quick => 4,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) key: &'static str,
    pub(crate) short: &'static str,
    pub(crate) title: &'static str,
    pub(crate) more_is_better: bool,
}

const fn metric(key: &'static str, short: &'static str, title: &'static str, more_is_better: bool) -> Metric {
    Metric { key, short, title, more_is_better }
}

/// The order of a [`Sample`].
pub(crate) const METRICS: [Metric; 8] = [
    metric("stream_gbit_s", "stream", "stream Gbit/s", true),
    metric("stream_cpu_ms_per_gbit", "CPU/Gbit", "CPU ms per Gbit", false),
    metric("rr_p50_us", "RR p50", "RR p50 µs", false),
    metric("rr_p99_us", "RR p99", "RR p99 µs", false),
    metric("crr_per_s", "CRR/s", "CRR per s", true),
    metric("crr_cpu_us", "CPU/CRR", "CPU µs per CRR", false),
    metric("crr_p50_us", "CRR p50", "CRR p50 µs", false),
    metric("crr_p99_us", "CRR p99", "CRR p99 µs", false),
];

/// Indices of [`METRICS`].
pub(crate) const STREAM: usize = 0;
pub(crate) const STREAM_CPU: usize = 1;
pub(crate) const LATENCY: usize = 2;
pub(crate) const CONNECTIONS: usize = 4;

/// One value of each of [`METRICS`].
pub(crate) type Sample = [f64; METRICS.len()];

/// Returns one sample, and the mean size of a frame during the stream.
pub(crate) fn measure(built: &Built, effort: Effort) -> Result<(Sample, f64), String> {
    let (client, server) = (built.client(), built.server());

    let to = built.to(STREAM_PORT);
    let ((stream, used), frame) =
        built.frame_size(|| busy_during(|| load::stream(client, server, to, effort.amount())));
    let stream = stream?;
    let gigabits = stream.bytes * 8.0 / 1e9;

    let first = built.to(FIRST_PORT);
    let one = Peers::start(client, server, first, Exchange::Repeat, 1, effort.repeat())?;
    let repeated = sorted(one.go()?.into_iter().flat_map(|samples| samples.nanos));

    let many = Peers::start(client, server, first, Exchange::Reconnect, effort.pairs(), effort.reconnect())?;
    let (many, busy) = busy_during(|| many.go());
    let many = many?;
    let rate: f64 = many.iter().map(|samples| samples.nanos.len() as f64 / samples.elapsed.as_secs_f64()).sum();
    let reconnected = sorted(many.into_iter().flat_map(|samples| samples.nanos));

    let sample = [
        gigabits / stream.seconds,
        used * 1e3 / gigabits,
        percentile(&repeated, 50) / 1e3,
        percentile(&repeated, 99) / 1e3,
        rate,
        busy * 1e6 / reconnected.len() as f64,
        percentile(&reconnected, 50) / 1e3,
        percentile(&reconnected, 99) / 1e3,
    ];
    Ok((sample, frame))
}

/// Runs `f`, and returns the processor time of the whole machine during it, in seconds.
fn busy_during<T>(f: impl FnOnce() -> T) -> (T, f64) {
    let before = busy();
    let value = f();
    (value, busy() - before)
}

/// The processor time of the machine since its boot, in seconds.
fn busy() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("read /proc/stat");
    decode_busy(&stat).expect("/proc/stat begins with all processors") / TICKS
}

/// User, nice, system, irq and softirq. Not idle, iowait and steal. Guests are part of user. (proc_stat(5))
fn decode_busy(stat: &str) -> Option<f64> {
    let columns: Vec<f64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|column| column.parse().ok()).collect();
    [0, 1, 2, 5, 6].into_iter().map(|column| columns.get(column)).sum()
}

/// The share of the processors that other processes use, from 0 to 1.
pub(crate) fn used_by_others() -> f64 {
    let begun = Instant::now();
    // A thread may wake up early.
    let ((), busy) = busy_during(|| {
        while begun.elapsed() < LOAD_FOR {
            thread::park_timeout(LOAD_FOR.saturating_sub(begun.elapsed()));
        }
    });
    busy / begun.elapsed().as_secs_f64() / thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64)
}

fn sorted(nanos: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut nanos: Vec<u32> = nanos.collect();
    nanos.sort_unstable();
    nanos
}

fn percentile(sorted: &[u32], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().map_or(f64::NAN, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_stolen_time_is_not_busy() {
        let stat = "cpu  100 20 3 5000 600 7 8 900 1000 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(decode_busy(stat), Some(138.0));
        assert_eq!(decode_busy("cpu  1 2 3"), None);
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<u32> = (1..=200).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (100.0, 198.0));
        assert_eq!(percentile(&[7], 99), 7.0);
    }
}
