//! What a notification says happened, in our own terms.
//!
//! An [`Event`] is what the worker applies: one fact, and the notification that told us. The fact's key is what makes
//! it take effect once. Ids of notifications, nonces and times play no part in it, since WeChat's repeats change them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    fen::Fen,
    ids::{AppId, Currency, MchId, NotificationId, OpenId, OrderId, OutRefundNo, RefundId, TransactionId},
};

/// One fact and who told us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The notification that carried the fact.
    pub notification: NotificationId,
    /// What happened.
    pub fact: Fact,
}

/// Something that WeChat did with money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// An order was paid.
    Payment(Payment),
    /// A refund reached one of its ends.
    Refund(Refund),
}

/// A successful payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// The order that was paid.
    pub order: OrderId,
    /// The merchant number that received the money.
    pub mchid: MchId,
    /// The application through which it was paid.
    pub appid: AppId,
    /// WeChat's number for it.
    pub transaction_id: TransactionId,
    /// What the order asked for (`total_fee`, `amount.total`), coupons included; not what the payer paid in cash.
    pub amount: Fen,
    /// The order's currency (`fee_type`, `amount.currency`).
    pub currency: Currency,
    /// Who paid; the owner of the points where the order names nobody.
    pub payer: Option<OpenId>,
    /// When it was paid.
    pub success_time: Timestamp,
}

/// A refund's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// The order that was refunded.
    pub order: OrderId,
    /// The merchant number that the money came from.
    pub mchid: MchId,
    /// The payment that was refunded.
    pub transaction_id: TransactionId,
    /// WeChat's number for the refund.
    pub refund_id: RefundId,
    /// The merchant's number for the refund.
    pub out_refund_no: OutRefundNo,
    /// What the order was paid with (`total_fee`, `amount.total`).
    pub total: Fen,
    /// What was to be refunded (`refund_fee`, `amount.refund`).
    pub amount: Fen,
    /// How it ended.
    pub status: RefundStatus,
    /// When the money arrived; only for [`RefundStatus::Success`].
    pub success_time: Option<Timestamp>,
    /// Whether the merchant takes only refunds that its app registered beforehand.
    #[serde(default)]
    pub must_be_announced: bool,
}

/// How a refund ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    /// The payer has the money.
    Success,
    /// WeChat could not pay it out; a person must decide (`CHANGE` in v2, `ABNORMAL` in v3).
    Abnormal,
    /// The refund was called off (`REFUNDCLOSE` in v2, `CLOSED` in v3).
    Closed,
}

impl RefundStatus {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Abnormal => "abnormal",
            Self::Closed => "closed",
        }
    }
}

/// The name under which a fact takes effect once: `pay:{mchid}:{transaction_id}` or
/// `refund:{mchid}:{refund_id}:{status}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventKey(String);

impl EventKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Fact {
    /// The order it belongs to.
    #[must_use]
    pub fn order(&self) -> &OrderId {
        match self {
            Self::Payment(payment) => &payment.order,
            Self::Refund(refund) => &refund.order,
        }
    }

    /// The key by which it is applied once.
    #[must_use]
    pub fn key(&self) -> EventKey {
        EventKey(match self {
            Self::Payment(payment) => format!("pay:{}:{}", payment.mchid, payment.transaction_id),
            Self::Refund(refund) => format!("refund:{}:{}:{}", refund.mchid, refund.refund_id, refund.status.code()),
        })
    }

    /// All that must agree between two facts of one key, as text: order and money, not times or people. It is what a
    /// duplicate is told from a conflict by.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        match self {
            Self::Payment(payment) => format!("{} {} {}", payment.order, payment.amount.get(), payment.currency),
            Self::Refund(refund) => format!(
                "{} {} {} {} {}",
                refund.order,
                refund.transaction_id,
                refund.out_refund_no,
                refund.total.get(),
                refund.amount.get()
            ),
        }
    }
}
