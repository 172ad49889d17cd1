//! detectIPConflict: no container gets an address that another machine has, and no machine is taken for a holder wrongly.

mod frames;
mod holders;
mod innocent;
mod many;
mod site;
mod verdict;
