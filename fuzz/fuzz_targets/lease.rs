//! `hostile::lease`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hostile::lease(bytes);
});
