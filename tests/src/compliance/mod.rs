//! Compares the reference with ours: the same calls in two equal Labs, and the differences of their answers and of the
//! state afterwards. Every difference belongs to a row of docs/migrating.md. Each case lists the rows that it shows.

mod answer;
mod case;
mod kernel;
mod rig;
mod rows;
mod state;

pub use case::{Case, Difference, judge};
pub use rig::{Rig, host_local};
pub use rows::{EVERYWHERE, Row, read_rows};
