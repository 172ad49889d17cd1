//! Real container runtimes in the Lab. Each has its default paths, and the host of the Lab as its network.

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
pub use jail::copy_shared_etc;
pub use podman::Podman;
pub use programs::PATH;
pub use task::Task;
