//! detectIPConflict: no container gets an address that another machine has, and no machine is taken for a holder wrongly.

mod cost;
mod frames;
mod holders;
mod innocent;
mod many;
mod site;
mod verdict;
