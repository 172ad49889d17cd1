//! `hostile::resolv_conf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hostile::resolv_conf(bytes);
});
