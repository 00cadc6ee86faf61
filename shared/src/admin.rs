//! The admin API's JSON: what the worker answers and `wxpayctl` (or the merchant's own backend) asks.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /merchants` | | a list of the configured merchants' [`MerchantName`]s |
//! | `POST /orders` | [`RegisterOrder`] | 201 or 200 [`OrderView`]; 409 [`Problem`] where it differs from the known one |
//! | `GET /orders/{merchant}/{out_trade_no}` | | [`OrderView`] |
//! | `POST /orders/{merchant}/{out_trade_no}/close` | | [`OrderView`]; 409 where it is paid |
//! | `POST /orders/{merchant}/{out_trade_no}/refunds` | [`RegisterRefund`] | [`OrderView`]; 409 where the amount differs |
//! | `GET /points/{merchant}/{user}` | | [`PointsView`] |
//! | `GET /dead-letters?reason=…&merchant=…&order=…&limit=…&page=…` | | [`DeadLetterList`] |
//! | `GET /dead-letters/{id}` | | [`DeadLetterView`] with everything |
//! | `POST /dead-letters/replay` | [`Replay`] | [`Replayed`]; or lines of [`ReplayItem`] |
//! | `POST /dead-letters/discard` | [`Discard`] | [`Discarded`] |
//! | `POST /dead-letters/export` | [`Selection`] | lines of [`ExportItem`] |
//! | `POST /dead-letters/import` | [`Import`] | [`Imported`] |
//! | `GET /dead-letters/audit?notification=…&since=…&limit=…` | | a list of [`AuditEntry`](crate::store::audit::AuditEntry) |
//! | `GET /queue` | | [`crate::queue::Depths`] |
//!
//! Lines come one JSON document each (`application/x-ndjson`), as things happen; a replay answers so whoever accepts that
//! type. A client that goes away ends the work between two dead letters. The last line says how it ended: without it the
//! answer was cut off.
//!
//! Amounts are fen, times UTC. A problem is a [`Problem`] with a status of 400, 401, 404, 409 or 503.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    dead_letters::{DeadLetterList, DeadLetterView, Discard, Discarded, Named, OrderNow, Selection, Standing},
    replay::{Replay, ReplayEnd, ReplayItem, ReplayOutcome, ReplayResult, Replayed},
    transfer::{ExportEnd, ExportItem, Import, Imported, LetterError, LetterFile},
};
use crate::{
    event::RefundStatus,
    fen::Fen,
    ids::{AppId, Currency, MerchantName, NotificationId, OutRefundNo, OutTradeNo, RefundId, TransactionId, UserId},
    order::OrderState,
    points::PointsRate,
    reason::Rejection,
    store::LedgerEntry,
};

mod dead_letters;
mod replay;
mod transfer;

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

/// A request that was not fulfilled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Why, for a person.
    pub error: String,
}
