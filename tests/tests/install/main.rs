//! `underlay install` and `make install`: the names are there at every moment, each of them the old program or the new
//! one; nothing else in the directory is touched; and `underlay uninstall` puts back what was there before.

mod back;
mod deb;
mod fixture;
mod image;
mod killed;
mod manuals;
mod others;
mod place;
