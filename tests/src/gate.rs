//! A FIFO with which a test and a script wait for each other.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::time::Instant;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::Lab;
use crate::patience::PATIENCE;
use crate::traffic::readable;

#[derive(Debug)]
pub struct Gate(File);

impl Gate {
    /// Makes a FIFO of that name in the directory of the Lab.
    pub fn new(lab: &Lab, name: &str) -> Self {
        let path = lab.path(name);
        mkfifo(&path, Mode::S_IRWXU).expect("make a FIFO");
        // With both directions, the open does not wait for the other side.
        Self(OpenOptions::new().read(true).write(true).open(&path).expect("open a FIFO"))
    }

    /// Waits until the other side has written a line. Returns false if it did not, so that the caller can first let its
    /// calls continue.
    #[must_use]
    pub fn wait(&mut self) -> bool {
        let is_written = readable(&self.0, Instant::now() + PATIENCE).expect("wait for a FIFO");
        if is_written {
            self.0.read_exact(&mut [0]).expect("read from a FIFO");
        }
        is_written
    }

    /// Lets the other side continue.
    pub fn open(&mut self) {
        writeln!(self.0, "go").expect("write to a FIFO");
    }
}
