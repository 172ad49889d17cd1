//! Host access: the host and its containers reach each other through one link of the host on each parent.

mod door;
mod life;
mod many;
mod quiet;
mod reach;
mod refusals;
mod site;
