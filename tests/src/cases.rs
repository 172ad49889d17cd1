//! How one test body becomes several tests whose names say on which programs they ran.

/// Turns each body into a test on hard links, one on plain copies, and, as its mark says,
/// one on the reference:
///
/// - `#[reference(passes)]`: it behaves the same.
/// - `#[reference(fails: "text")]`: it does not, and the test fails there with that text. The
///   day it passes there, the mark is what fails.
/// - `#[reference(not_run: "why")]`: there is nothing to compare.
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
                    super::body::$name(&$crate::Lab::new($crate::Binaries::HardLinks));
                }
            )+
        }
        mod plain_copies {
            $(
                #[test]
                fn $name() {
                    super::body::$name(&$crate::Lab::new($crate::Binaries::PlainCopies));
                }
            )+
        }
        mod reference {
            $($crate::on_reference! { $($mark)+ => $name })+
        }
    };
}

/// The reference's part of [`cases!`].
#[macro_export]
macro_rules! on_reference {
    (passes => $name:ident) => {
        #[test]
        fn $name() {
            super::body::$name(&$crate::Lab::new($crate::Binaries::Reference));
        }
    };
    (fails: $text:literal => $name:ident) => {
        #[test]
        #[should_panic(expected = $text)]
        fn $name() {
            super::body::$name(&$crate::Lab::new($crate::Binaries::Reference));
        }
    };
    (not_run: $why:literal => $name:ident) => {};
}
