//! Makes several tests of one body. Their names say which programs they run.

/// Makes a test with hard links, a test with plain copies, and a test with the reference. The mark says what the
/// reference does:
///
/// - `#[reference(passes)]`: the test passes.
/// - `#[reference(fails: "text")]`: the test must fail with that text.
/// - `#[reference(not_run: "why")]`: there is no such test.
///
/// `#[needs(Ipvlan, Vlan)]` names kernel features ([`crate::needs`]). On a kernel without them, the test runs in
/// another lane.
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

/// The part of [`cases!`] for the reference.
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
            // On a kernel without the features, this panics as the test must, and the ledger has the reason.
            assert!($crate::needs::here(&[$($crate::needs::Feature::$feature),*]), $text);
            super::body::$name(&$crate::Lab::new($crate::Binaries::Reference));
        }
    };
    ([$($feature:ident),*] not_run: $why:literal => $name:ident) => {};
}

/// Makes a test for macvlan and a test for ipvlan of one body. The crate has a type `site::Site` with a function `new`,
/// which gets the name of the plugin, and in `site::NEEDS` the kernel features that all its tests need.
#[macro_export]
#[allow(clippy::crate_in_macro_def, reason = "the crate with the tests has the site")]
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
                    let own = [$($($crate::needs::Feature::$feature),+)?];
                    if $crate::needs::here(&[crate::site::NEEDS, &own].concat()) {
                        super::body::$name(&crate::site::Site::new("macvlan"));
                    }
                }
            )+
        }
        mod ipvlan {
            $(
                #[test]
                fn $name() {
                    let own = [$crate::needs::Feature::Ipvlan, $($($crate::needs::Feature::$feature),+)?];
                    if $crate::needs::here(&[crate::site::NEEDS, &own].concat()) {
                        super::body::$name(&crate::site::Site::new("ipvlan"));
                    }
                }
            )+
        }
    };
}
