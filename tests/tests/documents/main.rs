//! The documents agree with the program.

mod messages;
mod versions;
mod words;
