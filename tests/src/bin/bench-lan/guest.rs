//! The part of the benchmark that needs another kernel. `lanes` boots a User-Mode Linux guest for it.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use e2e::interrupt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::measure::Effort;
use crate::scene::{self, Place, Scene};

/// The argument of this program in the guest.
pub(crate) const ARGUMENT: &str = "--guest";
const RESULT: &str = "result of the guest: ";
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// Runs in the guest.
pub(crate) fn main(effort: &str) -> Result<(), String> {
    let effort = if effort == "quick" { Effort::Quick } else { Effort::Guest };
    let mut scenes = Scene::all(Place::Guest, effort);
    scene::measure(&mut scenes, effort)?;
    let scenes: Value = scenes.iter().map(Scene::to_json).collect();
    println!("{RESULT}{scenes}");
    Ok(())
}

/// Runs outside. Returns no scenes if the kernel of this machine has everything.
pub(crate) fn measure(effort: Effort) -> Result<Vec<Scene>, String> {
    if scene::all_is_here() {
        return Ok(Vec::new());
    }
    println!("booting a guest for features that this kernel lacks");
    let program = env::current_exe().map_err(|e| format!("find this program: {e}"))?;
    let lanes = lanes()?;
    let word = if effort == Effort::Quick { "quick" } else { "whole" };
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(&lanes).arg("--run").arg(&program).args([ARGUMENT, word]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| format!("start setpriv, of util-linux: {e}"))?;
    let out = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
    let (lines, heard) = mpsc::channel();
    thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
    let mut result = None;
    loop {
        match heard.recv_timeout(CHECK_EVERY) {
            Ok(line) => match line.strip_prefix(RESULT) {
                Some(json) => result = Some(json.to_owned()),
                None => println!("{line}"),
            },
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if interrupt::check().is_err() {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        }
    }
    let status = child.wait().map_err(|e| format!("wait for {}: {e}", lanes.display()))?;
    interrupt::check()?;
    let result = result.filter(|_| status.success()).ok_or_else(|| format!("the guest gave no result: {status}"))?;
    let scenes: Value = serde_json::from_str(&result).map_err(|e| format!("the guest's result: {e}"))?;
    let scenes = scenes.as_array().and_then(|scenes| scenes.iter().map(Scene::from_json).collect());
    scenes.ok_or_else(|| "the guest's result cannot be read".to_owned())
}

fn lanes() -> Result<PathBuf, String> {
    let program = env::current_exe().map_err(|e| format!("find this program: {e}"))?;
    let lanes = program.with_file_name("lanes");
    if lanes.is_file() {
        return Ok(lanes);
    }
    Err(format!("there is no {}: `make bench-lan` builds it", lanes.display()))
}
