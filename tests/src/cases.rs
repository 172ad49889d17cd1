//! How one test body becomes several tests whose names say on which programs they ran.

/// Turns each body into a test on hard links, one on plain copies, and, as its mark says,
/// one on the reference:
///
/// - `#[reference(passes)]`: it behaves the same.
/// - `#[reference(fails: "text")]`: it does not, and the test fails there with that text. The
///   day it passes there, the mark is what fails.
/// - `#[reference(not_run: "why")]`: there is nothing to compare.
///
/// `#[needs(Ipvlan, Vlan)]` before that mark names what the kernel must have ([`crate::needs`]); on
/// one that has not, the test is left to another lane.
///
/// ```ignore
/// cases! {
///     #[reference(passes)]
///     fn a_container_has_the_address_of_the_result(lab) {
///         let result = lab.macvlan().add(&lab.container(), "eth0", &lab.conf()).run().result();
///     }
/// }
/// ```
#[macro_export]
macro_rules! cases {
    ($(
        $(#[doc = $doc:literal])*
        $(#[needs($($feature:ident),+)])?
        #[reference($($mark:tt)+)]
        fn $name:ident($lab:ident) $body:block
    )+) => {
        mod body {
            #[allow(unused_imports)]
            use super::*;
            $(
                $(#[doc = $doc])*
                pub(super) fn $name($lab: &$crate::Lab) $body
            )+
        }
        mod hard_links {
            $(
                #[test]
                fn $name() {
                    if $crate::needs::here(&[$($($crate::needs::Feature::$feature),+)?]) {
                        super::body::$name(&$crate::Lab::new($crate::Binaries::HardLinks));
                    }
                }
            )+
        }
        mod plain_copies {
            $(
                #[test]
                fn $name() {
                    if $crate::needs::here(&[$($($crate::needs::Feature::$feature),+)?]) {
                        super::body::$name(&$crate::Lab::new($crate::Binaries::PlainCopies));
                    }
                }
            )+
        }
        mod reference {
            $($crate::on_reference! { [$($($feature),+)?] $($mark)+ => $name })+
        }
    };
}

/// The reference's part of [`cases!`].
#[macro_export]
macro_rules! on_reference {
    ([$($feature:ident),*] passes => $name:ident) => {
        #[test]
        fn $name() {
            if $crate::needs::here(&[$($crate::needs::Feature::$feature),*]) {
                super::body::$name(&$crate::Lab::new($crate::Binaries::Reference));
            }
        }
    };
    ([$($feature:ident),*] fails: $text:literal => $name:ident) => {
        #[test]
        #[should_panic(expected = $text)]
        fn $name() {
            // For the harness it passes by failing; the ledger knows better.
            assert!($crate::needs::here(&[$($crate::needs::Feature::$feature),*]), $text);
            super::body::$name(&$crate::Lab::new($crate::Binaries::Reference));
        }
    };
    ([$($feature:ident),*] not_run: $why:literal => $name:ident) => {};
}
