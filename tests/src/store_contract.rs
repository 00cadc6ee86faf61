//! What every home of the store promises, told once: each test runs against each home that [`contract!`] names.
//!
//! A home is anything that makes a fresh store and can open the same one again, as a new process would.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::Timestamp;
use wxpay_shared::{
    event::{Fact, Payment, Refund, RefundStatus},
    fen::Fen,
    ids::{AccountId, AppId, Currency, MchId, MerchantName, OpenId, OrderId, UserId},
    order::{Order, OrderState, Registration},
    reason::Reason,
    store::{Account, Applied, Closed, LedgerEntry, Registered, Store},
};

use self::{desk::*, races::*, samples::*, sled::EmbeddedHome, sql::SqlHome};
use crate::harness::database::Kind;

mod desk;
mod races;
pub(crate) mod samples;
mod sled;
pub(crate) mod sql;

/// A home under test.
#[async_trait]
pub(crate) trait StoreHome {
    /// The store, empty when the test begins.
    fn store(&self) -> Arc<dyn Store>;
    /// Closes the store and opens it again. The test must have dropped what it got from `store`.
    async fn reopen(&mut self);
}

macro_rules! contract {
    ($home:ident, $new:expr) => {
        contract!(
            $home,
            $new,
            an_event_takes_effect_once,
            a_known_key_with_other_money_is_a_conflict,
            a_transaction_belongs_to_one_order,
            an_event_of_an_unregistered_order_waits_and_leaves_nothing,
            each_event_of_a_batch_is_answered_in_its_place,
            events_of_one_order_in_one_batch_see_one_another,
            money_that_should_not_have_come_is_recorded_and_rejected,
            many_at_once_apply_one_event_once,
            an_account_is_the_sum_of_its_ledger_whoever_writes_at_once,
            refunds_that_race_their_payment_end_the_same,
            a_close_that_races_a_payment_leaves_one_truth,
            registering_again_changes_nothing,
            closing_answers_what_the_order_is,
            an_account_shows_its_latest_entries_first,
            merchants_share_neither_orders_nor_points,
            what_was_answered_is_there_after_reopening,
            a_rehearsal_says_what_apply_says_and_writes_nothing,
            the_audit_record_keeps_every_line_in_its_order
        );
    };
    ($home:ident, $new:expr, $($test:ident),+) => {
        mod $home {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test($new.await).await;
                }
            )+
        }
    };
}

contract!(embedded, EmbeddedHome::new());
contract!(postgres, SqlHome::new(Kind::Postgres));
contract!(mariadb, SqlHome::new(Kind::Mariadb));

async fn an_event_takes_effect_once(home: impl StoreHome) {
    let store = home.store();
    register(&*store, &["A"]).await;
    assert_eq!(apply(&*store, &[paid("A", "T1")]).await, ["fresh +1999"]);
    assert_eq!(apply(&*store, &[paid("A", "T1")]).await, ["duplicate"]);
    let told_again = Payment { success_time: Timestamp::MAX, payer: None, ..payment("A", "T1") };
    assert_eq!(apply(&*store, &[event(9, Fact::Payment(told_again))]).await, ["duplicate"]);
    let (order, ledger) = store.order(&order_id("A")).await.unwrap().unwrap();
    assert_eq!((order.state(), order.credited, ledger.len()), (OrderState::Paid, 1_999, 1));
    assert_eq!(audit(&*store, "user").await, (1_999, ledger));
    store.ping().await.unwrap();
}

async fn a_known_key_with_other_money_is_a_conflict(home: impl StoreHome) {
    let store = home.store();
    register(&*store, &["A"]).await;
    apply(&*store, &[paid("A", "T1"), refunded("A", "T1", "R1", 100)]).await;
    let dearer = event(3, Fact::Payment(Payment { amount: fen(AMOUNT + 1), ..payment("A", "T1") }));
    let more = refunded("A", "T1", "R1", 101);
    assert_eq!(apply(&*store, &[dearer, more]).await, ["rejected conflicting_duplicate"; 2]);
    assert_eq!(audit(&*store, "user").await.0, 1_899);
}

async fn a_transaction_belongs_to_one_order(home: impl StoreHome) {
    let store = home.store();
    register(&*store, &["A", "B"]).await;
    apply(&*store, &[paid("A", "T1")]).await;
    let answers = store.apply(&[paid("B", "T1"), paid("B", "T2")]).await.unwrap();
    assert!(
        matches!(&answers[0], Applied::Rejected(rejection) if rejection.reason == Reason::ConflictingDuplicate
            && rejection.detail == "recorded on order shop/A, now told on order shop/B"),
        "{answers:?}"
    );
    assert_eq!(outcome(&answers[1]), "fresh +1999");
    let both = [refunded("A", "T1", "R1", 5), refunded("B", "T2", "R1", 5)];
    assert_eq!(apply(&*store, &both).await, ["fresh -5", "rejected conflicting_duplicate"], "within one batch too");
    assert_eq!(audit(&*store, "user").await.0, 3_993);
}

