//! v3's headers and signature, under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wxpay_fuzz::targets::v3_headers(data));
