//! The XML reader and v2's signature, under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wxpay_fuzz::targets::v2_xml(data));
