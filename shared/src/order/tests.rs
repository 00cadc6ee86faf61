//! The rule, exhaustively in small and at random in large: every state with every event, and any order of arrival.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::ids::{MchId, MerchantName, OpenId, OutRefundNo, OutTradeNo, RefundId};

const AMOUNT: i64 = 1_000;

fn fen(fen: i64) -> Fen {
    Fen::new(fen).unwrap()
}

fn order_id() -> OrderId {
    OrderId { merchant: MerchantName::parse("shop").unwrap(), out_trade_no: OutTradeNo::parse("A1").unwrap() }
}

fn order(user: Option<&str>) -> Order {
    let registration = Registration {
        id: order_id(),
        amount: fen(AMOUNT),
        currency: Currency::cny(),
        user: user.map(|user| UserId::parse(user).unwrap()),
        appid: Some(AppId::parse("wx1").unwrap()),
        rate: "3/100".parse().unwrap(),
    };
    Order::new(registration, Timestamp::UNIX_EPOCH)
}

fn event(notification: u32, fact: Fact) -> Event {
    Event { notification: NotificationId::parse(&format!("{notification:x}")).unwrap(), fact }
}

fn payment(transaction: &str) -> Payment {
    Payment {
        order: order_id(),
        mchid: MchId::parse("1900000001").unwrap(),
        appid: AppId::parse("wx1").unwrap(),
        transaction_id: TransactionId::parse(transaction).unwrap(),
        amount: fen(AMOUNT),
        currency: Currency::cny(),
        payer: Some(OpenId::parse("payer").unwrap()),
        success_time: Timestamp::UNIX_EPOCH,
    }
}

fn refund(transaction: &str, refund: &str, amount: i64, status: RefundStatus) -> Refund {
    Refund {
        order: order_id(),
        mchid: MchId::parse("1900000001").unwrap(),
        transaction_id: TransactionId::parse(transaction).unwrap(),
        refund_id: RefundId::parse(refund).unwrap(),
        out_refund_no: OutRefundNo::parse(&format!("out_{refund}")).unwrap(),
        total: fen(AMOUNT),
        amount: fen(amount),
        status,
        success_time: None,
        must_be_announced: false,
    }
}

fn pay(transaction: &str) -> Event {
    event(1, Fact::Payment(payment(transaction)))
}

fn give_back(transaction: &str, refund_id: &str, amount: i64) -> Event {
    event(2, Fact::Refund(refund(transaction, refund_id, amount, RefundStatus::Success)))
}

/// Takes the event in, as a store does.
fn take(order: &mut Order, event: &Event) -> Decision {
    let decision = order.decide(event);
    if let Decision::Apply(change) | Decision::Record(change, _) = &decision {
        let moved = change.entry.as_ref().map_or(0, |entry| entry.points);
        assert_eq!(change.order.credited - order.credited, moved, "the ledger has what the order says");
        assert!(change.entry.as_ref().is_none_or(|entry| entry.points != 0), "no empty ledger entries");
        *order = change.order.clone();
    }
    decision
}

/// What a decision comes to, short enough for a table.
fn outcome(decision: &Decision) -> String {
    match decision {
        Decision::Apply(change) => {
            format!("{:?} {:+}", change.order.state(), change.entry.as_ref().map_or(0, |entry| entry.points))
        }
        Decision::Record(change, rejection) => format!("{:?} but {}", change.order.state(), rejection.reason),
        Decision::Duplicate => "duplicate".to_owned(),
        Decision::Reject(rejection) => format!("reject {}", rejection.reason),
        Decision::Wait(rejection) => format!("wait {}", rejection.reason),
    }
}

fn after(events: &[Event]) -> Order {
    let mut order = order(Some("user"));
    for event in events {
        take(&mut order, event);
    }
    order
}

