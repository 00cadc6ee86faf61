//! The tables' rows, and what they mean. Fields are named like columns.
//!
//! A moment travels as text in UTC, `2026-11-25T04:43:00.123456Z`: the servers keep microseconds, and both read and write
//! this form. Columns that only people read (`state`, `kind`, …) are written and never read back.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::FromRow;

use super::super::{BoxError, LedgerEntry, StoreError};
use crate::{
    event::{EventKey, Fact},
    fen::Fen,
    ids::{AccountId, AppId, Currency, MerchantName, NotificationId, OrderId, OutTradeNo, UserId},
    order::{Order, OrderState, Recorded, Registration},
    reason::Rejection,
};

/// `wxpay_orders`
#[derive(Clone, Debug, FromRow, Serialize)]
pub struct OrderRow {
    pub(super) merchant: String,
    pub(super) out_trade_no: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) user_id: Option<String>,
    pub(super) appid: Option<String>,
    pub(super) points_rate: String,
    pub(super) registered_at: String,
    pub(super) closed_at: Option<String>,
    #[sqlx(default)]
    pub(super) state: String,
    #[sqlx(default)]
    pub(super) received: i64,
    #[sqlx(default)]
    pub(super) kept: i64,
    pub(super) points_user: Option<String>,
    pub(super) credited: i64,
    pub(super) announced_refunds: Option<String>,
}

/// `wxpay_events`
#[derive(Clone, Debug, FromRow, Serialize)]
pub struct EventRow {
    pub(super) event_key: String,
    pub(super) merchant: String,
    pub(super) out_trade_no: String,
    #[sqlx(default)]
    pub(super) kind: String,
    #[sqlx(default)]
    pub(super) transaction_id: String,
    #[sqlx(default)]
    pub(super) amount: i64,
    pub(super) fingerprint: String,
    pub(super) fact: String,
    pub(super) notification: String,
    pub(super) reason: Option<String>,
    pub(super) detail: Option<String>,
    #[sqlx(default)]
    pub(super) recorded_at: String,
}

/// `wxpay_points_accounts`; also a movement on one: what to add to balance and number of entries.
#[derive(Clone, Debug, FromRow, Serialize)]
pub struct AccountRow {
    pub(super) merchant: String,
    pub(super) user_id: String,
    pub(super) balance: i64,
    pub(super) entries: i64,
}

/// `wxpay_points_ledger`
#[derive(Clone, Debug, FromRow, Serialize)]
pub struct LedgerRow {
    pub(super) merchant: String,
    pub(super) user_id: String,
    pub(super) seq: i64,
    pub(super) out_trade_no: String,
    pub(super) event_key: String,
    pub(super) points: i64,
    pub(super) balance: i64,
    pub(super) recorded_at: String,
}

/// All that one transaction writes, besides the accounts.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    pub(super) orders: Vec<OrderRow>,
    pub(super) events: Vec<EventRow>,
    pub(super) ledger: Vec<LedgerRow>,
}

impl OrderRow {
    pub(super) fn of(order: &Order) -> Self {
        let registration = &order.registration;
        let state = match order.state() {
            OrderState::Unpaid => "unpaid",
            OrderState::Paid => "paid",
            OrderState::PartiallyRefunded => "partially_refunded",
            OrderState::Refunded => "refunded",
            OrderState::Closed => "closed",
            OrderState::PaidAfterClose => "paid_after_close",
        };
        Self {
            merchant: registration.id.merchant.to_string(),
            out_trade_no: registration.id.out_trade_no.to_string(),
            amount: registration.amount.get(),
            currency: registration.currency.to_string(),
            user_id: registration.user.clone().map(String::from),
            appid: registration.appid.clone().map(String::from),
            points_rate: registration.rate.to_string(),
            registered_at: written(order.registered_at),
            closed_at: order.closed_at.map(written),
            state: state.to_owned(),
            received: order.received().get(),
            kept: order.kept().get(),
            points_user: order.account.clone().map(String::from),
            credited: order.credited,
            announced_refunds: (!order.announced_refunds.is_empty()).then(|| json(&order.announced_refunds)),
        }
    }

    /// The order without its facts.
    pub(super) fn read(self) -> Result<Order, StoreError> {
        self.parsed().map_err(|error| match error {
            StoreError::Corrupt(cause) => corrupt(format!("order {}/{}: {cause}", self.merchant, self.out_trade_no)),
            StoreError::Unavailable(_) | StoreError::Transient(_) => error,
        })
    }

