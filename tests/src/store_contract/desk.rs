//! What the dead-letter desk asks of a store: a decision that writes nothing, and the record of what people did.

use jiff::Timestamp;
use wxpay_shared::{
    event::{Fact, Payment},
    ids::NotificationId,
    reason::Reason,
    store::{
        audit::{Action, AuditLine, AuditQuery},
        seen::Seen,
    },
};

use super::{StoreHome, samples::*};

pub(super) async fn a_rehearsal_says_what_apply_says_and_writes_nothing(home: impl StoreHome) {
    let store = home.store();
    register(&*store, &["A", "B"]).await;
    apply(&*store, &[paid("A", "T1")]).await;
    let before = store.order(&order_id("A")).await.unwrap();
    let events = [
        paid("A", "T1"),
        paid("A", "T2"),
        refunded("A", "T1", "R1", 100),
        paid("B", "T3"),
        paid("B", "T3"),
        paid("A", "T3"),
        event(7, Fact::Payment(Payment { amount: fen(AMOUNT + 1), ..payment("B", "T4") })),
        paid("C", "T5"),
    ];
    // In two parts, the second of which sees what the first would have changed.
    let mut seen = Seen::default();
    let mut rehearsed = Vec::new();
    for part in events.chunks(3) {
        seen.add(store.look(part).await.unwrap());
        rehearsed.extend(part.iter().map(|event| seen.answer(event).0));
    }
    assert_eq!(store.order(&order_id("A")).await.unwrap(), before);
    assert_eq!(store.order(&order_id("B")).await.unwrap().unwrap().0.facts.len(), 0);
    assert_eq!(rehearsed, store.apply(&events).await.unwrap());
}

fn line(number: i64, notification: &str, result: Option<&str>) -> AuditLine {
    AuditLine {
        at: Timestamp::from_microsecond(1_700_000_000_123_456 + number * 1_000_000).unwrap(),
        request: NotificationId::parse("01").unwrap(),
        action: Action::Discard,
        notification: NotificationId::parse(notification).unwrap(),
        by: "梅".to_owned(),
        why: "退款 'by hand'".to_owned(),
        orders: "shop/A shop/B".to_owned(),
        reason: Reason::SurplusPayment,
        result: result.map(str::to_owned),
        detail: "𠮷".repeat(8_000),
    }
}

pub(super) async fn the_audit_record_keeps_every_line_in_its_order(mut home: impl StoreHome) {
    let lines =
        [line(1, "a", None), line(1, "ab", None), line(2, "a", Some("discarded")), line(3, "ab", Some("failed"))];
    home.store().write_audit(&lines[..2]).await.unwrap();
    home.store().write_audit(&[]).await.unwrap();
    home.store().write_audit(&lines[2..]).await.unwrap();
    home.reopen().await;
    let store = home.store();
    let ask = async |query: AuditQuery| store.audit(&query).await.unwrap();
    let all = AuditQuery { notification: None, since: None, limit: 10 };
    assert_eq!(ask(all.clone()).await, lines);
    assert_eq!(ask(AuditQuery { limit: 3, ..all.clone() }).await, lines[1..], "the latest");
    assert_eq!(ask(AuditQuery { since: Some(lines[2].at), ..all.clone() }).await, lines[2..]);
    let of_a = AuditQuery { notification: Some(lines[0].notification.clone()), ..all };
    assert_eq!(ask(of_a.clone()).await, [lines[0].clone(), lines[2].clone()]);
    assert_eq!(ask(AuditQuery { since: Some(lines[1].at), limit: 1, ..of_a }).await, [lines[2].clone()]);
}
