//! A dead letter as the API shows it.

use wxpay_shared::{
    admin::{DeadLetterView, OrderNow, Standing},
    envelope::{Envelope, Message},
    event::{Fact, RefundStatus},
    fen::Fen,
    ids::{MerchantName, OrderId, OutTradeNo},
    merchant::Merchants,
    order::Order,
    reason::{Reason, Rejection},
    store::audit::{AuditEntry, AuditQuery},
};

use super::decode::{self, Decoded, shown};
use crate::Worker;

/// Lines of the audit record that one dead letter is shown with, at most.
const ACTIONS_MAX: usize = 200;

impl Worker {
    /// What a list shows.
    pub(super) fn short_view(&self, message: &Message, merchants: &Merchants) -> DeadLetterView {
        self.view(message, &decode::decode(message, merchants))
    }

    /// Everything.
    pub(super) async fn whole_view(&self, message: &Message, merchants: &Merchants) -> DeadLetterView {
        let decoded = decode::decode(message, merchants);
        let mut view = self.view(message, &decoded);
        view.history.clone_from(&message.log.history);
        (view.fields, view.content) = (decoded.fields(), decoded.content());
        view.unreadable = decoded.unreadable;
        let query = AuditQuery { notification: Some(message.id.clone()), since: None, limit: ACTIONS_MAX };
        match self.parts.store.audit(&query).await {
            Ok(lines) => view.actions = AuditEntry::fold(lines),
            // What is known of the letter itself is worth showing while the store is away.
            Err(error) => tracing::warn!(%error, "the audit record cannot be read"),
        }
        let merchant = message.claimed_merchant().and_then(|name| MerchantName::parse(name).ok());
        let numbers =
            std::iter::once(&view.named).chain(&view.others).filter_map(|named| named.out_trade_no.as_deref());
        let ids = numbers.filter_map(|number| {
            Some(OrderId { merchant: merchant.clone()?, out_trade_no: OutTradeNo::parse(number).ok()? })
        });
        for id in ids.collect::<Vec<_>>() {
            view.orders.push(OrderNow { order: id.to_string(), standing: self.standing(&id).await });
        }
        view
    }

    fn view(&self, message: &Message, decoded: &Decoded) -> DeadLetterView {
        let unexplained = || Rejection::new(Reason::Unsealed, "put here by somebody else");
        let Rejection { reason, detail } = message.log.rejection.clone().unwrap_or_else(unexplained);
        let mut named = decoded.named();
        DeadLetterView {
            id: message.id.clone(),
            reason,
            detail,
            cure: reason.cure().to_owned(),
            merchant: message.claimed_merchant().map(shown),
            named: named.remove(0),
            others: named,
            received_at: message.claimed_received_at(),
            attempts: message.log.attempts,
            replays: message.log.replays,
            sealed: Envelope::open(message, &self.parts.seal).is_ok(),
            history: Vec::new(),
            actions: Vec::new(),
            fields: Default::default(),
            content: Default::default(),
            unreadable: None,
            orders: Vec::new(),
        }
    }

    async fn standing(&self, id: &OrderId) -> Standing {
        match self.parts.store.order(id).await {
            Ok(Some((order, _))) => Standing::Registered {
                state: order.state(),
                amount: order.registration.amount,
                currency: order.registration.currency.clone(),
                received: order.received(),
                refunded: refunded(&order),
                points: order.credited,
            },
            Ok(None) => Standing::NotRegistered,
            Err(error) => Standing::Unknown { problem: error.to_string() },
        }
    }
}

fn refunded(order: &Order) -> Fen {
    let amounts = order.facts.values().filter_map(|recorded| match &recorded.fact {
        Fact::Refund(refund) if refund.status == RefundStatus::Success => Some(refund.amount),
        Fact::Refund(_) | Fact::Payment(_) => None,
    });
    amounts.fold(Fen::ZERO, |sum, amount| sum.checked_add(amount).unwrap_or(Fen::MAX))
}

/// The orders that a dead letter names, for the audit record.
pub(super) fn orders(message: &Message, merchants: &Merchants) -> String {
    let merchant = message.claimed_merchant().map_or_else(|| "?".to_owned(), shown);
    let named = decode::decode(message, merchants).named();
    let numbers = named.iter().filter_map(|named| named.out_trade_no.as_deref());
    numbers.map(|number| format!("{merchant}/{number}")).collect::<Vec<_>>().join(" ")
}
