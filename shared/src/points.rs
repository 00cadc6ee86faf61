//! Loyalty points: an integer ratio of the money that stayed with the merchant.
//!
//! Points are never added up from event to event. An order has a *target*, a pure function of its money; the ledger gets
//! the difference to what the order has credited so far. So partial refunds cannot drift and arrival order cannot matter.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::fen::Fen;

/// Points per so many fen. Text form: `1/100` is one point a yuan, `0/1` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PointsRate {
    points: u32,
    per_fen: u32,
}

/// A text that is not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("points rate: expected POINTS/FEN, two integers such as 1/100, points at most 10000 and fen at least 1")]
pub struct RateError;

impl PointsRate {
    /// Keeps every target inside `i64`: 10^14 fen times 10^4 points is 10^18.
    const MAX_POINTS: u32 = 10_000;

    /// The points that belong to this much money. Rounds down; the fraction is dropped, not carried.
    #[must_use]
    pub fn target(self, kept: Fen) -> i64 {
        let points = i128::from(kept.get()) * i128::from(self.points) / i128::from(self.per_fen);
        i64::try_from(points).expect("Fen::MAX times MAX_POINTS fits an i64")
    }
}

impl FromStr for PointsRate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (points, per_fen) = text.split_once('/').ok_or(RateError)?;
        let plain = |part: &str| {
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u32>().ok()).flatten().ok_or(RateError)
        };
        let rate = Self { points: plain(points)?, per_fen: plain(per_fen)? };
        if rate.points > Self::MAX_POINTS || rate.per_fen == 0 { Err(RateError) } else { Ok(rate) }
    }
}

impl TryFrom<String> for PointsRate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<PointsRate> for String {
    fn from(rate: PointsRate) -> Self {
        rate.to_string()
    }
}

impl fmt::Display for PointsRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.points, self.per_fen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(rate: &str, fen: i64) -> i64 {
        rate.parse::<PointsRate>().unwrap().target(Fen::new(fen).unwrap())
    }

    #[test]
    fn the_fraction_is_dropped() {
        assert_eq!(target("1/100", 199), 1);
        assert_eq!(target("3/200", 8800), 132);
        assert_eq!(target("0/1", 8800), 0);
        assert_eq!(target("10000/1", Fen::MAX.get()), 1_000_000_000_000_000_000);
    }

    #[test]
    fn a_rate_is_two_plain_integers() {
        for text in ["", "1", "1/0", "1.5/100", "-1/100", "+1/100", "1/100/2", "/", "10001/1", "1/"] {
            assert!(text.parse::<PointsRate>().is_err(), "{text}");
        }
        assert_eq!("2/100".parse::<PointsRate>().unwrap().to_string(), "2/100");
    }
}
