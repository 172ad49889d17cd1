//! The nemesis: kills and stops calls, cuts nodes off, reboots nodes, and stops members of etcd and the API server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::site::Site;

/// Works until `ends`, and heals everything then.
pub(crate) fn work(site: &Site, seed: u64, ends: &AtomicBool) {
    let mut random = Rng::with_seed(seed);
    while !ends.load(Ordering::SeqCst) {
        let node = random.usize(..site.members.len());
        match random.u32(..100) {
            0..40 => strike(site, &mut random, Signal::SIGKILL, "kill"),
            40..55 => {
                let stopped = choose(site, &mut random);
                if let Some(group) = stopped {
                    site.count("fault: stopped call");
                    let _ = killpg(group, Signal::SIGSTOP);
                    pause(random.u64(500..4000), ends);
                    let _ = killpg(group, Signal::SIGCONT);
                }
            }
            55..75 => {
                site.count("fault: node cut off");
                let machine = &site.members[node].node.machine;
                site.lab.cut_off(machine);
                pause(random.u64(500..6000), ends);
                site.lab.connect(machine);
            }
            75..85 => {
                site.count("fault: node rebooted");
                site.reboot(node);
            }
            85..93 => {
                site.count("fault: member of etcd stopped");
                let member = site.server.etcd_member(random.usize(..3));
                member.stop();
                pause(random.u64(500..4000), ends);
                member.start();
            }
            _ => {
                site.count("fault: API server killed");
                site.server.restart();
            }
        }
        pause(random.u64(..1000), ends);
    }
}

fn choose(site: &Site, random: &mut Rng) -> Option<Pid> {
    let running = site.running(None);
    (!running.is_empty()).then(|| Pid::from_raw(running[random.usize(..running.len())]))
}

fn strike(site: &Site, random: &mut Rng, signal: Signal, what: &str) {
    // A call is short, so look again until one runs.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        if let Some(group) = choose(site, random) {
            site.count(&format!("fault: {what}ed call"));
            let _ = killpg(group, signal);
            return;
        }
        thread::yield_now();
    }
}

/// The pauses of the nemesis are a part of the run. They end early at its end.
fn pause(milliseconds: u64, ends: &AtomicBool) {
    let until = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < until && !ends.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(20));
    }
}
