//! The dead-letter desk as a person uses it, on both homes: the real programs, the admin API and `wxpayctl`.

use std::collections::BTreeMap;

use serde_json::json;
use wxpay_shared::{
    admin::{ReplayOutcome, ReplayResult},
    envelope::Api,
    order::OrderState,
    reason::Reason,
};

use crate::harness::{
    notice::Notice,
    pair::{API_V3_KEY, APPID, DEADLINE, MCH_ID, V2_KEY},
    wait_until, wechat,
};

mod halfway;
mod letters;
mod looks;
mod stage;
mod transfer;
mod turns;

use letters::*;
use stage::Stage;

/// Every test of the desk on both homes, and on both kinds of SQL server.
macro_rules! on_both_homes {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use crate::{desk::stage::Stage, harness::database::Kind};

            #[tokio::test(flavor = "multi_thread")]
            async fn rabbitmq_and_postgres() {
                super::$test(Stage::rabbit_and_sql(Kind::Postgres).await).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn rabbitmq_and_mariadb() {
                super::$test(Stage::rabbit_and_sql(Kind::Mariadb).await).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn embedded() {
                super::$test(Stage::embedded().await).await;
            }
        }
    )+};
}
pub(crate) use on_both_homes;

on_both_homes!(
    a_dry_run_writes_nothing_and_agrees_with_the_replay,
    actions_are_on_record_also_when_the_dead_letter_is_gone,
    a_surplus_payment_stays_a_dead_letter_however_often_wechat_tells_of_it,
);

/// Each reason that a replay can end with, and each good end: what was done before, and the letter.
async fn one_of_each(stage: &Stage) -> Vec<(Letter, ReplayOutcome, Option<Reason>)> {
    use ReplayOutcome::{AlreadyApplied, Applied, DeadAgain, Ignored, Waiting};
    for order in ["GOOD", "TWICE", "AMOUNT", "CURRENCY", "CONFLICT", "SURPLUS", "CLOSED", "OVER", "ABNORMAL", "OTHERTX"]
    {
        stage.register("shop", order, 1_000).await;
    }
    stage.register("careful", "CAREFUL", 1_000).await;
    stage.pair.client.post(stage.pair.admin_url("/orders/shop/CLOSED/close")).send().await.unwrap();
    for order in ["TWICE", "CONFLICT", "SURPLUS", "OVER", "ABNORMAL", "OTHERTX"] {
        stage.paid(order, 1_000).await;
    }
    let dead = |reason| (DeadAgain, Some(reason));
    let v2 = |order: &str, amount| Letter::v2("shop", &Notice::new(order, amount));
    let v3 = |event, content: serde_json::Value| Letter::v3("shop", event, &content);
    let refund = |order: &str, number, amount| wechat::refund(order, 1_000, number, amount, "SUCCESS");
    let mut other_transaction = refund("OTHERTX", 1, 10);
    other_transaction["transaction_id"] = json!("42ELSEWHERE");
    let mut other_mchid = wechat::transaction("GOOD", 1_000);
    other_mchid["mchid"] = json!("1900990009");
    let mut unsealed = v2("GOOD", 1_000);
    unsealed.message.body = Notice::new("GOOD", 1).xml("n").into();
    let with =
        |order: &str, transaction: &str| Notice { transaction_id: transaction.to_owned(), ..Notice::new(order, 1_000) };
    let more =
        |order: &str, name, value: &str| Notice { more: vec![(name, value.to_owned())], ..Notice::new(order, 1_000) };
    let abnormal = wechat::refund("ABNORMAL", 1_000, 1, 500, "ABNORMAL");
    let careful = Letter::v2_body("careful", wechat::v2_refund(V2_KEY, "1900990003", &refund("CAREFUL", 1, 10)));
    vec![
        (v2("GOOD", 1_000), (Applied, None)),
        (v2("TWICE", 1_000), (AlreadyApplied, None)),
        (v3("COUPON.USE", json!({ "anything": 1 })), (Ignored, None)),
        (v2("AMOUNT", 999), dead(Reason::AmountMismatch)),
        (Letter::v2("shop", &more("CURRENCY", "fee_type", "USD")), dead(Reason::CurrencyMismatch)),
        (Letter::v2("shop", &more("GOOD", "appid", "wxother")), dead(Reason::AppidMismatch)),
        (v3("TRANSACTION.SUCCESS", other_mchid), dead(Reason::MerchantMismatch)),
        (Letter::v2("gone", &Notice::new("GOOD", 1_000)), (Waiting, Some(Reason::UnknownMerchant))),
        (v2("NOBODYS", 1_000), (Waiting, Some(Reason::UnknownOrder))),
        (Letter::v2("shop", &with("SURPLUS", "42AGAIN")), dead(Reason::SurplusPayment)),
        (v2("CLOSED", 1_000), dead(Reason::PaidAfterClose)),
        (v3("REFUND.SUCCESS", refund("OVER", 1, 1_000)), (Applied, None)),
        (v3("REFUND.SUCCESS", refund("OVER", 2, 1)), dead(Reason::OverRefund)),
        (v3("REFUND.ABNORMAL", abnormal), dead(Reason::RefundAbnormal)),
        (v3("REFUND.SUCCESS", other_transaction), (Waiting, Some(Reason::TransactionMismatch))),
        (careful, dead(Reason::UnregisteredRefund)),
        (
            Letter::v2("shop", &Notice { transaction_id: "42CONFLICT".to_owned(), ..Notice::new("TWICE", 1_000) }),
            dead(Reason::ConflictingDuplicate),
        ),
        (unsealed, dead(Reason::Unsealed)),
        (Letter::of_version("9", "shop", &Notice::new("GOOD", 1_000)), dead(Reason::UnknownVersion)),
        (Letter::v2_body("shop", "<xml><return_code>".to_owned()), dead(Reason::Unopenable)),
        (Letter::with_key("TRANSACTION.SUCCESS", "another-key-of-exactly-32-bytes!"), dead(Reason::Unopenable)),
        (Letter::with_algorithm("AEAD_SM4_GCM"), dead(Reason::UnsupportedAlgorithm)),
        (Letter::v2("shop", &more("GOOD", "transaction_id", "")), dead(Reason::InvalidField)),
    ]
    .into_iter()
    .map(|(letter, (outcome, reason))| (letter, outcome, reason))
    .collect()
}

