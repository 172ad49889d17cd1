//! `hostile::directory`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hostile::directory(bytes);
});
