//! Host access: the host and its containers reach each other through one link of the host on each parent.

/// Makes a test for macvlan and a test for ipvlan of one body. Each host has a /run of its own.
macro_rules! on_both_kinds {
    ($(
        $(#[doc = $doc:literal])*
        $(#[needs($($feature:ident),+)])?
        fn $name:ident($site:ident) $body:block
    )+) => {
        mod body {
            #[allow(unused_imports)]
            use super::*;
            $(
                $(#[doc = $doc])*
                pub(super) fn $name($site: &crate::site::Site) $body
            )+
        }
        mod macvlan {
            $(
                #[test]
                fn $name() {
                    if e2e::needs::here(&[$($(e2e::needs::Feature::$feature),+)?]) {
                        super::body::$name(&crate::site::Site::new("macvlan"));
                    }
                }
            )+
        }
        mod ipvlan {
            $(
                #[test]
                fn $name() {
                    if e2e::needs::here(&[e2e::needs::Feature::Ipvlan, $($(e2e::needs::Feature::$feature),+)?]) {
                        super::body::$name(&crate::site::Site::new("ipvlan"));
                    }
                }
            )+
        }
    };
}

mod door;
mod life;
mod many;
mod quiet;
mod reach;
mod refusals;
mod site;
