//! The v2 refund opener and reader, under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wxpay_fuzz::targets::v2_refund(data));
