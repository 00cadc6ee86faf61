//! The names of things: WeChat's identifiers and ours, each valid by construction.
//!
//! One type a name keeps a `transaction_id` from being passed as an `out_trade_no`. A value exists only if it parsed, so
//! code that receives one need not check again. Names that point at a person never show themselves in `Debug` output.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A text that is not a valid name. Holds the rule, never the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: expected {rule}")]
pub struct IdError {
    /// The field's name in WeChat's spelling.
    pub name: &'static str,
    /// What a valid value looks like.
    pub rule: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $name:literal, $max:literal, $rule:literal, $allowed:expr, $debug:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $type(String);

        impl $type {
            /// Takes the text as it is; nothing is trimmed or folded.
            ///
            /// # Errors
            /// [`IdError`] with the rule that the text breaks.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                Self::check(text).map(|()| Self(text.to_owned()))
            }

            fn check(text: &str) -> Result<(), IdError> {
                let allowed: fn(u8) -> bool = $allowed;
                if (1..=$max).contains(&text.len()) && text.bytes().all(allowed) {
                    Ok(())
                } else {
                    Err(IdError { name: $name, rule: $rule })
                }
            }

            /// The name as it was received.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::check(&text).map(|()| Self(text))
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> Self {
                id.0
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let debug: fn(&str, &mut fmt::Formatter<'_>) -> fmt::Result = $debug;
                debug(&self.0, f)
            }
        }
    };
}

/// `Display` only for names that identify a thing: a person's name must be asked for with `as_str`.
macro_rules! display {
    ($($type:ident)+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

fn show(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    fmt::Debug::fmt(text, f)
}

fn mask(_: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("***")
}

fn visible(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

id! {
    /// Our name for one merchant's set of keys and ids; the last segment of its `notify_url`.
    MerchantName, "merchant", 32, "1 to 32 of a-z, 0-9, - and _",
    |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'), show
}
id! {
    /// WeChat's merchant number (`mch_id` in v2, `mchid` in v3).
    MchId, "mch_id", 32, "1 to 32 letters and digits", |byte| byte.is_ascii_alphanumeric(), show
}
id! {
    /// The application through which the payer paid.
    AppId, "appid", 32, "1 to 32 letters and digits", |byte| byte.is_ascii_alphanumeric(), show
}
id! {
    /// The merchant's order number, 商户订单号.
    OutTradeNo, "out_trade_no", 32, "1 to 32 of 0-9, A-Z, a-z and _-|*@",
    |byte| byte.is_ascii_alphanumeric() || b"_-|*@".contains(&byte), show
}
id! {
    /// WeChat's payment number, 微信支付订单号: the key by which a payment is applied once.
    TransactionId, "transaction_id", 32, "1 to 32 letters and digits", |byte| byte.is_ascii_alphanumeric(), show
}
id! {
    /// WeChat's refund number, 微信退款单号.
    RefundId, "refund_id", 32, "1 to 32 letters and digits", |byte| byte.is_ascii_alphanumeric(), show
}
id! {
    /// The merchant's refund number, 商户退款单号.
    OutRefundNo, "out_refund_no", 64, "1 to 64 of 0-9, A-Z, a-z and _-|*@",
    |byte| byte.is_ascii_alphanumeric() || b"_-|*@".contains(&byte), show
}
id! {
    /// The payer's name under an appid. Personal: masked in `Debug`, never logged.
    OpenId, "openid", 128, "1 to 128 visible ASCII characters", visible, mask
}
id! {
    /// The owner of a points account: the merchant's own user name, or the payer's openid. Personal: masked in `Debug`.
    UserId, "user", 128, "1 to 128 visible ASCII characters", visible, mask
}
id! {
    /// A currency as ISO 4217 spells it. A notification without one means CNY.
    Currency, "currency", 3, "three capital letters", |byte| byte.is_ascii_uppercase(), show
}
id! {
    /// Our number for one accepted notification, for tracing it from ingress to the ledger. Two notifications about one
    /// payment have two of these, so it is never a dedup key.
    NotificationId, "notification id", 36, "1 to 36 of 0-9, a-f and -",
    |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'), show
}
display! { MerchantName MchId AppId OutTradeNo TransactionId RefundId OutRefundNo Currency NotificationId }

impl Currency {
    /// Renminbi, the currency of every notification that names none.
    #[must_use]
    pub fn cny() -> Self {
        Self("CNY".to_owned())
    }
}

impl NotificationId {
    /// A new number, sortable by the time of arrival (UUID version 7).
    #[must_use]
    pub fn new(received_at: jiff::Timestamp) -> Self {
        let seconds = u64::try_from(received_at.as_second()).unwrap_or(0);
        let nanos = u32::try_from(received_at.subsec_nanosecond()).unwrap_or(0);
        let time = uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos);
        Self(uuid::Uuid::new_v7(time).to_string())
    }
}

impl From<OpenId> for UserId {
    fn from(openid: OpenId) -> Self {
        Self(openid.0)
    }
}

/// An order's full name: merchants may use the same numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OrderId {
    /// Whose order.
    pub merchant: MerchantName,
    /// The merchant's number for it.
    pub out_trade_no: OutTradeNo,
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.merchant, self.out_trade_no)
    }
}

/// A points account's full name: each merchant has its own points.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountId {
    /// Whose points.
    pub merchant: MerchantName,
    /// Whose account.
    pub user: UserId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_take_only_what_their_rule_allows() {
        assert!(OutTradeNo::parse("A_1-|*@").is_ok());
        for text in ["", "a b", "订单", "a&b", &"x".repeat(33)] {
            let error = OutTradeNo::parse(text).unwrap_err();
            assert_eq!(error.to_string(), "out_trade_no: expected 1 to 32 of 0-9, A-Z, a-z and _-|*@");
        }
        assert!(Currency::parse("CN").is_ok_and(|currency| currency != Currency::cny()));
    }

    #[test]
    fn a_persons_name_is_masked_in_debug() {
        let openid = OpenId::parse("oUpF8uMuAJO_M2pxb1Q9zNjWeS6o").unwrap();
        assert_eq!(format!("{openid:?} {:?}", UserId::from(openid.clone())), "*** ***");
    }

    #[test]
    fn notification_ids_sort_by_time_and_differ() {
        let early = NotificationId::new(jiff::Timestamp::from_second(1_000).unwrap());
        let late = NotificationId::new(jiff::Timestamp::from_second(2_000).unwrap());
        assert!(early < late);
        assert_ne!(early, NotificationId::new(jiff::Timestamp::from_second(1_000).unwrap()));
        assert_eq!(NotificationId::parse(early.as_str()).unwrap(), early);
    }
}