/// The reasons that say why nothing else could be found out: a replay ends with what it finds instead.
const OF_THE_MOMENT: [Reason; 2] = [Reason::AttemptsExhausted, Reason::DeliveryLimit];

async fn a_dry_run_writes_nothing_and_agrees_with_the_replay(stage: Stage) {
    let cases = one_of_each(&stage).await;
    let found: Vec<_> = cases.iter().filter_map(|(_, _, reason)| *reason).collect();
    for reason in Reason::ALL.iter().filter(|reason| !OF_THE_MOMENT.contains(reason)) {
        assert!(found.contains(reason), "{reason} is not among the cases");
    }
    // Each is dead for another reason than the one it will be told, so that nothing is simply repeated.
    let labels = Reason::ALL.iter().cycle();
    let letters: Vec<_> = cases.iter().zip(labels).map(|((letter, ..), label)| letter.clone().dead(*label)).collect();
    stage.import(&letters).await;
    let orders = ["GOOD", "TWICE", "SURPLUS", "CLOSED", "OVER", "ABNORMAL"];

    let before = stage.everything(&orders).await;
    let rehearsed = stage.replay(json!({ "select": { "all": true }, "dry_run": true })).await;
    let again = stage.replay(json!({ "select": { "all": true }, "dry_run": true, "limit": 5 })).await;
    assert_eq!((again.results.len(), again.end.left), (5, cases.len() - 5));
    assert_eq!(stage.everything(&orders).await, before, "a dry run writes nothing");

    let replayed = stage.replay(json!({ "select": { "all": true } })).await;
    let by_id = |results: Vec<ReplayResult>| -> BTreeMap<String, ReplayResult> {
        results.into_iter().map(|result| (result.id.to_string(), result)).collect()
    };
    let (rehearsed, replayed) = (by_id(rehearsed.results), by_id(replayed.results));
    assert_eq!(rehearsed, replayed);
    assert_eq!(replayed.len(), cases.len());
    for (letter, outcome, reason) in &cases {
        let result = &replayed[letter.message.id.as_str()];
        assert_eq!((result.outcome, result.reason), (*outcome, *reason), "{}", result.detail);
    }
    assert_ne!(stage.everything(&orders).await, before, "a replay does");
    assert_eq!(stage.pair.order("shop", "GOOD").await.state, OrderState::Paid);
}

