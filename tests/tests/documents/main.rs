//! What the documents say is what the program does: every message has its row, every block that a reader may copy works.

mod messages;
mod versions;
