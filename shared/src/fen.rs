//! Money: an integer number of fen, and nothing else.
//!
//! Every amount in the project is a [`Fen`]. It cannot be negative, it has an upper bound that keeps any sum of an
//! order's events inside `i64`, and it offers only checked arithmetic, so an amount can neither wrap nor be rounded.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount of money in the smallest unit of its currency (fen for CNY), from 0 to [`Fen::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Fen(i64);

/// Why a number or a text is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FenError {
    /// The text is not a plain positive decimal integer: a sign, a blank, a point, a leading zero or anything else.
    #[error("not a plain positive integer number of fen")]
    NotPlain,
    /// The number lies outside 0 to [`Fen::MAX`].
    #[error("outside 0 to {} fen", Fen::MAX.0)]
    OutOfRange,
}

impl Fen {
    /// No money.
    pub const ZERO: Self = Self(0);
    /// The largest amount that is believed: 1,000,000,000,000 yuan. A sum of 90,000 such amounts still fits an `i64`.
    pub const MAX: Self = Self(100_000_000_000_000);

    /// An amount from a number that our own side stored or configured.
    ///
    /// # Errors
    /// [`FenError::OutOfRange`] for negative numbers and for numbers over [`Fen::MAX`].
    pub const fn new(fen: i64) -> Result<Self, FenError> {
        if fen < 0 || fen > Self::MAX.0 { Err(FenError::OutOfRange) } else { Ok(Self(fen)) }
    }

    /// An amount as WeChat writes it in XML: digits only, no leading zero, more than nothing.
    ///
    /// # Errors
    /// [`FenError::NotPlain`] for every other spelling, [`FenError::OutOfRange`] for numbers over [`Fen::MAX`].
    pub fn parse(text: &str) -> Result<Self, FenError> {
        if text.is_empty() || text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(FenError::NotPlain);
        }
        text.parse().map_err(|_| FenError::OutOfRange).and_then(Self::new)
    }

    /// The number of fen.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The sum, or `None` where it would exceed [`Fen::MAX`].
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(|fen| Self::new(fen).ok())
    }

    /// The difference, or [`Fen::ZERO`] where the other amount is larger.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).max(0))
    }
}

impl TryFrom<i64> for Fen {
    type Error = FenError;

    fn try_from(fen: i64) -> Result<Self, FenError> {
        Self::new(fen)
    }
}

impl From<Fen> for i64 {
    fn from(fen: Fen) -> Self {
        fen.0
    }
}

impl fmt::Display for Fen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fen", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_positive_integers_are_amounts() {
        assert_eq!(Fen::parse("8800"), Fen::new(8800));
        for text in ["", "0", "-1", "+1", " 1", "1 ", "01", "1.0", "1e2", "１００", "1\u{0}", "0x10"] {
            assert_eq!(Fen::parse(text), Err(FenError::NotPlain), "{text:?}");
        }
        for text in ["100000000000001", "99999999999999999999"] {
            assert_eq!(Fen::parse(text), Err(FenError::OutOfRange), "{text:?}");
        }
    }

    #[test]
    fn every_amount_up_to_a_thousand_yuan_survives_print_and_parse() {
        for fen in 1..=100_000 {
            assert_eq!(Fen::parse(&fen.to_string()).unwrap().get(), fen);
        }
    }

    #[test]
    fn sums_are_checked() {
        assert_eq!(Fen::MAX.checked_add(Fen(1)), None);
        assert_eq!(Fen(3).saturating_sub(Fen(5)), Fen::ZERO);
    }
}
