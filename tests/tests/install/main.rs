//! `underlay install` and `make install`: at every moment each name is the old program or the new one, and nothing
//! else in the directory changes. `underlay uninstall` restores the earlier files.

mod back;
mod deb;
mod fixture;
mod image;
mod killed;
mod manuals;
mod others;
mod place;
