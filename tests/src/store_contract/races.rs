//! The store's promises under many callers at once.

use std::sync::Arc;

use futures_util::future::join_all;
use wxpay_shared::{
    order::OrderState,
    store::{Applied, Closed},
};

use super::{StoreHome, samples::*};

pub(crate) async fn many_at_once_apply_one_event_once(home: impl StoreHome) {
    let store = home.store();
    register(&*store, &["A"]).await;
    let appliers = (0..32).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { apply(&*store, &[paid("A", "T1")]).await.remove(0) })
    });
    let mut answers: Vec<_> = join_all(appliers).await.into_iter().map(Result::unwrap).collect();
    answers.sort();
    assert_eq!((&*answers[31], &*answers[0], &*answers[30]), ("fresh +1999", "duplicate", "duplicate"));
    assert_eq!(audit(&*store, "user").await.1.len(), 1);
}

pub(crate) async fn an_account_is_the_sum_of_its_ledger_whoever_writes_at_once(home: impl StoreHome) {
    let store = home.store();
    let appliers = (0..100).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            register(&*store, &[&format!("A{number}")]).await;
            apply(&*store, &[paid(&format!("A{number}"), &format!("T{number}"))]).await
        })
    });
    for answer in join_all(appliers).await {
        assert_eq!(answer.unwrap(), ["fresh +1999"]);
    }
    let (balance, entries) = audit(&*store, "user").await;
    assert_eq!((balance, entries.len()), (100 * AMOUNT, 100));
}

pub(crate) async fn refunds_that_race_their_payment_end_the_same(home: impl StoreHome) {
    let store = home.store();
    let numbers: Vec<_> = (0..20).map(|number| format!("A{number}")).collect();
    for number in &numbers {
        register(&*store, &[number]).await;
    }
    let events = numbers.iter().flat_map(|number| {
        let refund = |part: i64| refunded(number, number, &format!("{number}R{part}"), 100 * part);
        [refund(1), paid(number, number), refund(2)]
    });
    let appliers = events.map(|event| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.apply(&[event]).await.unwrap().remove(0) })
    });
    for answer in join_all(appliers).await {
        assert!(matches!(answer.unwrap(), Applied::Fresh { .. }));
    }
    for number in &numbers {
        let (order, _) = store.order(&order_id(number)).await.unwrap().unwrap();
        assert_eq!((order.state(), order.credited), (OrderState::PartiallyRefunded, AMOUNT - 300));
    }
    assert_eq!(audit(&*store, "user").await.0, 20 * (AMOUNT - 300));
}

pub(crate) async fn a_close_that_races_a_payment_leaves_one_truth(home: impl StoreHome) {
    let store = home.store();
    for number in (0..20).map(|number| format!("A{number}")) {
        register(&*store, &[&number]).await;
        let payment = [paid(&number, &number)];
        let id = order_id(&number);
        let (answers, closed) = tokio::join!(store.apply(&payment), store.close(&id));
        match closed.unwrap() {
            Closed::Paid(_) => assert_eq!(state(&*store, &number).await, OrderState::Paid),
            Closed::Closed(_) => {
                assert_eq!(outcome(&answers.unwrap()[0]), "rejected paid_after_close");
                assert_eq!(state(&*store, &number).await, OrderState::PaidAfterClose);
            }
            Closed::Unknown => panic!("the order is registered"),
        }
    }
}
