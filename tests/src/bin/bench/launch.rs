//! Runs one process from start to end as a runtime does, without threads or copying during that time. With a tracer,
//! the time does not count.

use std::fs;
use std::io::{PipeReader, Read, Write, pipe};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use e2e::Call;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::Result;

pub(crate) struct Ended {
    pub(crate) wall: Duration,
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// A call that is ready to start.
pub(crate) struct Ready<'a> {
    call: &'a Call<'a>,
    command: Command,
    stdout: PipeReader,
    stderr: PipeReader,
}

/// Prepares a call. Its input and output must fit into a pipe (64 KiB).
pub(crate) fn prepare<'a>(call: &'a Call<'a>) -> Result<Ready<'a>> {
    let (stdin, mut input) = pipe()?;
    input.write_all(call.input())?;
    drop(input);
    let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
    let mut command = Command::new(call.program());
    command.env_clear().envs(call.environment()).stdin(stdin).stdout(out).stderr(err);
    Ok(Ready { call, command, stdout, stderr })
}

impl Ready<'_> {
    /// Starts the call in the netns of the calling thread, and waits for its end.
    pub(crate) fn go(mut self) -> Result<Ended> {
        let begun = Instant::now();
        // This uses posix_spawn, so the size of this process does not matter.
        let status = self.command.spawn().and_then(|mut child| child.wait());
        let wall = begun.elapsed();
        // `command` holds the other ends of the pipes.
        drop(self.command);
        let status = status.map_err(|e| format!("start {}: {e}", self.call.program().display()))?;
        Ok(Ended { wall, status, stdout: drain(&mut self.stdout)?, stderr: drain(&mut self.stderr)? })
    }
}

fn drain(pipe: &mut PipeReader) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Ended {
    /// The stdout of a call that succeeded.
    pub(crate) fn success(&self, call: &Call<'_>) -> Result<&[u8]> {
        if self.status.success() {
            return Ok(&self.stdout);
        }
        let [stdout, stderr] = [&self.stdout, &self.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        Err(format!("{}: {}\n{stdout}{stderr}", call.program().display(), self.status).into())
    }
}

/// Runs a call under a tracer with the option `-o`. Returns the report and the stdout of the call.
pub(crate) fn under(call: &Call<'_>, tracer: &str, words: &[&str], scratch: &Path) -> Result<(String, Vec<u8>)> {
    let report = scratch.join(tracer);
    let mut command = Command::new(tracer);
    command.args(words).arg("-o").arg(&report).arg("--").arg(call.program());
    command.env_clear().envs(call.environment());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("start {tracer}: {e}"))?;
    // It fits into the pipe.
    child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(call.input()))?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        return Err(format!("{tracer} {}: {}\n{stdout}{stderr}", call.program().display(), output.status).into());
    }
    Ok((fs::read_to_string(&report)?, output.stdout))
}

/// User and system time of all children that have ended, and of their children.
pub(crate) fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let duration = |time: TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
