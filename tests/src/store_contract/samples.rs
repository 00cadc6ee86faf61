//! Orders, facts and answers for the tests of the store, short enough to read in a row.

use std::collections::BTreeSet;

use jiff::Timestamp;
use wxpay_shared::{
    event::{Event, Fact, Payment, Refund, RefundStatus},
    fen::Fen,
    ids::{
        AccountId, AppId, Currency, MchId, MerchantName, NotificationId, OpenId, OrderId, OutRefundNo, OutTradeNo,
        RefundId, TransactionId, UserId,
    },
    order::{OrderState, Registration},
    store::{Applied, LedgerEntry, Registered, Store},
};

pub(crate) const AMOUNT: i64 = 1_999;

pub(crate) fn fen(fen: i64) -> Fen {
    Fen::new(fen).unwrap()
}

pub(crate) fn order_id(number: &str) -> OrderId {
    OrderId { merchant: MerchantName::parse("shop").unwrap(), out_trade_no: OutTradeNo::parse(number).unwrap() }
}

pub(crate) fn account_id(user: &str) -> AccountId {
    AccountId { merchant: MerchantName::parse("shop").unwrap(), user: UserId::parse(user).unwrap() }
}

/// One point a fen, so that points read as money.
pub(crate) fn registration(number: &str, user: Option<&str>) -> Registration {
    Registration {
        id: order_id(number),
        amount: fen(AMOUNT),
        currency: Currency::cny(),
        user: user.map(|user| UserId::parse(user).unwrap()),
        appid: Some(AppId::parse("wx1").unwrap()),
        rate: "1/1".parse().unwrap(),
    }
}

pub(crate) fn payment(number: &str, transaction: &str) -> Payment {
    Payment {
        order: order_id(number),
        mchid: MchId::parse("1900000001").unwrap(),
        appid: AppId::parse("wx1").unwrap(),
        transaction_id: TransactionId::parse(transaction).unwrap(),
        amount: fen(AMOUNT),
        currency: Currency::cny(),
        payer: Some(OpenId::parse("payer").unwrap()),
        success_time: Timestamp::UNIX_EPOCH,
    }
}

pub(crate) fn event(notification: u32, fact: Fact) -> Event {
    Event { notification: NotificationId::parse(&format!("{notification:x}")).unwrap(), fact }
}

pub(crate) fn paid(number: &str, transaction: &str) -> Event {
    event(1, Fact::Payment(payment(number, transaction)))
}

pub(crate) fn refund(number: &str, transaction: &str, refund: &str, amount: i64) -> Refund {
    Refund {
        order: order_id(number),
        mchid: MchId::parse("1900000001").unwrap(),
        transaction_id: TransactionId::parse(transaction).unwrap(),
        refund_id: RefundId::parse(refund).unwrap(),
        out_refund_no: OutRefundNo::parse(refund).unwrap(),
        total: fen(AMOUNT),
        amount: fen(amount),
        status: RefundStatus::Success,
        success_time: None,
        must_be_announced: false,
    }
}

pub(crate) fn refunded(number: &str, transaction: &str, refund_id: &str, amount: i64) -> Event {
    event(2, Fact::Refund(refund(number, transaction, refund_id, amount)))
}

/// Answers short enough to compare: points, or the reason.
pub(crate) fn outcome(applied: &Applied) -> String {
    match applied {
        Applied::Fresh { points } => format!("fresh {points:+}"),
        Applied::Duplicate => "duplicate".to_owned(),
        Applied::Rejected(rejection) => format!("rejected {}", rejection.reason),
        Applied::Waiting(rejection) => format!("waiting {}", rejection.reason),
    }
}

pub(crate) async fn apply(store: &dyn Store, events: &[Event]) -> Vec<String> {
    store.apply(events).await.unwrap().iter().map(outcome).collect()
}

pub(crate) async fn register(store: &dyn Store, numbers: &[&str]) {
    for number in numbers {
        let registered = store.register(&registration(number, Some("user"))).await.unwrap();
        assert!(matches!(registered, Registered::Fresh(_)), "{registered:?}");
    }
}

pub(crate) async fn state(store: &dyn Store, number: &str) -> OrderState {
    store.order(&order_id(number)).await.unwrap().unwrap().0.state()
}

/// The balance, after a check of the whole chain: every entry continues the one before, and no fact has two.
pub(crate) async fn audit(store: &dyn Store, user: &str) -> (i64, Vec<LedgerEntry>) {
    let account = store.account(&account_id(user), usize::MAX).await.unwrap().unwrap();
    let mut balance = 0;
    let mut facts = BTreeSet::new();
    for entry in account.entries.iter().rev() {
        balance += entry.points;
        assert_eq!(entry.balance, balance, "each balance continues the one before");
        assert_eq!(entry.account, account_id(user));
        assert!(facts.insert(entry.event.clone()), "{} has two entries", entry.event);
    }
    assert_eq!(account.balance, balance, "the balance is the sum of the ledger");
    (balance, account.entries)
}
