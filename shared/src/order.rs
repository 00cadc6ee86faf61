//! An order, and the rule by which an event changes it. Pure: no I/O, no clock.
//!
//! An order keeps the *set* of facts that were recorded on it. Its state, its money and its points are computed from that
//! set, never from the previous state, so facts may arrive in any order and any number of times. [`Order::decide`] is the
//! only way in; every store calls it inside the transaction that writes its answer.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    event::{Event, EventKey, Fact, Payment, Refund, RefundStatus},
    fen::Fen,
    ids::{AppId, Currency, NotificationId, OrderId, OutRefundNo, TransactionId, UserId},
    points::PointsRate,
    reason::{Reason, Rejection},
};

/// What the merchant's app said before payment: what the order costs and whose points it earns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The order's name.
    pub id: OrderId,
    /// What it costs: the amount that the prepay request carried.
    pub amount: Fen,
    /// The currency of the amount.
    pub currency: Currency,
    /// The points account; `None` means the payer's openid.
    pub user: Option<UserId>,
    /// The application it must be paid through; `None` means any of the merchant's.
    pub appid: Option<AppId>,
    /// Points per fen, as it was when the order was registered.
    pub rate: PointsRate,
}

/// A fact on an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// What happened.
    pub fact: Fact,
    /// The notification that told us first.
    pub notification: NotificationId,
    /// Why a person must look at it, where it was recorded but did not take effect as usual.
    pub rejection: Option<Rejection>,
}

/// An order with everything that happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What was registered; never changes.
    pub registration: Registration,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// When the merchant closed it unpaid.
    pub closed_at: Option<Timestamp>,
    /// The refunds that the merchant's app announced: number and amount.
    #[serde(default)]
    pub announced_refunds: BTreeMap<OutRefundNo, Fen>,
    /// Every fact recorded on it, by key.
    pub facts: BTreeMap<EventKey, Recorded>,
    /// The account its points went to: the registered user, or the payer of the first payment applied.
    pub account: Option<UserId>,
    /// The points it has credited so far, less those taken back.
    pub credited: i64,
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// Registered; no money came.
    Unpaid,
    /// Paid in full.
    Paid,
    /// Paid; a part was given back.
    PartiallyRefunded,
    /// Paid; everything was given back.
    Refunded,
    /// Closed by the merchant; no money came.
    Closed,
    /// Closed by the merchant, and then money came.
    PaidAfterClose,
}

/// The answer to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It takes effect: write the change.
    Apply(Change),
    /// Money moved but not as it should have: write the change, and a person must look.
    Record(Change, Rejection),
    /// It took effect before.
    Duplicate,
    /// It contradicts our records: nothing changes, and a person must look.
    Reject(Rejection),
    /// It does not fit yet, but may after another event: try later.
    Wait(Rejection),
}

/// What a decision writes, all in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The order as it is from now on.
    pub order: Order,
    /// The ledger entry; `None` where the points stay as they are.
    pub entry: Option<PointsEntry>,
}

/// A movement on a points account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointsEntry {
    /// Whose account.
    pub user: UserId,
    /// Points credited, or taken back where negative.
    pub points: i64,
}

impl Order {
    /// A new order, unpaid.
    #[must_use]
    pub fn new(registration: Registration, registered_at: Timestamp) -> Self {
        let account = registration.user.clone();
        Self {
            registration,
            registered_at,
            closed_at: None,
            announced_refunds: BTreeMap::new(),
            facts: BTreeMap::new(),
            account,
            credited: 0,
        }
    }

    /// What an event of this order does to it.
    #[must_use]
    pub fn decide(&self, event: &Event) -> Decision {
        if let Some(known) = self.facts.get(&event.fact.key()) {
            return known.answer_again(event);
        }
        let verdict = match &event.fact {
            Fact::Payment(payment) => self.judge_payment(payment),
            Fact::Refund(refund) => self.judge_refund(refund),
        };
        match verdict {
            Verdict::Fits => Decision::Apply(self.record(event, None)),
            Verdict::Record(rejection) => Decision::Record(self.record(event, Some(rejection.clone())), rejection),
            Verdict::Reject(rejection) => Decision::Reject(rejection),
            Verdict::Wait(rejection) => Decision::Wait(rejection),
        }
    }

    /// The order, closed; `None` once money has come.
    #[must_use]
    pub fn close(&self, now: Timestamp) -> Option<Self> {
        if self.payments().next().is_some() {
            return None;
        }
        Some(Self { closed_at: Some(self.closed_at.unwrap_or(now)), ..self.clone() })
    }

