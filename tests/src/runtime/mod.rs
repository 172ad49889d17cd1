//! Real container runtimes in the Lab: each believes that it has a machine to itself, with the
//! paths that it uses by default, and the Lab's host for its network.

mod cgroups;
mod containerd;
mod ctr;
mod image;
mod jail;
mod podman;
mod programs;
mod task;

pub use containerd::{Containerd, WITHOUT_CRI};
pub use ctr::Ctr;
pub use image::{IMAGE, PAGE, PAUSE_IMAGE, write as write_images};
pub use podman::Podman;
pub use task::Task;
