//! The same calls on the reference's programs and on ours, in two Labs that are alike, and what differs of their answers
//! and of what they leave behind. Every difference belongs to a row of docs/migrating.md; which ones a case shows is
//! written beside the case, and is neither more nor less than what is seen.

mod answer;
mod case;
mod kernel;
mod rig;
mod rows;
mod state;

pub use case::{Case, Difference, judge};
pub use rig::{Rig, host_local, with, without};
pub use rows::{EVERYWHERE, Row, read_rows};