#[test]
fn every_state_answers_every_event() {
    let abnormal = event(3, Fact::Refund(refund("T1", "R9", 400, RefundStatus::Abnormal)));
    let closed = event(3, Fact::Refund(refund("T1", "R8", 400, RefundStatus::Closed)));
    let events = [pay("T1"), pay("T2"), give_back("T1", "R1", 400), give_back("T1", "R2", 601), abnormal, closed];
    let unpaid = order(Some("user"));
    let shut = unpaid.close(Timestamp::UNIX_EPOCH).unwrap();
    let mut late = shut.clone();
    take(&mut late, &pay("T1"));
    let table = [
        (unpaid, ["Paid +30", "Paid +30", "Unpaid +0", "Unpaid +0", "Unpaid but refund_abnormal", "Unpaid +0"]),
        (
            after(&[pay("T1")]),
            [
                "duplicate",
                "Paid but surplus_payment",
                "PartiallyRefunded -12",
                "PartiallyRefunded -19",
                "Paid but refund_abnormal",
                "Paid +0",
            ],
        ),
        (
            after(&[pay("T1"), give_back("T1", "R1", 400)]),
            [
                "duplicate",
                "Paid but surplus_payment",
                "duplicate",
                "reject over_refund",
                "PartiallyRefunded but refund_abnormal",
                "PartiallyRefunded +0",
            ],
        ),
        (
            after(&[pay("T1"), give_back("T1", "R0", 1_000)]),
            [
                "duplicate",
                "Paid but surplus_payment",
                "reject over_refund",
                "reject over_refund",
                "Refunded but refund_abnormal",
                "Refunded +0",
            ],
        ),
        (
            shut,
            [
                "PaidAfterClose but paid_after_close",
                "PaidAfterClose but paid_after_close",
                "Closed +0",
                "Closed +0",
                "Closed but refund_abnormal",
                "Closed +0",
            ],
        ),
        (
            late,
            [
                "reject paid_after_close",
                "PaidAfterClose but paid_after_close",
                "PaidAfterClose +0",
                "PaidAfterClose +0",
                "PaidAfterClose but refund_abnormal",
                "PaidAfterClose +0",
            ],
        ),
    ];
    for (order, expected) in table {
        let got = events.each_ref().map(|event| outcome(&order.decide(event)));
        assert_eq!(got, expected, "in state {:?}", order.state());
    }
}

#[test]
fn a_payment_that_differs_from_the_order_is_rejected_and_changes_nothing() {
    let base = payment("T1");
    let cases = [
        (Payment { amount: fen(1), ..base.clone() }, "amount_mismatch: order 1000 fen, paid 1 fen"),
        (
            Payment { currency: Currency::parse("USD").unwrap(), ..base.clone() },
            "currency_mismatch: order in CNY, paid in USD",
        ),
        (
            Payment { appid: AppId::parse("wx2").unwrap(), ..base },
            "appid_mismatch: order for appid wx1, paid through wx2",
        ),
    ];
    for (payment, expected) in cases {
        let Decision::Reject(rejection) = order(None).decide(&event(1, Fact::Payment(payment))) else {
            panic!("{expected}")
        };
        assert_eq!(rejection.to_string(), expected);
    }
}

#[test]
fn a_known_key_with_other_money_is_a_conflict_and_with_other_times_a_duplicate() {
    let paid = after(&[pay("T1"), give_back("T1", "R1", 400)]);
    let later = Payment { success_time: Timestamp::MAX, payer: None, ..payment("T1") };
    assert_eq!(paid.decide(&event(9, Fact::Payment(later))), Decision::Duplicate);
    let dearer = Payment { amount: fen(AMOUNT + 1), ..payment("T1") };
    assert_eq!(outcome(&paid.decide(&event(9, Fact::Payment(dearer)))), "reject conflicting_duplicate");
    assert_eq!(outcome(&paid.decide(&give_back("T1", "R1", 399))), "reject conflicting_duplicate");
}

#[test]
fn only_the_notification_that_told_first_answers_for_the_dead_letter() {
    let order = after(&[pay("T1"), pay("T2")]);
    assert_eq!(outcome(&order.decide(&pay("T2"))), "reject surplus_payment");
    assert_eq!(order.decide(&event(9, Fact::Payment(payment("T2")))), Decision::Duplicate);
}

#[test]
fn a_refund_of_a_payment_that_the_order_has_not_waits_for_it() {
    let mut order = after(&[pay("T1")]);
    assert_eq!(outcome(&order.decide(&give_back("T2", "R1", 400))), "wait transaction_mismatch");
    take(&mut order, &pay("T2"));
    assert_eq!(outcome(&order.decide(&give_back("T2", "R1", 400))), "Paid +0");
}

/// As somebody can put together from two v2 refund notices of one shape, without a key.
#[test]
fn a_refund_that_contradicts_a_known_one_takes_no_effect() {
    let failed = event(3, Fact::Refund(refund("T1", "R1", 400, RefundStatus::Abnormal)));
    let known = after(&[pay("T1"), failed, give_back("T1", "R1", 400)]);
    let told = |change: fn(&mut Refund)| {
        let mut refund = refund("T1", "R1", 400, RefundStatus::Success);
        change(&mut refund);
        known.decide(&event(9, Fact::Refund(refund)))
    };
    let conflicts =
        |decision: Decision| matches!(decision, Decision::Reject(it) if it.reason == Reason::ConflictingDuplicate);
    assert!(conflicts(told(|it| it.refund_id = RefundId::parse("R7").unwrap())), "another of WeChat's numbers");
    assert!(conflicts(told(|it| it.out_refund_no = OutRefundNo::parse("other").unwrap())), "another of the shop's");
    assert_eq!(told(|_| ()), Decision::Duplicate);
}

