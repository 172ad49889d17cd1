//! A container under `ctr run`, which ends with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use super::containerd::strs;
use super::{Containerd, Ctr};
use crate::Namespace;
use crate::patience::PATIENCE;
use crate::plugin::with_deadline;

/// Serves the image's page on port 80, says so once it listens, and stays.
const SERVE: &str = "httpd -p 80 -h /www && echo serving && exec sleep 86400";

/// A container that serves a page. Dropping it leaves it to containerd, and to its end.
#[derive(Debug)]
pub struct Task<'a> {
    containerd: &'a Containerd<'a>,
    id: String,
    arguments: Vec<String>,
    // None once it has been waited for.
    ctr: Option<Child>,
    netns: Namespace,
}

impl<'a> Task<'a> {
    pub(crate) fn start(containerd: &'a Containerd<'a>, id: &str) -> Self {
        let arguments = containerd.run_arguments(id, &["sh", "-c", SERVE]);
        let mut ctr = containerd.spawn_ctr(&strs(&arguments));
        let lines = lines(ctr.stdout.take().expect("stdout is a pipe"));
        let line = lines.recv_timeout(PATIENCE);
        if line.as_deref() != Ok("serving") {
            if line == Err(RecvTimeoutError::Timeout) {
                let _ = ctr.kill();
            }
            let output = ctr.wait_with_output().expect("wait for ctr");
            panic!(
                "the container does not serve ({line:?}): {}",
                containerd.outcome(&strs(&arguments), &output).text()
            );
        }
        Self { containerd, id: id.to_owned(), arguments, ctr: Some(ctr), netns: containerd.netns(id) }
    }

    /// The container's network namespace.
    pub fn netns(&self) -> &Namespace {
        &self.netns
    }

    /// What the plugins know the container by: containerd's namespace and its id in that.
    pub fn id(&self) -> String {
        format!("default-{}", self.id)
    }

    /// Kills the container, and waits until `ctr` has taken it off the network and removed it.
    pub fn kill(mut self) -> Ctr {
        let ctr = self.ctr.take().expect("nobody else waits for ctr");
        let (containerd, id, arguments) = (self.containerd, self.id.clone(), self.arguments.clone());
        // Our descriptor would keep the namespace, and the link in it, alive.
        drop(self);
        containerd.ctr(&["task", "kill", "--signal", "SIGKILL", &id]).done();
        let output = with_deadline(ctr.id(), || ctr.wait_with_output().expect("wait for ctr"));
        let outcome = containerd.outcome(&strs(&arguments), &output);
        // As a shell says it: 128 and the signal.
        assert_eq!(outcome.status.code(), Some(128 + 9), "did not end by the signal: {}", outcome.text());
        outcome
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        if let Some(mut ctr) = self.ctr.take() {
            let _ = ctr.kill();
            let _ = ctr.wait();
        }
    }
}

/// The lines of a pipe as they come, until its end.
fn lines(pipe: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // Read on when nobody listens any more: a full pipe would hold the container up.
            let _ = sender.send(line);
        }
    });
    receiver
}
