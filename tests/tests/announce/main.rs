//! announce: the LAN learns at once where an address is, also when the link was up before or the carrier comes late, and
//! no process outlives its task.

mod child;
mod frames;
mod site;
