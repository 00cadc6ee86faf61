//! What an act is: a story, the steps that play it, and how it must end.

use wxpay_shared::{
    admin::ReplayOutcome,
    clock::{Clock as _, SystemClock},
    event::RefundStatus,
    fen::Fen,
    ids::{OutRefundNo, OutTradeNo, TransactionId},
    order::OrderState,
    reason::{Reason, Rejection},
    wechat::{
        keys::{ApiV3Key, V2Key},
        sender::SigningKey,
        v2_sign::SignType,
    },
};

use crate::{
    screen::code,
    wechat_sender::{
        Outgoing, Payee, new_refund_id,
        v2::{Notice, Refund},
        v3,
    },
};

/// One act. Each has an order of its own.
pub(crate) struct Act {
    /// What happens, for the spectator.
    pub(crate) story: &'static str,
    /// The order's number.
    pub(crate) order: &'static str,
    /// What is done, in this order.
    pub(crate) steps: Vec<Step>,
    /// How it ends.
    pub(crate) expect: End,
}

/// One step of an act.
pub(crate) enum Step {
    /// The merchant registers the order with this amount in fen.
    Register(i64),
    /// WeChat, or somebody else, posts a notification.
    Post(Post),
    /// The worker has recorded so many payments and refunds on the order.
    AwaitRecorded(usize),
    /// The notification becomes a dead letter for this reason.
    AwaitDeadLetter(Reason),
    /// A developer replays the order's dead letters, and this becomes of each.
    Replay(ReplayOutcome),
}

/// A notification, and how often it is posted.
pub(crate) struct Post {
    pub(crate) notice: Box<dyn Fn(&WeChat<'_>) -> Outgoing>,
    /// So many at once.
    pub(crate) times: usize,
    /// The reply that each must get.
    pub(crate) reply: &'static str,
}

/// WeChat's knowledge of the merchant and of the act's order.
pub(crate) struct WeChat<'s> {
    pub(crate) payee: &'s Payee,
    pub(crate) key: &'s V2Key,
    pub(crate) api_v3: &'s ApiV3Key,
    pub(crate) platform: &'s SigningKey,
    pub(crate) order: OutTradeNo,
}

impl WeChat<'_> {
    /// A payment of the order by a new transaction, not signed yet.
    pub(crate) fn payment(&self, amount: i64) -> Notice {
        Notice::payment(self.payee, &self.order, fen(amount), SystemClock.now())
    }

    /// The v2 notification of a refund of a part of the order, which this transaction paid.
    pub(crate) fn refund(&self, paid_by: &str, total: i64, amount: i64) -> Notice {
        Notice::refund(self.payee, &self.refund_facts(paid_by, total, amount, RefundStatus::Success), self.key)
    }

    /// The notification with WeChat's signature.
    pub(crate) fn sign(&self, notice: Notice) -> Notice {
        notice.signed(self.key, SignType::Md5)
    }

    /// The v3 notification of a payment by this transaction, signed.
    pub(crate) fn v3_payment(&self, transaction: &str, amount: i64) -> Outgoing {
        let part = v3::SubOrder {
            out_trade_no: self.order.clone(),
            transaction_id: transaction_id(transaction),
            total: fen(amount),
        };
        self.v3(&v3::Notice::payment(self.payee, &part, Fen::ZERO, "", SystemClock.now()))
    }

    /// The v3 notification that WeChat could not pay out a refund, signed.
    pub(crate) fn v3_abnormal_refund(&self, paid_by: &str, total: i64, amount: i64) -> Outgoing {
        let refund = self.refund_facts(paid_by, total, amount, RefundStatus::Abnormal);
        self.v3(&v3::Notice::refund(self.payee, &refund))
    }

    fn v3(&self, notice: &v3::Notice) -> Outgoing {
        let now = SystemClock.now();
        v3::signed(notice.sealed(self.api_v3, now), self.platform, now).expect("an RSA key of our own signs")
    }

    fn refund_facts(&self, paid_by: &str, total: i64, amount: i64, status: RefundStatus) -> Refund {
        let at = SystemClock.now();
        Refund {
            out_trade_no: self.order.clone(),
            transaction_id: transaction_id(paid_by),
            out_refund_no: OutRefundNo::parse(&format!("{}-{amount}", self.order)).expect("short enough"),
            refund_id: new_refund_id(at),
            total: fen(total),
            amount: fen(amount),
            status,
            at,
        }
    }
}

