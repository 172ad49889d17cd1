//! VLAN parents: the link of a VLAN is made with the first container, is gone with the last, and is never taken from one
//! that uses it.

mod around;
mod guard;
mod life;
mod refusals;
mod site;
mod wire;