async fn actions_are_on_record_also_when_the_dead_letter_is_gone(mut stage: Stage) {
    stage.register("shop", "A", 1_000).await;
    stage.register("shop", "B", 1_000).await;
    let letters = [("A", 1_000), ("B", 1)]
        .map(|(order, amount)| Letter::v2("shop", &Notice::new(order, amount)).dead(Reason::UnknownOrder));
    let ids = letters.clone().map(|letter| letter.message.id);
    stage.import(&letters).await;
    let (code, said) = stage.ctl(&["dlq", "replay", "--all", "--by", "mei", "--why", "registered late"]);
    assert_eq!(code, 1, "{said}");
    let (code, said) = stage.ctl(&["dlq", "discard", ids[1].as_str(), "--reason", "refunded by hand", "--by", "lin"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(stage.pair.dead_letters().await.matching, 0);

    stage.pair.kill_worker();
    stage.start_worker().await;
    let told = |entries: Vec<wxpay_shared::store::audit::AuditEntry>| -> Vec<_> {
        let line = |entry: wxpay_shared::store::audit::AuditEntry| {
            let line = entry.line;
            [line.action.code().to_owned(), line.orders, line.by, line.why, line.result.unwrap_or_default()].join(", ")
        };
        entries.into_iter().map(line).collect()
    };
    let of_b = format!("/dead-letters/audit?notification={}", ids[1]);
    assert_eq!(
        told(stage.pair.get(&of_b).await),
        [
            "import, shop/B, tests, , imported",
            "replay, shop/B, mei, registered late, dead_again",
            "discard, shop/B, lin, refunded by hand, discarded",
        ]
    );
    assert_eq!(told(stage.pair.get("/dead-letters/audit").await).len(), 5);
    assert_eq!(told(stage.pair.get("/dead-letters/audit?since=2100-01-01T00:00:00Z").await), [""; 0]);
    let (code, shown) = stage.ctl(&["dlq", "audit", ids[0].as_str(), "--since", "1h"]);
    assert_eq!(code, 0);
    for part in ["registered late", "applied", "shop/A", "unknown_order", "2 actions"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

async fn a_surplus_payment_stays_a_dead_letter_however_often_wechat_tells_of_it(stage: Stage) {
    stage.register("shop", "S", 1_000).await;
    stage.paid("S", 1_000).await;
    let surplus = Notice { transaction_id: "42SECOND".to_owned(), ..Notice::new("S", 1_000) };
    for (nonce, outcome) in [("first", "dead_letter"), ("second", "duplicate")] {
        assert_eq!(stage.pair.post("shop", surplus.xml(nonce)).await.0, 200);
        stage.counted(outcome, 1).await;
    }
    assert_eq!(stage.pair.dead_letters().await.matching, 1, "the second one is a duplicate");
    for replays in 1..3 {
        let replayed =
            stage.replay(json!({ "select": { "order": { "merchant": "shop", "out_trade_no": "S" } } })).await;
        let outcomes: Vec<_> = replayed.results.iter().map(|result| (result.outcome, result.reason)).collect();
        assert_eq!(outcomes, [(ReplayOutcome::DeadAgain, Some(Reason::SurplusPayment))]);
        wait_until("it is a dead letter again", DEADLINE, async || {
            stage.pair.dead_letters().await.dead_letters.iter().any(|letter| letter.replays == replays)
        })
        .await;
    }
}
