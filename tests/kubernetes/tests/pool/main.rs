//! lan-pool, the built program, with a real API server: one pool for several nodes.

mod away;
mod commands;
mod faults;
mod life;
mod proxy;
mod scale;
mod site;