fn fen(amount: i64) -> Fen {
    Fen::new(amount).expect("the acts' amounts are amounts")
}

fn transaction_id(text: &str) -> TransactionId {
    TransactionId::parse(text).expect("the acts' transactions are transactions")
}

impl Step {
    /// One honest or dishonest notification.
    pub(crate) fn post<N: Into<Outgoing>>(reply: &'static str, notice: impl Fn(&WeChat<'_>) -> N + 'static) -> Self {
        Self::post_times(1, reply, notice)
    }

    /// The same notification several times at once.
    pub(crate) fn post_times<N: Into<Outgoing>>(
        times: usize,
        reply: &'static str,
        notice: impl Fn(&WeChat<'_>) -> N + 'static,
    ) -> Self {
        Self::Post(Post { notice: Box::new(move |wechat| notice(wechat).into()), times, reply })
    }
}

/// How an order must stand at the end of its act.
pub(crate) struct End {
    /// `None`: it is not registered.
    pub(crate) state: Option<OrderState>,
    /// Money received, in fen.
    pub(crate) received: i64,
    /// Points credited and kept.
    pub(crate) points: i64,
    /// Entries in the points ledger.
    pub(crate) ledger_entries: usize,
    /// The reasons of its dead letters.
    pub(crate) dead: Vec<Reason>,
}

/// How an order stands.
pub(crate) struct Seen {
    pub(crate) state: Option<OrderState>,
    pub(crate) received: Fen,
    pub(crate) points: i64,
    pub(crate) ledger_entries: usize,
    pub(crate) dead: Vec<Rejection>,
}

impl Seen {
    pub(crate) fn state_name(&self) -> String {
        state_name(self.state)
    }
}

fn state_name(state: Option<OrderState>) -> String {
    state.map_or_else(|| "not registered".to_owned(), |state| code(&state))
}

impl End {
    /// Paid once, with this money and these points.
    pub(crate) fn paid(received: i64, points: i64) -> Self {
        Self { state: Some(OrderState::Paid), received, points, ledger_entries: 1, dead: Vec::new() }
    }

    /// Registered, and nothing came.
    pub(crate) fn unpaid() -> Self {
        Self { state: Some(OrderState::Unpaid), received: 0, points: 0, ledger_entries: 0, dead: Vec::new() }
    }

    /// Never registered.
    pub(crate) fn unknown() -> Self {
        Self { state: None, ..Self::unpaid() }
    }

    /// The same, with a dead letter.
    pub(crate) fn and_dead(mut self, reason: Reason) -> Self {
        self.dead.push(reason);
        self
    }

    /// What is seen and should be otherwise.
    pub(crate) fn differences(&self, seen: &Seen) -> Vec<String> {
        let codes = |reasons: Vec<Reason>| {
            let codes: Vec<_> = reasons.into_iter().map(Reason::code).collect();
            if codes.is_empty() { "none".to_owned() } else { codes.join(", ") }
        };
        let seen_dead = codes(seen.dead.iter().map(|rejection| rejection.reason).collect());
        [
            ("state", state_name(self.state), seen.state_name()),
            ("received", self.received.to_string(), seen.received.get().to_string()),
            ("points", self.points.to_string(), seen.points.to_string()),
            ("ledger entries", self.ledger_entries.to_string(), seen.ledger_entries.to_string()),
            ("dead letters", codes(self.dead.clone()), seen_dead),
        ]
        .into_iter()
        .filter(|(_, expected, got)| expected != got)
        .map(|(what, expected, got)| format!("{what}: expected {expected}, got {got}"))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_both_sides() {
        let seen = Seen {
            state: Some(OrderState::Unpaid),
            received: Fen::ZERO,
            points: 0,
            ledger_entries: 0,
            dead: vec![Rejection::new(Reason::AmountMismatch, "order 1999 fen, paid 1 fen")],
        };
        assert!(End::unpaid().and_dead(Reason::AmountMismatch).differences(&seen).is_empty());
        assert_eq!(
            End::paid(1999, 19).differences(&seen),
            [
                "state: expected paid, got unpaid",
                "received: expected 1999, got 0",
                "points: expected 19, got 0",
                "ledger entries: expected 1, got 0",
                "dead letters: expected none, got amount_mismatch",
            ]
        );
    }
}
