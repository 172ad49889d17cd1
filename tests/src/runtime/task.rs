//! A container that `ctr run` waits for.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use super::containerd::strs;
use super::{Containerd, Ctr};
use crate::Namespace;
use crate::patience::PATIENCE;
use crate::plugin::with_deadline;

/// Serves the page of the image on port 80, and prints a line when it listens.
const SERVE: &str = "httpd -p 80 -h /www && echo serving && exec sleep 86400";

/// A container that serves a page. If it is dropped, it runs until containerd ends.
#[derive(Debug)]
pub struct Task<'a> {
    containerd: &'a Containerd<'a>,
    id: String,
    arguments: Vec<String>,
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
            let outcome = containerd.outcome(&strs(&arguments), &output);
            panic!("the container does not serve ({line:?}): {}", outcome.text());
        }
        Self { containerd, id: id.to_owned(), arguments, ctr: Some(ctr), netns: containerd.netns(id) }
    }

    pub fn netns(&self) -> &Namespace {
        &self.netns
    }

    /// The container ID that the plugins get: the namespace of containerd and the ID.
    pub fn id(&self) -> String {
        format!("default-{}", self.id)
    }

    /// Kills the container, and waits until `ctr` has called DEL and removed it.
    pub fn kill(mut self) -> Ctr {
        let ctr = self.ctr.take().expect("ctr runs");
        let (containerd, id, arguments) = (self.containerd, self.id.clone(), self.arguments.clone());
        // Our descriptor would keep the namespace and its link alive.
        drop(self);
        containerd.ctr(&["task", "kill", "--signal", "SIGKILL", &id]).done();
        let output = with_deadline(ctr.id(), || ctr.wait_with_output().expect("wait for ctr"));
        let outcome = containerd.outcome(&strs(&arguments), &output);
        // 128 and the number of the signal, as in a shell.
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

fn lines(pipe: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // Continue without a receiver, because a full pipe would block the container.
            let _ = sender.send(line);
        }
    });
    receiver
}
