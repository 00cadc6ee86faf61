//! Which dead letters a request means.

use wxpay_shared::{admin::Selection, envelope::Message, merchant::Merchants, reason::Reason};

use super::decode;

/// A selection, and what it takes to see what a body names.
pub(super) struct Filter<'a> {
    pub(super) select: &'a Selection,
    pub(super) merchants: &'a Merchants,
}

impl Filter<'_> {
    /// Whether it means this one. The body is opened last, and only for those who ask for an order.
    pub(super) fn matches(&self, message: &Message) -> bool {
        let select = self.select;
        let received_at = message.claimed_received_at();
        (select.ids.is_empty() || select.ids.contains(&message.id))
            && select.reason.is_none_or(|wanted| wanted == reason(message))
            && select.merchant.as_ref().is_none_or(|wanted| message.claimed_merchant() == Some(wanted.as_str()))
            && select.received_before.is_none_or(|limit| received_at.is_some_and(|at| at < limit))
            && select.received_after.is_none_or(|limit| received_at.is_some_and(|at| at >= limit))
            && select.order.as_ref().is_none_or(|order| {
                message.claimed_merchant() == Some(order.merchant.as_str())
                    && decode::decode(message, self.merchants)
                        .named()
                        .iter()
                        .any(|named| named.out_trade_no.as_deref() == Some(order.out_trade_no.as_str()))
            })
    }
}

/// Why it is dead. A message that somebody else put among the dead letters has no reason of ours: it is unsealed.
pub(super) fn reason(message: &Message) -> Reason {
    message.log.rejection.as_ref().map_or(Reason::Unsealed, |rejection| rejection.reason)
}
