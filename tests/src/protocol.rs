//! The whole protocol through the real pair: v3 and refunds, any order of arrival, many merchants.

use serde_json::{Value, json};
use wxpay_shared::{
    admin::{ReplayOutcome, Replayed},
    order::OrderState,
    reason::Reason,
    wechat::sender::SigningKey,
};

use crate::harness::{
    notice::Notice,
    pair::{API_V3_KEY, MCH_ID, Pair, V2_KEY},
    rabbitmq::{self, Node},
    wechat::{self, Signed},
};

pub(crate) async fn pair() -> (&'static Node, String, Pair) {
    let (node, host) = rabbitmq::fresh_host().await;
    let pair = Pair::start(&node.url(&host)).await;
    (node, host, pair)
}

pub(crate) async fn post_v3(pair: &Pair, merchant: &str, signed: &Signed) -> (u16, String) {
    let url = pair.notify_url(merchant).replace("/v2/", "/v3/");
    let request =
        signed.headers.iter().fold(pair.client.post(url), |request, (name, value)| request.header(*name, value));
    let answer = request.body(signed.body.clone()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

pub(crate) async fn accepted(pair: &Pair, key: &SigningKey, event_type: &str, number: usize, content: &Value) {
    let signed = wechat::v3(key, API_V3_KEY, event_type, number, content);
    assert_eq!(post_v3(pair, "shop", &signed).await, (204, String::new()));
}

pub(crate) async fn replay_all(pair: &Pair) -> Vec<ReplayOutcome> {
    let request = pair.client.post(pair.admin_url("/dead-letters/replay"));
    let answer = request.json(&json!({ "select": { "all": true } })).send().await.unwrap();
    answer.json::<Replayed>().await.unwrap().results.iter().map(|result| result.outcome).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_v3_payment_is_applied_and_its_refunds_take_the_points_back() {
    let (node, host, pair) = pair().await;
    let key = wechat::public_key();
    pair.register("shop", "V3", 10_000, "u").await;
    accepted(&pair, &key, "TRANSACTION.SUCCESS", 1, &wechat::transaction("V3", 10_000)).await;
    accepted(&pair, &key, "REFUND.SUCCESS", 2, &wechat::refund("V3", 10_000, 1, 3_050, "SUCCESS")).await;
    pair.settled(node, &host).await;
    let order = pair.order("shop", "V3").await;
    assert_eq!((order.state, order.points, order.kept.get()), (OrderState::PartiallyRefunded, 69, 6_950));

    accepted(&pair, &key, "REFUND.ABNORMAL", 3, &wechat::refund("V3", 10_000, 2, 6_950, "ABNORMAL")).await;
    accepted(&pair, &key, "REFUND.CLOSED", 4, &wechat::refund("V3", 10_000, 3, 6_950, "CLOSED")).await;
    // The same refund at last, told in v2's form on the v3 route, as the merchant console does it.
    let last = wechat::v2_refund(V2_KEY, MCH_ID, &wechat::refund("V3", 10_000, 4, 6_950, "SUCCESS"));
    let url = pair.notify_url("shop").replace("/v2/", "/v3/");
    let answer = pair.client.post(url).body(last).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("SUCCESS"));
    accepted(&pair, &key, "REFUND.SUCCESS", 5, &wechat::refund("V3", 10_000, 5, 1, "SUCCESS")).await;
    pair.settled(node, &host).await;
    let order = pair.order("shop", "V3").await;
    assert_eq!((order.state, order.points, order.kept.get()), (OrderState::Refunded, 0, 0));
    let dead = pair.dead_letters().await.by_reason;
    assert_eq!(
        dead.into_iter().collect::<Vec<_>>(),
        [("over_refund".to_owned(), 1), ("refund_abnormal".to_owned(), 1)]
    );
}

/// A service provider's new sub-merchant, whom nobody has put into the configuration yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_of_a_sub_merchant_that_is_not_configured_is_kept_for_a_person() {
    let (node, host, pair) = pair().await;
    let refund = wechat::v2_refund(V2_KEY, MCH_ID, &wechat::refund("SUB", 10_000, 1, 10_000, "SUCCESS"));
    let refund = refund.replace("<nonce_str>", "<sub_mch_id>1900990999</sub_mch_id><nonce_str>");
    let (status, reply) = pair.post("shop", refund).await;
    assert!(status == 200 && reply.contains("SUCCESS"), "{reply}");
    pair.settled(node, &host).await;
    let letters = pair.dead_letters().await.dead_letters;
    assert_eq!(letters.iter().map(|letter| letter.reason).collect::<Vec<_>>(), [Reason::MerchantMismatch]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_events_are_acknowledged_and_counted_by_type() {
    let (node, host, pair) = pair().await;
    let key = wechat::public_key();
    for (number, event_type) in ["COUPON.USE", "PAYSCORE.USER_PAID", "COUPON.USE"].into_iter().enumerate() {
        accepted(&pair, &key, event_type, number, &json!({ "anything": 1 })).await;
    }
    let mut probe = wechat::v3(&key, API_V3_KEY, "TRANSACTION.SUCCESS", 9, &json!({}));
    probe.headers.iter_mut().find(|(name, _)| *name == "Wechatpay-Signature").unwrap().1 =
        "WECHATPAY/SIGNTEST/abc".to_owned();
    assert_eq!(post_v3(&pair, "shop", &probe).await.0, 401);
    pair.settled(node, &host).await;
    assert_eq!(pair.dead_letters().await.matching, 0);
    let page = pair.client.get(pair.admin_url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("wxpay_worker_ignored_total{kind=\"COUPON.USE\"} 2"), "{page}");
    let page = pair.client.get(pair.ops_url("/metrics")).send().await.unwrap().text().await.unwrap();
    let probes =
        "wxpay_ingress_notifications_total{merchant=\"shop\",api=\"v3\",kind=\"unknown\",result=\"signature_probe\"} 1";
    assert!(page.contains(probes), "{page}");
}

/// Every order of arrival of a payment, a repeat of it, and refunds of each status, as v2 and v3 tell them.
#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_arrival_ends_the_same() {
    let (node, host, pair) = pair().await;
    let key = wechat::public_key();
    let mut orders = Vec::new();
    for (index, order) in permutations(5).into_iter().enumerate() {
        let out_trade_no = format!("P{index:03}");
        pair.register("shop", &out_trade_no, 10_000, "u").await;
        for step in order {
            let number = index * 10 + step;
            match step {
                0 => {
                    accepted(&pair, &key, "TRANSACTION.SUCCESS", number, &wechat::transaction(&out_trade_no, 10_000))
                        .await
                }
                1 => {
                    let (status, reply) = pair.post("shop", Notice::new(&out_trade_no, 10_000).xml("again")).await;
                    assert_eq!((status, reply.contains("SUCCESS")), (200, true));
                }
                2 => {
                    let content = wechat::refund(&out_trade_no, 10_000, 1, 2_999, "SUCCESS");
                    accepted(&pair, &key, "REFUND.SUCCESS", number, &content).await;
                }
                3 => {
                    let content = wechat::refund(&out_trade_no, 10_000, 2, 4_001, "SUCCESS");
                    let (status, reply) = pair.post("shop", wechat::v2_refund(V2_KEY, MCH_ID, &content)).await;
                    assert_eq!((status, reply.contains("SUCCESS")), (200, true));
                }
                _ => {
                    let content = wechat::refund(&out_trade_no, 10_000, 1, 2_999, "CLOSED");
                    accepted(&pair, &key, "REFUND.CLOSED", number, &content).await;
                }
            }
        }
        orders.push(out_trade_no);
    }
    pair.settled(node, &host).await;
    assert_eq!((orders.len(), pair.dead_letters().await.matching), (120, 0));
    for out_trade_no in orders {
        let order = pair.order("shop", &out_trade_no).await;
        let end = (order.state, order.points, order.payments.len(), order.refunds.len());
        assert_eq!(end, (OrderState::PartiallyRefunded, 30, 1, 3), "{out_trade_no}");
        assert_eq!(order.ledger.iter().map(|entry| entry.points).sum::<i64>(), 30);
    }
    let account: Value = pair.get("/points/shop/u").await;
    assert_eq!(account["balance"], 30 * 120);
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    (0..count).fold(vec![Vec::new()], |shorter, item| {
        let insert = |order: Vec<usize>| {
            (0..=order.len()).map(move |place| {
                let mut longer = order.clone();
                longer.insert(place, item);
                longer
            })
        };
        shorter.into_iter().flat_map(insert).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_of_one_merchant_never_takes_effect_on_anothers_path() {
    let (node, host, pair) = pair().await;
    for merchant in ["shop", "partner", "sandbox", "careful"] {
        pair.register(merchant, "X", 100, "u").await;
    }
    let payment = Notice::new("X", 100);
    for merchant in ["partner", "sandbox", "careful"] {
        let (_, reply) = pair.post(merchant, payment.xml("n")).await;
        assert!(reply.contains("FAIL"), "{merchant}: {reply}");
        let refund = wechat::v2_refund(V2_KEY, MCH_ID, &wechat::refund("X", 100, 1, 100, "SUCCESS"));
        if merchant != "sandbox" {
            assert!(pair.post(merchant, refund).await.1.contains("FAIL"), "{merchant}");
        }
    }
    // The platform's key is the same for both here, so only the content tells whose it is.
    let signed =
        wechat::v3(&wechat::public_key(), API_V3_KEY, "TRANSACTION.SUCCESS", 1, &wechat::transaction("X", 100));
    assert_eq!(post_v3(&pair, "partner", &signed).await.0, 204);
    assert_eq!(post_v3(&pair, "careful", &signed).await.0, 404, "it has no keys for v3");
    pair.settled(node, &host).await;
    for merchant in ["shop", "partner", "sandbox", "careful"] {
        let order = pair.order(merchant, "X").await;
        assert_eq!((order.state, order.refunds.len()), (OrderState::Unpaid, 0), "{merchant}");
    }
    let dead = pair.dead_letters().await.dead_letters;
    assert_eq!(dead.iter().map(|letter| letter.reason).collect::<Vec<_>>(), [Reason::MerchantMismatch]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_careful_merchant_takes_only_the_refunds_that_it_registered() {
    let (node, host, pair) = pair().await;
    pair.register("careful", "Y", 1_000, "u").await;
    let register = |number: &str, amount: i64| {
        let request = pair.client.post(pair.admin_url("/orders/careful/Y/refunds"));
        request.json(&json!({ "out_refund_no": number, "amount": amount })).send()
    };
    assert_eq!(register("R1Y", 300).await.unwrap().status(), 200);
    assert_eq!(register("R1Y", 300).await.unwrap().status(), 200, "the same again");
    assert_eq!(register("R1Y", 301).await.unwrap().status(), 409);
    assert_eq!(register("R2Y", 200).await.unwrap().status(), 200);
    for (number, amount) in [(1, 300), (2, 201), (3, 100)] {
        let content = wechat::refund("Y", 1_000, number, amount, "SUCCESS");
        assert!(pair.post("careful", wechat::v2_refund(V2_KEY, "1900990003", &content)).await.1.contains("SUCCESS"));
    }
    pair.settled(node, &host).await;
    let order = pair.order("careful", "Y").await;
    assert_eq!(order.refunds.iter().map(|refund| refund.amount.get()).collect::<Vec<_>>(), [300]);
    let dead = pair.dead_letters().await.by_reason;
    assert_eq!(dead.into_iter().collect::<Vec<_>>(), [("unregistered_refund".to_owned(), 2)]);
}