    /// The order, knowing of a refund that the merchant is about to request.
    ///
    /// # Errors
    /// The amount under which this number was announced before, where it was another.
    pub fn announce_refund(&self, out_refund_no: &OutRefundNo, amount: Fen) -> Result<Self, Fen> {
        match self.announced_refunds.get(out_refund_no) {
            Some(known) if *known != amount => Err(*known),
            Some(_) => Ok(self.clone()),
            None => {
                let mut order = self.clone();
                order.announced_refunds.insert(out_refund_no.clone(), amount);
                Ok(order)
            }
        }
    }

    /// Where the order stands.
    #[must_use]
    pub fn state(&self) -> OrderState {
        let (received, kept) = (self.received(), self.kept());
        match (received == Fen::ZERO, self.closed_at.is_some()) {
            (true, false) => OrderState::Unpaid,
            (true, true) => OrderState::Closed,
            (false, _) if kept == Fen::ZERO => OrderState::Refunded,
            (false, true) => OrderState::PaidAfterClose,
            (false, false) if kept >= self.registration.amount => OrderState::Paid,
            (false, false) => OrderState::PartiallyRefunded,
        }
    }

    /// All money that came for this order, surplus payments included.
    #[must_use]
    pub fn received(&self) -> Fen {
        sum(self.payments().map(|payment| payment.amount))
    }

    /// The money that stayed: each payment less its own refunds.
    #[must_use]
    pub fn kept(&self) -> Fen {
        sum(self.payments().map(|payment| payment.amount.saturating_sub(self.refunded(&payment.transaction_id))))
    }

    /// The payments recorded on the order: none, one, or more where the customer paid twice.
    pub fn payments(&self) -> impl Iterator<Item = &Payment> {
        self.facts.values().filter_map(|recorded| match &recorded.fact {
            Fact::Payment(payment) => Some(payment),
            Fact::Refund(_) => None,
        })
    }

    /// The points that belong to the order: for the money that stayed, never for more than the order costs, and none
    /// for an order that was closed.
    fn points_target(&self) -> i64 {
        if self.closed_at.is_some() {
            0
        } else {
            self.registration.rate.target(self.kept().min(self.registration.amount))
        }
    }

    /// What was told of refunds: each once for each end that it had.
    fn refunds(&self) -> impl Iterator<Item = &Refund> {
        self.facts.values().filter_map(|recorded| match &recorded.fact {
            Fact::Refund(refund) => Some(refund),
            Fact::Payment(_) => None,
        })
    }

    fn refunded(&self, transaction_id: &TransactionId) -> Fen {
        let paid_out = |refund: &&Refund| refund.status == RefundStatus::Success;
        sum(self
            .refunds()
            .filter(paid_out)
            .filter(|refund| refund.transaction_id == *transaction_id)
            .map(|refund| refund.amount))
    }

    /// The known refund that this one cannot be true beside. WeChat's number and the shop's stand for the same refund, which
    /// is paid out once; a v2 notice that was put together from others can say otherwise.
    fn contradicted_by(&self, told: &Refund) -> Option<&Refund> {
        let facts = |refund: &Refund| {
            (refund.transaction_id.clone(), refund.out_refund_no.clone(), refund.total, refund.amount)
        };
        self.refunds().find(|known| {
            if known.refund_id == told.refund_id {
                facts(known) != facts(told)
            } else {
                known.out_refund_no == told.out_refund_no && [known.status, told.status] == [RefundStatus::Success; 2]
            }
        })
    }

    fn judge_payment(&self, payment: &Payment) -> Verdict {
        let registration = &self.registration;
        if payment.amount != registration.amount {
            let detail = format!("order {}, paid {}", registration.amount, payment.amount);
            return Verdict::Reject(Rejection::new(Reason::AmountMismatch, detail));
        }
        if payment.currency != registration.currency {
            let detail = format!("order in {}, paid in {}", registration.currency, payment.currency);
            return Verdict::Reject(Rejection::new(Reason::CurrencyMismatch, detail));
        }
        if let Some(appid) = registration.appid.as_ref().filter(|appid| **appid != payment.appid) {
            let detail = format!("order for appid {appid}, paid through {}", payment.appid);
            return Verdict::Reject(Rejection::new(Reason::AppidMismatch, detail));
        }
        if self.closed_at.is_some() {
            let detail = format!("the order was closed, transaction {} paid it", payment.transaction_id);
            return Verdict::Record(Rejection::new(Reason::PaidAfterClose, detail));
        }
        if let Some(first) = self.payments().next() {
            let detail =
                format!("paid by transaction {}, paid again by {}", first.transaction_id, payment.transaction_id);
            return Verdict::Record(Rejection::new(Reason::SurplusPayment, detail));
        }
        Verdict::Fits
    }

