//! `underlay install` and `make install`: at every moment each name is the old or the new program, and no other file
//! changes. `underlay uninstall` restores the earlier files.

mod back;
mod companion;
mod deb;
mod fixture;
mod image;
mod killed;
mod manuals;
mod others;
mod place;
