//! Random texts: keys of a development merchant, and the numbers that WeChat would make up.

use aws_lc_rs::rand;

/// Random lower-case hexadecimal digits; 32 of them are a good v2 key.
///
/// # Panics
/// Where the operating system has no randomness: nothing that follows would be safe.
#[must_use]
pub(crate) fn hex_digits<const BYTES: usize>() -> String {
    bytes::<BYTES>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Random decimal digits. Not quite evenly spread, and only for names.
///
/// # Panics
/// As [`hex_digits`].
#[must_use]
pub(crate) fn digits<const COUNT: usize>() -> String {
    bytes::<COUNT>().iter().map(|byte| char::from(b'0' + byte % 10)).collect()
}

fn bytes<const COUNT: usize>() -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