    fn judge_refund(&self, refund: &Refund) -> Verdict {
        let amount = self.registration.amount;
        if refund.total != amount {
            let detail = format!("order {amount}, refund of a payment of {}", refund.total);
            return Verdict::Reject(Rejection::new(Reason::AmountMismatch, detail));
        }
        if let Some(known) = self.contradicted_by(refund) {
            let told = |refund: &Refund| {
                let Refund { out_refund_no, refund_id, amount, status, .. } = refund;
                format!("refund {out_refund_no}, {refund_id}, of {amount}: {}", status.code())
            };
            let detail = format!("recorded as \"{}\", now told \"{}\"", told(known), told(refund));
            return Verdict::Reject(Rejection::new(Reason::ConflictingDuplicate, detail));
        }
        match self.announced_refunds.get(&refund.out_refund_no) {
            Some(announced) if *announced != refund.amount => {
                let detail =
                    format!("refund {} registered with {announced}, told {}", refund.out_refund_no, refund.amount);
                return Verdict::Reject(Rejection::new(Reason::UnregisteredRefund, detail));
            }
            None if refund.must_be_announced => {
                let detail = format!("refund {} is not registered", refund.out_refund_no);
                return Verdict::Reject(Rejection::new(Reason::UnregisteredRefund, detail));
            }
            Some(_) | None => {}
        }
        let before = self.refunded(&refund.transaction_id);
        let counts = if refund.status == RefundStatus::Success { before } else { Fen::ZERO };
        if counts.checked_add(refund.amount).is_none_or(|refunded| refunded > amount) {
            let detail = format!("paid {amount}, refunded {before} before, now {}", refund.amount);
            return Verdict::Reject(Rejection::new(Reason::OverRefund, detail));
        }
        let mut payments = self.payments().peekable();
        if payments.peek().is_some() && !payments.any(|payment| payment.transaction_id == refund.transaction_id) {
            let detail = format!("the order has no transaction {}", refund.transaction_id);
            return Verdict::Wait(Rejection::new(Reason::TransactionMismatch, detail));
        }
        if refund.status == RefundStatus::Abnormal {
            let detail = format!("refund {} of {} could not be paid out", refund.out_refund_no, refund.amount);
            return Verdict::Record(Rejection::new(Reason::RefundAbnormal, detail));
        }
        Verdict::Fits
    }

    /// The order with one more fact, and the points that this moves.
    fn record(&self, event: &Event, rejection: Option<Rejection>) -> Change {
        let mut order = self.clone();
        let recorded = Recorded { fact: event.fact.clone(), notification: event.notification.clone(), rejection };
        order.facts.insert(event.fact.key(), recorded);
        if let (None, Fact::Payment(payment)) = (&order.account, &event.fact) {
            order.account = payment.payer.clone().map(UserId::from);
        }
        let points = order.points_target() - order.credited;
        let entry = order.account.clone().filter(|_| points != 0).map(|user| PointsEntry { user, points });
        if entry.is_some() {
            order.credited += points;
        }
        Change { order, entry }
    }
}

/// What the checks of one kind of event found.
enum Verdict {
    Fits,
    Record(Rejection),
    Reject(Rejection),
    Wait(Rejection),
}

impl Recorded {
    /// The answer to a fact whose key is known.
    fn answer_again(&self, event: &Event) -> Decision {
        let (known, told) = (self.fact.fingerprint(), event.fact.fingerprint());
        if known != told {
            let detail = format!("recorded as \"{known}\", now told \"{told}\"");
            return Decision::Reject(Rejection::new(Reason::ConflictingDuplicate, detail));
        }
        match &self.rejection {
            // The same notification again: the worker died between the commit and the dead letter, or it is a replay.
            // Only a second notification may be dropped, because the first one answers for the dead letter.
            Some(rejection) if self.notification == event.notification => Decision::Reject(rejection.clone()),
            Some(_) | None => Decision::Duplicate,
        }
    }
}

/// Sums of recorded amounts stay far below [`Fen::MAX`]; were it ever exceeded, the largest amount stands for the sum.
fn sum(amounts: impl Iterator<Item = Fen>) -> Fen {
    amounts.fold(Fen::ZERO, |sum, amount| sum.checked_add(amount).unwrap_or(Fen::MAX))
}

#[cfg(test)]
mod tests;
