//! Why a notification became a dead letter: the closed list of reasons.
//!
//! A reason's code is a promise: it is a header of the dead letter, a metric label, and what `wxpayctl dlq` filters by.
//! Adding one is easy; renaming one breaks people.

use std::{fmt, str::FromStr};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, cure: $cure:literal;)+) => {
        /// Why an accepted notification could not be applied.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the list.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// One sentence on what usually cures it.
            #[must_use]
            pub const fn cure(self) -> &'static str {
                match self { $(Self::$variant => $cure),+ }
            }
        }
    };
}

reasons! {
    /// The amount differs from the order's.
    AmountMismatch = "amount_mismatch",
    cure: "Compare the order with WeChat's bill; if the notification is right, refund it by hand, then discard.";
    /// The currency differs from the order's.
    CurrencyMismatch = "currency_mismatch",
    cure: "The order was registered in another currency; refund it by hand, then discard.";
    /// The appid is none of the merchant's, or not the order's.
    AppidMismatch = "appid_mismatch",
    cure: "Add the appid to the merchant's list if it is yours, then replay.";
    /// The mchid is not the merchant's: a valid notification on another merchant's path.
    MerchantMismatch = "merchant_mismatch",
    cure: "Correct the notify_url of that merchant, or its mch_id in the configuration, then replay.";
    /// No configured merchant has this name (any more).
    UnknownMerchant = "unknown_merchant",
    cure: "Put the merchant back into the configuration, then replay.";
    /// The order was not registered, or not in time.
    UnknownOrder = "unknown_order",
    cure: "Register the order, then replay.";
    /// The order was paid before, by another transaction.
    SurplusPayment = "surplus_payment",
    cure: "The customer paid twice: refund this transaction by hand, then discard.";
    /// The order had been closed when the payment came.
    PaidAfterClose = "paid_after_close",
    cure: "Refund this transaction by hand or deliver the order anyway, then discard.";
    /// The refunds of a transaction add up to more than was paid.
    OverRefund = "over_refund",
    cure: "Check the refunds of this order in the merchant console: a refund notice may have been forged.";
    /// WeChat could not pay the refund out.
    RefundAbnormal = "refund_abnormal",
    cure: "Settle the refund in the merchant console (异常退款), then discard.";
    /// The refund names a transaction that the order does not have.
    TransactionMismatch = "transaction_mismatch",
    cure: "Query the refund at WeChat; replay when the payment it belongs to has been applied.";
    /// The merchant accepts only registered refunds and this one is not, or differs from its registration.
    UnregisteredRefund = "unregistered_refund",
    cure: "Compare with the refund that was requested; register it and replay if it is genuine.";
    /// The event is known with other money in it.
    ConflictingDuplicate = "conflicting_duplicate",
    cure: "Two notifications contradict each other: query the transaction at WeChat before you do anything.";
    /// The seal is absent or wrong: the message did not come from our ingress.
    Unsealed = "unsealed",
    cure: "Find out who else can publish to the queue; if the seal key was changed, set it as the previous key and replay.";
    /// The message's version is newer than this program.
    UnknownVersion = "unknown_version",
    cure: "Update the worker, then replay.";
    /// The body cannot be read or decrypted.
    Unopenable = "unopenable",
    cure: "Correct the merchant's key, then replay.";
    /// The resource is encrypted with an algorithm that is not supported.
    UnsupportedAlgorithm = "unsupported_algorithm",
    cure: "Switch the merchant to AEAD_AES_256_GCM; look the transaction up at WeChat by hand.";
    /// A required field is missing or not what the protocol says.
    InvalidField = "invalid_field",
    cure: "Look the transaction up at WeChat; nothing can be applied from this notification.";
    /// Every attempt failed; the history has the errors.
    AttemptsExhausted = "attempts_exhausted",
    cure: "Cure what the last error says, then replay.";
    /// The broker gave up: the message was delivered too often without an answer.
    DeliveryLimit = "delivery_limit",
    cure: "Workers died while they held this message: look for crashes, then replay.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A text that is no reason's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason")]
pub struct UnknownReason;

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(code: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code).ok_or(UnknownReason)
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> serde::Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = std::borrow::Cow::<str>::deserialize(deserializer)?;
        code.parse().map_err(serde::de::Error::custom)
    }
}

/// A reason with the facts of this case: expected before got, with units, nothing personal.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rejection {
    /// The kind.
    pub reason: Reason,
    /// The case, for a person: `order 1999 fen, paid 1 fen`.
    pub detail: String,
}

impl Rejection {
    /// A rejection with its facts.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// The rejection of something of which these parts were rejected: the first one's, whose detail tells of the others.
    pub fn of_parts(parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        let also = |first: Self, other: Self| Self { detail: format!("{}; {other}", first.detail), ..first };
        parts.into_iter().reduce(also)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_parses_back_and_is_unique() {
        for reason in Reason::ALL {
            assert_eq!(reason.code().parse(), Ok(*reason));
        }
        assert_eq!("no_such_reason".parse::<Reason>(), Err(UnknownReason));
    }
}