async fn an_event_of_an_unregistered_order_waits_and_leaves_nothing(home: impl StoreHome) {
    let store = home.store();
    let answers = store.apply(&[paid("A", "T1")]).await.unwrap();
    assert!(
        matches!(&answers[0], Applied::Waiting(rejection) if rejection.reason == Reason::UnknownOrder
            && rejection.detail == "order shop/A is not registered"),
        "{answers:?}"
    );
    assert!(store.order(&order_id("A")).await.unwrap().is_none());
    assert!(store.account(&account_id("user"), 9).await.unwrap().is_none());
    register(&*store, &["A"]).await;
    assert_eq!(apply(&*store, &[paid("A", "T1")]).await, ["fresh +1999"]);
}

async fn each_event_of_a_batch_is_answered_in_its_place(home: impl StoreHome) {
    let store = home.store();
    register(&*store, &["A", "B", "C"]).await;
    apply(&*store, &[paid("A", "T1")]).await;
    let usd = Payment { currency: Currency::parse("USD").unwrap(), ..payment("C", "T3") };
    let foreign = Payment { appid: AppId::parse("wx2").unwrap(), ..payment("C", "T3") };
    let cheap = Payment { amount: fen(1), ..payment("C", "T3") };
    let batch = [
        paid("A", "T1"),
        paid("nowhere", "T9"),
        event(3, Fact::Payment(cheap)),
        event(4, Fact::Payment(usd)),
        event(5, Fact::Payment(foreign)),
        refunded("A", "T7", "R7", 1),
        refunded("A", "T1", "R8", AMOUNT + 1),
        paid("B", "T2"),
    ];
    let expected = [
        "duplicate",
        "waiting unknown_order",
        "rejected amount_mismatch",
        "rejected currency_mismatch",
        "rejected appid_mismatch",
        "waiting transaction_mismatch",
        "rejected over_refund",
        "fresh +1999",
    ];
    assert_eq!(apply(&*store, &batch).await, expected);
    assert_eq!(state(&*store, "C").await, OrderState::Unpaid);
    assert_eq!(apply(&*store, &[paid("C", "T3")]).await, ["fresh +1999"], "a rejected fact is not a known one");
    assert!(store.apply(&[]).await.unwrap().is_empty());
    assert_eq!(audit(&*store, "user").await.1.len(), 3);
}

async fn events_of_one_order_in_one_batch_see_one_another(home: impl StoreHome) {
    let store = home.store();
    register(&*store, &["A"]).await;
    let batch = [
        refunded("A", "T1", "R1", 500),
        paid("A", "T1"),
        paid("A", "T1"),
        refunded("A", "T1", "R2", 1_500),
        refunded("A", "T1", "R3", 1_499),
    ];
    let expected = ["fresh +0", "fresh +1499", "duplicate", "rejected over_refund", "fresh -1499"];
    assert_eq!(apply(&*store, &batch).await, expected);
    let (order, ledger) = store.order(&order_id("A")).await.unwrap().unwrap();
    assert_eq!((order.state(), order.kept()), (OrderState::Refunded, Fen::ZERO));
    assert_eq!(ledger.iter().map(|entry| entry.balance).collect::<Vec<_>>(), [1_499, 0]);
}

async fn money_that_should_not_have_come_is_recorded_and_rejected(home: impl StoreHome) {
    let store = home.store();
    register(&*store, &["A", "B"]).await;
    store.close(&order_id("B")).await.unwrap();
    let failed = Refund { status: RefundStatus::Abnormal, ..refund("A", "T1", "R1", 1) };
    let batch = [paid("A", "T1"), paid("A", "T2"), event(3, Fact::Refund(failed)), paid("B", "T3")];
    let expected = ["fresh +1999", "rejected surplus_payment", "rejected refund_abnormal", "rejected paid_after_close"];
    assert_eq!(apply(&*store, &batch).await, expected);
    let (order, _) = store.order(&order_id("A")).await.unwrap().unwrap();
    assert_eq!((order.received(), order.facts.len()), (fen(2 * AMOUNT), 3));
    assert_eq!(state(&*store, "B").await, OrderState::PaidAfterClose);
    assert_eq!(audit(&*store, "user").await.0, 1_999);
    assert_eq!(apply(&*store, &[paid("A", "T2")]).await, ["rejected surplus_payment"], "its dead letter may be lost");
    assert_eq!(apply(&*store, &[event(9, Fact::Payment(payment("A", "T2")))]).await, ["duplicate"]);
}