/// Facts that can be true together: one or two payments, and of each any refunds that sum up to no more than it.
fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let ends = prop::collection::btree_set(0..3_usize, 1..=3);
    let refunds = prop::collection::vec((1..=700_i64, ends), 0..4);
    prop::collection::vec((refunds, any::<bool>()), 1..=2).prop_map(|transactions| {
        let mut facts = Vec::new();
        for (number, (refunds, named)) in transactions.into_iter().enumerate() {
            let transaction = format!("T{number}");
            let payer = named.then(|| OpenId::parse("payer").unwrap());
            facts.push(Fact::Payment(Payment { payer, ..payment(&transaction) }));
            facts.extend(refunds_within(&transaction, refunds));
        }
        facts
    })
}

/// A refund may have several ends: it failed, and then it was paid out.
fn refunds_within(transaction: &str, refunds: Vec<(i64, BTreeSet<usize>)>) -> Vec<Fact> {
    let statuses = [RefundStatus::Success, RefundStatus::Abnormal, RefundStatus::Closed];
    let (mut left, mut facts) = (AMOUNT, Vec::new());
    for (number, (wanted, ends)) in refunds.into_iter().enumerate() {
        let amount = wanted.min(left);
        if amount == 0 {
            break;
        }
        left -= amount;
        let id = format!("R{transaction}{number}");
        facts.extend(ends.into_iter().map(|end| Fact::Refund(refund(transaction, &id, amount, statuses[end]))));
    }
    facts
}

/// The facts as they may arrive: each one to three times, under other notifications and times, in any order.
fn arrivals() -> impl Strategy<Value = (Vec<Event>, Vec<Event>)> {
    facts().prop_flat_map(|facts| {
        let copies = prop::collection::vec(1..=3_usize, facts.len());
        let deliveries = copies.prop_map(move |copies| {
            let repeated =
                facts.iter().zip(copies).flat_map(|(fact, copies)| std::iter::repeat_n(fact.clone(), copies));
            (1..).zip(repeated).map(|(number, fact)| event(number, at_another_time(fact, number))).collect::<Vec<_>>()
        });
        deliveries.prop_flat_map(|events| (Just(events.clone()).prop_shuffle(), Just(events).prop_shuffle()))
    })
}

fn at_another_time(fact: Fact, second: u32) -> Fact {
    let time = Timestamp::from_second(second.into()).unwrap();
    match fact {
        Fact::Payment(payment) => Fact::Payment(Payment { success_time: time, ..payment }),
        Fact::Refund(refund) => Fact::Refund(Refund { success_time: Some(time), ..refund }),
    }
}

/// Delivers everything, and again what has to wait, until nothing changes.
fn settle(user: Option<&str>, events: &[Event]) -> Order {
    let mut order = order(user);
    let mut waiting = events.to_vec();
    loop {
        let before = waiting.len();
        waiting.retain(|event| match take(&mut order, event) {
            Decision::Wait(_) => true,
            Decision::Reject(rejection) => panic!("a true fact was rejected: {rejection}"),
            Decision::Apply(_) | Decision::Record(..) | Decision::Duplicate => false,
        });
        if waiting.len() == before {
            assert!(waiting.is_empty(), "every refund finds its payment in the end");
            return order;
        }
    }
}

proptest! {
    #[test]
    fn arrival_order_does_not_matter((one, other) in arrivals(), registered: bool) {
        let user = registered.then_some("user");
        let (one, other) = (settle(user, &one), settle(user, &other));
        prop_assert_eq!(one.state(), other.state());
        prop_assert_eq!((one.received(), one.kept()), (other.received(), other.kept()));
        prop_assert_eq!((one.credited, &one.account), (other.credited, &other.account));
        prop_assert!(one.facts.keys().eq(other.facts.keys()));
        let owed = if one.account.is_some() { one.points_target() } else { 0 };
        prop_assert_eq!(one.credited, owed);
    }

    #[test]
    fn everything_again_changes_nothing((events, again) in arrivals()) {
        let mut order = settle(None, &events);
        let settled = order.clone();
        for event in &again {
            let repeated = !matches!(take(&mut order, event), Decision::Apply(_) | Decision::Record(..) | Decision::Wait(_));
            prop_assert!(repeated);
        }
        prop_assert_eq!(order, settled);
    }
}