    fn parsed(&self) -> Result<Order, StoreError> {
        let registration = Registration {
            id: order_id(&self.merchant, &self.out_trade_no)?,
            amount: Fen::new(self.amount).map_err(corrupt)?,
            currency: Currency::parse(&self.currency).map_err(corrupt)?,
            user: self.user_id.as_deref().map(UserId::parse).transpose().map_err(corrupt)?,
            appid: self.appid.as_deref().map(AppId::parse).transpose().map_err(corrupt)?,
            rate: self.points_rate.parse().map_err(corrupt)?,
        };
        let mut order = Order::new(registration, moment(&self.registered_at)?);
        order.closed_at = self.closed_at.as_deref().map(moment).transpose()?;
        if let Some(user) = &self.points_user {
            order.account = Some(UserId::parse(user).map_err(corrupt)?);
        }
        order.credited = self.credited;
        if let Some(announced) = &self.announced_refunds {
            order.announced_refunds = serde_json::from_str(announced).map_err(corrupt)?;
        }
        Ok(order)
    }
}

impl EventRow {
    pub(super) fn of(key: &EventKey, recorded: &Recorded, now: Timestamp) -> Self {
        let (kind, transaction_id, amount) = match &recorded.fact {
            Fact::Payment(payment) => ("payment", &payment.transaction_id, payment.amount),
            Fact::Refund(refund) => ("refund", &refund.transaction_id, refund.amount),
        };
        let order = recorded.fact.order();
        Self {
            event_key: key.to_string(),
            merchant: order.merchant.to_string(),
            out_trade_no: order.out_trade_no.to_string(),
            kind: kind.to_owned(),
            transaction_id: transaction_id.to_string(),
            amount: amount.get(),
            fingerprint: recorded.fact.fingerprint(),
            fact: json(&recorded.fact),
            notification: recorded.notification.to_string(),
            reason: recorded.rejection.as_ref().map(|rejection| rejection.reason.to_string()),
            detail: recorded.rejection.as_ref().map(|rejection| rejection.detail.clone()),
            recorded_at: written(now),
        }
    }

    pub(super) fn read(self) -> Result<(EventKey, OrderId, Recorded), StoreError> {
        let fact: Fact = serde_json::from_str(&self.fact).map_err(corrupt)?;
        let id = order_id(&self.merchant, &self.out_trade_no)?;
        let key = fact.key();
        if key.as_str() != self.event_key || *fact.order() != id || fact.fingerprint() != self.fingerprint {
            return Err(corrupt(format!("event {} is not what its columns say", self.event_key)));
        }
        let rejection = match (self.reason, self.detail) {
            (Some(reason), detail) => {
                Some(Rejection::new(reason.parse().map_err(corrupt)?, detail.unwrap_or_default()))
            }
            (None, _) => None,
        };
        let notification = NotificationId::parse(&self.notification).map_err(corrupt)?;
        Ok((key, id, Recorded { fact, notification, rejection }))
    }
}

impl LedgerRow {
    pub(super) fn read(self) -> Result<LedgerEntry, StoreError> {
        let order = order_id(&self.merchant, &self.out_trade_no)?;
        let user = UserId::parse(&self.user_id).map_err(corrupt)?;
        // A key is an opaque text, which every JSON string reads as.
        let event = serde_json::from_value(self.event_key.into()).map_err(corrupt)?;
        Ok(LedgerEntry {
            account: AccountId { merchant: order.merchant.clone(), user },
            order,
            event,
            points: self.points,
            balance: self.balance,
            at: moment(&self.recorded_at)?,
        })
    }
}

pub(super) fn written(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

pub(super) fn moment(text: &str) -> Result<Timestamp, StoreError> {
    text.parse().map_err(corrupt)
}

fn order_id(merchant: &str, out_trade_no: &str) -> Result<OrderId, StoreError> {
    Ok(OrderId {
        merchant: MerchantName::parse(merchant).map_err(corrupt)?,
        out_trade_no: OutTradeNo::parse(out_trade_no).map_err(corrupt)?,
    })
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("records are text and numbers, which always become JSON")
}

pub(super) fn corrupt(what: impl Into<BoxError>) -> StoreError {
    StoreError::Corrupt(what.into())
}
