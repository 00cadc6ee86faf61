//! Combined payments (合单支付): several orders in one notification, each with an end of its own.

use serde_json::{Value, json};
use wxpay_shared::{admin::ReplayOutcome, order::OrderState, queue::Depths, reason::Reason};

use crate::{
    harness::{
        pair::{APPID, DEADLINE, MCH_ID, Pair},
        rabbitmq, wait_until, wechat,
    },
    protocol::{accepted, pair, replay_all},
};

fn part(out_trade_no: &str, total: i64) -> Value {
    json!({
        "mchid": MCH_ID, "out_trade_no": out_trade_no, "transaction_id": format!("42{out_trade_no}"),
        "trade_type": "JSAPI", "trade_state": "SUCCESS", "bank_type": "OTHERS",
        "success_time": "2026-03-18T10:20:30.123+08:00",
        "amount": { "total_amount": total, "payer_amount": total, "currency": "CNY", "payer_currency": "CNY" }
    })
}

async fn pay(pair: &Pair, parts: &[Value]) {
    let content = json!({
        "combine_appid": APPID, "combine_mchid": MCH_ID, "combine_out_trade_no": "C",
        "combine_payer_info": { "openid": "o1" }, "sub_orders": parts
    });
    accepted(pair, &wechat::public_key(), "TRANSACTION.SUCCESS", 1, &content).await;
}

async fn state(pair: &Pair, out_trade_no: &str) -> OrderState {
    pair.order("shop", out_trade_no).await.state
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_combined_payment_are_applied_each_by_itself() {
    let (node, host, pair) = pair().await;
    for (order, amount) in [("C1", 1_000), ("C2", 2_000), ("C3", 3_000)] {
        pair.register("shop", order, amount, "u").await;
    }
    pay(&pair, &[part("C1", 1_000), part("C2", 1), part("C3", 1)]).await;
    pair.settled(node, &host).await;
    assert_eq!(state(&pair, "C1").await, OrderState::Paid);
    assert_eq!(state(&pair, "C2").await, OrderState::Unpaid);
    let letter = pair.dead_letters().await.dead_letters.remove(0);
    assert_eq!(letter.reason, Reason::AmountMismatch);
    let said = "order 2000 fen, paid 1 fen; amount_mismatch: order 3000 fen, paid 1 fen";
    assert_eq!(letter.detail, said, "both are told");
    assert_eq!(replay_all(&pair).await, [ReplayOutcome::DeadAgain]);
    assert_eq!(pair.order("shop", "C1").await.points, 10, "the replay repeats the good part without effect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_rejected_does_not_end_the_wait_of_another() {
    let mut pair = Pair::prepare(&rabbitmq::fresh_url().await);
    pair.set_retries("\"1h\"", 4);
    pair.start_ingress();
    pair.start_worker();
    pair.ready().await;
    pair.register("shop", "C2", 2_000, "u").await;
    pay(&pair, &[part("C1", 1_000), part("C2", 1)]).await;
    wait_until("it waits for its order", DEADLINE, async || pair.get::<Depths>("/queue").await.retry == 1).await;
    assert_eq!(pair.dead_letters().await.matching, 0);

    pair.register("shop", "C1", 1_000, "u").await;
    wait_until("the late part is paid", DEADLINE, async || state(&pair, "C1").await == OrderState::Paid).await;
    wait_until("the other one is told", DEADLINE, async || pair.dead_letters().await.matching == 1).await;
    let letter = pair.dead_letters().await.dead_letters.remove(0);
    assert_eq!((letter.reason, letter.detail.as_str()), (Reason::AmountMismatch, "order 2000 fen, paid 1 fen"));
}
