//! The admin API's JSON: what the worker answers and `wxpayctl` (or the merchant's own backend) asks.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `POST /orders` | [`RegisterOrder`] | 201 or 200 [`OrderView`]; 409 [`Problem`] where it differs from the known one |
//! | `GET /orders/{merchant}/{out_trade_no}` | | [`OrderView`] |
//! | `POST /orders/{merchant}/{out_trade_no}/close` | | [`OrderView`]; 409 where it is paid |
//! | `POST /orders/{merchant}/{out_trade_no}/refunds` | [`RegisterRefund`] | [`OrderView`]; 409 where the amount differs |
//! | `GET /points/{merchant}/{user}` | | [`PointsView`] |
//! | `GET /dead-letters?reason=…&merchant=…&limit=…` | | [`DeadLetterList`] |
//! | `GET /dead-letters/{id}` | | [`DeadLetterView`] with everything |
//! | `POST /dead-letters/replay` | [`Replay`] | [`Replayed`] |
//! | `POST /dead-letters/discard` | [`Discard`] | [`Discarded`] |
//! | `GET /queue` | | [`crate::queue::Depths`] |
//!
//! Amounts are fen, times UTC. A problem is a [`Problem`] with a status of 400, 401, 404, 409 or 503.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    envelope::Attempt,
    event::RefundStatus,
    fen::Fen,
    ids::{AppId, Currency, MerchantName, NotificationId, OutRefundNo, OutTradeNo, RefundId, TransactionId, UserId},
    order::OrderState,
    points::PointsRate,
    reason::{Reason, Rejection},
    store::LedgerEntry,
};

/// Dead letters that one request lists or replays, unless it says otherwise.
pub const PAGE: usize = 100;
/// Dead letters that one request may list or replay.
pub const PAGE_MAX: usize = 10_000;

/// Registers an order before its payment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterOrder {
    /// Whose order.
    pub merchant: MerchantName,
    /// Its number.
    pub out_trade_no: OutTradeNo,
    /// What it costs, in fen: the amount of the prepay request.
    pub amount: Fen,
    /// CNY unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// The points account; the payer's openid unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// The application it must be paid through; any of the merchant's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appid: Option<AppId>,
    /// Points per fen; the merchant's rate unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<PointsRate>,
}

/// Registers a refund before it is requested from WeChat.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterRefund {
    /// The merchant's number for it.
    pub out_refund_no: OutRefundNo,
    /// How much is to be refunded, in fen.
    pub amount: Fen,
}

/// An order and its story.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrderView {
    /// Whose order.
    pub merchant: MerchantName,
    /// Its number.
    pub out_trade_no: OutTradeNo,
    /// Where it stands.
    pub state: OrderState,
    /// What it costs.
    pub amount: Fen,
    /// In which currency.
    pub currency: Currency,
    /// Whose points it earns; `None` until the payer is known.
    pub user: Option<UserId>,
    /// The application it must be paid through; `None` means any.
    pub appid: Option<AppId>,
    /// Points per fen.
    pub points_rate: PointsRate,
    /// Money that came, surplus payments included.
    pub received: Fen,
    /// Money that stayed.
    pub kept: Fen,
    /// Points it has credited, less those taken back.
    pub points: i64,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// When it was closed.
    pub closed_at: Option<Timestamp>,
    /// Refunds registered beforehand, by the merchant's number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub registered_refunds: BTreeMap<OutRefundNo, Fen>,
    /// Payments recorded on it.
    pub payments: Vec<PaymentView>,
    /// Refunds recorded on it.
    pub refunds: Vec<RefundView>,
    /// Its ledger entries, oldest first.
    pub ledger: Vec<LedgerEntry>,
}

/// A payment on an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PaymentView {
    /// WeChat's number.
    pub transaction_id: TransactionId,
    /// How much.
    pub amount: Fen,
    /// When.
    pub success_time: Timestamp,
    /// The notification that told us.
    pub notification: NotificationId,
    /// Why a person must look at it, where that is so.
    pub rejection: Option<Rejection>,
}

/// A refund on an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefundView {
    /// WeChat's number.
    pub refund_id: RefundId,
    /// The merchant's number.
    pub out_refund_no: OutRefundNo,
    /// How it ended.
    pub status: RefundStatus,
    /// How much.
    pub amount: Fen,
    /// When the payer had it.
    pub success_time: Option<Timestamp>,
    /// The notification that told us.
    pub notification: NotificationId,
    /// Why a person must look at it, where that is so.
    pub rejection: Option<Rejection>,
}

/// A points account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PointsView {
    /// Whose points.
    pub merchant: MerchantName,
    /// Whose account.
    pub user: UserId,
    /// The sum of all entries; negative where the user owes points.
    pub balance: i64,
    /// The latest entries, newest first.
    pub ledger: Vec<LedgerEntry>,
}

/// Dead letters, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterList {
    /// Those that match, up to the limit.
    pub dead_letters: Vec<DeadLetterView>,
    /// How many match in all.
    pub matching: usize,
    /// How many there are by reason, whether they match or not.
    pub by_reason: BTreeMap<String, usize>,
}

/// A dead letter. What is read from the body is read without checking it; personal fields are masked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// The notification's id.
    pub id: NotificationId,
    /// Why it is here.
    pub reason: Reason,
    /// The facts of this case.
    pub detail: String,
    /// What usually cures this reason.
    pub cure: String,
    /// The merchant that its headers name.
    pub merchant: Option<String>,
    /// The order that its body names.
    pub out_trade_no: Option<String>,
    /// The transaction that its body names.
    pub transaction_id: Option<String>,
    /// The amount that its body names, as written there.
    pub amount: Option<String>,
    /// When ingress received it.
    pub received_at: Option<Timestamp>,
    /// Attempts since ingress or the last replay.
    pub attempts: u32,
    /// The attempts; only when one dead letter is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Attempt>,
    /// The body's fields, personal ones and the signature masked; only when one dead letter is asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

/// Which dead letters: all conditions together. At least one must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Those with one of these ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<NotificationId>,
    /// Those with this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Those of this merchant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merchant: Option<MerchantName>,
    /// Every one; it must be said.
    pub all: bool,
}

/// Takes dead letters through the worker once more, attempts counted anew.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Which.
    pub select: Selection,
    /// How many at most; [`PAGE`] unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// What a replay did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replayed {
    /// One result a dead letter, in the order they were taken.
    pub results: Vec<ReplayResult>,
    /// How many that match are left, because of the limit.
    pub left: usize,
}

/// What became of one replayed dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayResult {
    /// Which.
    pub id: NotificationId,
    /// What became of it.
    pub outcome: ReplayOutcome,
    /// The facts, where it was not simply applied.
    pub detail: String,
}

/// What can become of a replayed dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayOutcome {
    /// It took effect now.
    Applied,
    /// It had taken effect before; it is no dead letter any more.
    AlreadyApplied,
    /// It changes nothing; it is no dead letter any more.
    Ignored,
    /// It is a dead letter again.
    DeadAgain,
    /// It waits in the retry tiers.
    Waiting,
    /// It could not be tried and is the dead letter that it was.
    Failed,
}

/// Removes dead letters for good.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discard {
    /// Which.
    pub select: Selection,
    /// Why; it is logged with each.
    pub reason: String,
}

/// What a discard did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Discarded {
    /// Those that are gone.
    pub ids: Vec<NotificationId>,
}

/// A request that was not fulfilled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Why, for a person.
    pub error: String,
}