async fn registering_again_changes_nothing(home: impl StoreHome) {
    let store = home.store();
    register(&*store, &["A"]).await;
    apply(&*store, &[paid("A", "T1")]).await;
    let again = store.register(&registration("A", Some("user"))).await.unwrap();
    assert!(matches!(&again, Registered::Known(order) if order.state() == OrderState::Paid), "{again:?}");
    let changed = [
        Registration { amount: fen(1), ..registration("A", Some("user")) },
        Registration { rate: "2/1".parse().unwrap(), ..registration("A", Some("user")) },
        registration("A", Some("someone")),
    ];
    for other in changed {
        let conflict = store.register(&other).await.unwrap();
        let Registered::Conflict(order) = conflict else { panic!("{conflict:?}") };
        assert_eq!(order.registration, registration("A", Some("user")));
    }
    assert_eq!(state(&*store, "A").await, OrderState::Paid);

    let registration = registration("B", None);
    // Many more at a time than the store has connections.
    let all = join_all((0..64).map(|_| store.register(&registration))).await;
    let fresh = all.iter().filter(|answer| matches!(answer, Ok(Registered::Fresh(_)))).count();
    let known = all.iter().filter(|answer| matches!(answer, Ok(Registered::Known(_)))).count();
    assert_eq!((fresh, known), (1, 63), "{all:?}");
}

async fn closing_answers_what_the_order_is(home: impl StoreHome) {
    let store = home.store();
    register(&*store, &["A", "B"]).await;
    apply(&*store, &[paid("B", "T1")]).await;
    let Closed::Closed(first) = store.close(&order_id("A")).await.unwrap() else { panic!("it was unpaid") };
    assert_eq!(store.close(&order_id("A")).await.unwrap(), Closed::Closed(first), "closing again changes nothing");
    assert!(matches!(store.close(&order_id("B")).await.unwrap(), Closed::Paid(_)));
    assert_eq!(store.close(&order_id("C")).await.unwrap(), Closed::Unknown);
    assert_eq!((state(&*store, "A").await, state(&*store, "B").await), (OrderState::Closed, OrderState::Paid));
}

async fn an_account_shows_its_latest_entries_first(home: impl StoreHome) {
    let store = home.store();
    register(&*store, &["A", "B", "C"]).await;
    for (number, transaction) in [("A", "T1"), ("B", "T2"), ("C", "T3")] {
        apply(&*store, &[paid(number, transaction)]).await;
    }
    let account = store.account(&account_id("user"), 2).await.unwrap().unwrap();
    let shown: Vec<_> = account.entries.iter().map(|entry| entry.order.out_trade_no.as_str()).collect();
    assert_eq!((account.balance, shown), (3 * AMOUNT, vec!["C", "B"]));
    assert!(store.account(&account_id("user"), 0).await.unwrap().unwrap().entries.is_empty());
    assert!(store.account(&account_id("use"), 9).await.unwrap().is_none());
}

async fn merchants_share_neither_orders_nor_points(home: impl StoreHome) {
    let store = home.store();
    let other = MerchantName::parse("shop-2").unwrap();
    let other_order = OrderId { merchant: other.clone(), ..order_id("A") };
    register(&*store, &["A"]).await;
    let registration = Registration { id: other_order.clone(), ..registration("A", None) };
    assert!(matches!(store.register(&registration).await.unwrap(), Registered::Fresh(_)));
    let foreign = Payment {
        order: other_order.clone(),
        mchid: MchId::parse("1900000002").unwrap(),
        payer: Some(OpenId::parse("user").unwrap()),
        ..payment("A", "T1")
    };
    assert_eq!(apply(&*store, &[event(1, Fact::Payment(foreign))]).await, ["fresh +1999"]);
    assert!(store.account(&account_id("user"), 9).await.unwrap().is_none());
    assert_eq!(apply(&*store, &[paid("A", "T1")]).await, ["fresh +1999"]);
    let account = AccountId { merchant: other, user: UserId::parse("user").unwrap() };
    let entries = store.account(&account, 9).await.unwrap().unwrap().entries;
    assert_eq!(entries.len(), 1);
    assert_eq!(
        store.order(&other_order).await.unwrap().unwrap().1,
        entries,
        "the payer owns what nobody was named for"
    );
}

async fn what_was_answered_is_there_after_reopening(mut home: impl StoreHome) {
    let before = {
        let store = home.store();
        register(&*store, &["A", "B"]).await;
        store.close(&order_id("B")).await.unwrap();
        apply(&*store, &[paid("A", "T1"), refunded("A", "T1", "R1", 99)]).await;
        everything(&*store).await
    };
    home.reopen().await;
    let store = home.store();
    assert_eq!(everything(&*store).await, before);
    assert_eq!(apply(&*store, &[paid("A", "T1")]).await, ["duplicate"]);
    assert_eq!(apply(&*store, &[refunded("A", "T1", "R2", 1)]).await, ["fresh -1"]);
    assert_eq!(audit(&*store, "user").await.0, 1_899);
}

type OrderAndLedger = Option<(Order, Vec<LedgerEntry>)>;

async fn everything(store: &dyn Store) -> (OrderAndLedger, OrderAndLedger, Option<Account>) {
    (
        store.order(&order_id("A")).await.unwrap(),
        store.order(&order_id("B")).await.unwrap(),
        store.account(&account_id("user"), 99).await.unwrap(),
    )
}
