//! v3's body, its encrypted content and its reader, under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wxpay_fuzz::targets::v3_resource(data));
