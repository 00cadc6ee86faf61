//! The real pair on a real RabbitMQ, at work: replies, repeats, dead letters and their replay, workers that die.

use std::{collections::BTreeMap, process::Command, sync::Arc};

use serde_json::json;
use wxpay_shared::{
    admin::{Discarded, OrderView, ReplayOutcome, Replayed},
    order::OrderState,
    reason::Reason,
    wechat::v2_sign::SignType,
};

use crate::harness::{
    notice::Notice,
    pair::{DEADLINE, Pair, binary},
    rabbitmq::{self, Node},
    wait_until,
};

const SUCCESS: &str =
    "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>";

async fn pair() -> (&'static Node, String, Pair) {
    let (node, host) = rabbitmq::fresh_host().await;
    let pair = Pair::start(&node.url(&host)).await;
    (node, host, pair)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reply_is_exact_whatever_the_headers_say() {
    let (_, _, pair) = pair().await;
    let xml = Notice::new("HEADERS1", 100).xml("n");
    for (name, value) in [
        ("Content-Type", "text/xml"),
        ("Content-Type", "application/xml; charset=ISO-8859-1"),
        ("Content-Type", "text/plain"),
        ("Content-Type", "application/octet-stream"),
        ("X-No-Content-Type", "1"),
    ] {
        for path in ["shop", "shop/"] {
            let answer =
                pair.client.post(pair.notify_url(path)).header(name, value).body(xml.clone()).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["content-type"], "text/xml; charset=utf-8");
            assert_eq!(answer.headers()["content-length"], SUCCESS.len().to_string());
            assert_eq!(answer.text().await.unwrap(), SUCCESS);
        }
    }
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(
        xml.into_bytes().chunks(100).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>(),
    ));
    assert_eq!(pair.post("shop", chunked).await, (200, SUCCESS.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_on_the_route_speaks_xml() {
    let (node, host, pair) = pair().await;
    let fail = |reason: &str| {
        format!("<xml><return_code><![CDATA[FAIL]]></return_code><return_msg><![CDATA[{reason}]]></return_msg></xml>")
    };
    assert_eq!(pair.post("nobody", Notice::new("A", 1).xml("n")).await, (404, fail("unknown merchant")));
    assert_eq!(pair.post("shop", "").await, (200, fail("not well-formed XML of the expected shape")));
    assert_eq!(pair.post("shop", vec![b'<'; 70_000]).await, (413, fail("body too large")));
    let chunks = futures_util::stream::iter((0..7).map(|_| Ok::<_, std::io::Error>(vec![b'<'; 10_000])));
    assert_eq!(pair.post("shop", reqwest::Body::wrap_stream(chunks)).await, (413, fail("body too large")));
    let answer = pair.client.get(pair.notify_url("shop")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (405, fail("method not allowed")));
    let mut unsigned_fail = Notice::new("A", 1);
    unsigned_fail.more = vec![("return_code", "FAIL".to_owned()), ("sign_type", "RSA".to_owned())];
    assert_eq!(pair.post("shop", unsigned_fail.xml("n")).await, (200, fail("sign_type is not supported")));
    pair.settled(node, &host).await;
    assert_eq!(pair.dead_letters().await.matching, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_copies_at_once_are_applied_once() {
    let (node, host, pair) = pair().await;
    pair.register("shop", "COPIES", 8800, "u").await;
    let pair = Arc::new(pair);
    let posts: Vec<_> = (0..50)
        .map(|index| {
            let pair = Arc::clone(&pair);
            let mut notice = Notice::new("COPIES", 8800);
            if index % 2 == 0 {
                notice.sign_type = SignType::HmacSha256;
            }
            tokio::spawn(async move { pair.post("shop", notice.xml(&format!("nonce{}", index % 7))).await })
        })
        .collect();
    for post in posts {
        assert_eq!(post.await.unwrap(), (200, SUCCESS.to_owned()));
    }
    pair.settled(node, &host).await;
    let order = pair.order("shop", "COPIES").await;
    assert_eq!((order.state, order.payments.len(), order.ledger.len(), order.points), (OrderState::Paid, 1, 1, 88));
    assert_eq!(pair.dead_letters().await.matching, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_is_a_dead_letter_that_can_be_replayed_and_discarded() {
    let (node, host, pair) = pair().await;
    pair.register("shop", "WRONG", 8800, "u").await;
    for (order, fee) in [("WRONG", 8799), ("LATE", 500), ("WRONG", 8801)] {
        assert_eq!(pair.post("shop", Notice::new(order, fee).xml("n")).await.1, SUCCESS);
    }
    wait_until("three dead letters", DEADLINE, async || pair.dead_letters().await.matching == 3).await;
    let list = pair.dead_letters().await;
    assert_eq!(list.by_reason, BTreeMap::from([("amount_mismatch".to_owned(), 2), ("unknown_order".to_owned(), 1)]));
    for letter in &list.dead_letters {
        let attempts = if letter.reason == Reason::UnknownOrder { 4 } else { 1 };
        assert_eq!(letter.attempts, attempts, "{letter:?}");
    }
    let shown: serde_json::Value = pair.get(&format!("/dead-letters/{}", list.dead_letters[0].id)).await;
    assert_eq!((&shown["fields"]["openid"], &shown["fields"]["sign"]), (&"***".into(), &"***".into()));
    assert_eq!(shown["fields"]["out_trade_no"], "WRONG");

    pair.register("shop", "LATE", 500, "u").await;
    let replay = async |select: serde_json::Value| -> Replayed {
        let request = pair.client.post(pair.admin_url("/dead-letters/replay"));
        let answer = request.json(&serde_json::json!({ "select": select })).send().await.unwrap();
        answer.json().await.unwrap()
    };
    let replayed = replay(serde_json::json!({ "reason": "unknown_order" })).await;
    assert_eq!(replayed.results.iter().map(|result| result.outcome).collect::<Vec<_>>(), [ReplayOutcome::Applied]);
    assert_eq!(pair.order("shop", "LATE").await.points, 5);
    let replayed = replay(serde_json::json!({ "all": true })).await;
    assert_eq!(replayed.results.iter().map(|result| result.outcome).collect::<Vec<_>>(), [ReplayOutcome::DeadAgain; 2]);
    assert_eq!(pair.dead_letters().await.matching, 2, "still there, once each");

    let nothing = pair.client.post(pair.admin_url("/dead-letters/discard"));
    let nothing = nothing.json(&serde_json::json!({ "select": {}, "reason": "x" })).send().await.unwrap();
    assert_eq!(nothing.status(), 422, "a selection that names nothing takes nothing");
    let discard = pair.client.post(pair.admin_url("/dead-letters/discard"));
    let discard =
        discard.json(&serde_json::json!({ "select": { "all": true }, "reason": "a test" })).send().await.unwrap();
    assert_eq!(discard.json::<Discarded>().await.unwrap().ids.len(), 2);
    pair.settled(node, &host).await;
    assert_eq!(pair.dead_letters().await.matching, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_registers_late_is_paid_by_a_retry() {
    let (node, host, pair) = pair().await;
    assert_eq!(pair.post("shop", Notice::new("SOON", 100).xml("n")).await.1, SUCCESS);
    wait_until("it waits in a tier", DEADLINE, async || {
        pair.get::<wxpay_shared::queue::Depths>("/queue").await.retry == 1
    })
    .await;
    pair.register("shop", "SOON", 100, "u").await;
    wait_until("it is paid", DEADLINE, async || pair.order("shop", "SOON").await.state == OrderState::Paid).await;
    pair.settled(node, &host).await;
    assert_eq!(pair.dead_letters().await.matching, 0);
}

/// Finance must find money that came where none was due, and needs no queue for it.
#[tokio::test(flavor = "multi_thread")]
async fn money_that_was_not_due_is_on_its_order_as_well_as_in_a_dead_letter() {
    let (node, host, pair) = pair().await;
    pair.register("shop", "TWICE", 500, "u").await;
    pair.register("shop", "CLOSED", 700, "u").await;
    let closed = pair.client.post(pair.admin_url("/orders/shop/CLOSED/close")).send().await.unwrap();
    assert_eq!(closed.status(), 200);
    let again = Notice { transaction_id: "43TWICE".to_owned(), ..Notice::new("TWICE", 500) };
    for notice in [Notice::new("TWICE", 500), again, Notice::new("CLOSED", 700)] {
        assert_eq!(pair.post("shop", notice.xml("n")).await.1, SUCCESS);
    }
    pair.settled(node, &host).await;
    let by_reason = [("paid_after_close".to_owned(), 1), ("surplus_payment".to_owned(), 1)];
    assert_eq!(pair.dead_letters().await.by_reason, BTreeMap::from(by_reason));
    for (order, received, reason) in [("TWICE", 1_000, Reason::SurplusPayment), ("CLOSED", 700, Reason::PaidAfterClose)]
    {
        let show = |more: &[&str]| {
            let mut command = Command::new(binary("wxpayctl"));
            command.args(["orders", "show", "shop", order, "--admin", &pair.admin_url("")]).args(more);
            String::from_utf8(command.output().unwrap().stdout).unwrap()
        };
        let view: OrderView = serde_json::from_str(&show(&["--json"])).unwrap();
        let rejected = view.payments.iter().filter_map(|payment| Some(payment.rejection.as_ref()?.reason));
        assert_eq!((view.received.get(), rejected.collect::<Vec<_>>()), (received, vec![reason]));
        assert!(show(&[]).contains(reason.code()), "{}", show(&[]));
    }
}

/// The load goes on while the worker is killed without warning three times; ingress does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_payments_survive_three_killed_workers() {
    const ORDERS: usize = 1_000;
    const NOTIFICATIONS: usize = 10_000;
    let (node, host, mut pair) = pair().await;
    for order in 0..ORDERS {
        pair.register("shop", &format!("LOAD{order:04}"), 1_000, &format!("user{}", order % 10)).await;
    }
    let (client, url) = (pair.client.clone(), pair.notify_url("shop"));
    let load = tokio::spawn(async move {
        let posts = (0..NOTIFICATIONS).map(|index| {
            // Every order once, the rest at random by a fixed rule: the same run each time.
            let order = if index < ORDERS { index } else { (index * 7_919 + index / 13) % ORDERS };
            let body = Notice::new(&format!("LOAD{order:04}"), 1_000).xml(&format!("n{index}"));
            let (client, url) = (client.clone(), url.clone());
            async move { client.post(url).body(body).send().await.unwrap().text().await.unwrap() }
        });
        let replies = futures_util::stream::iter(posts).buffer_unordered(64).collect::<Vec<_>>().await;
        replies.iter().filter(|reply| *reply == SUCCESS).count()
    });
    use futures_util::StreamExt as _;
    for killed in 1..=3 {
        wait_until("some are paid meanwhile", DEADLINE, async || {
            let points = pair.client.get(pair.admin_url("/points/shop/user0")).send().await;
            let Ok(points) = points else { return false };
            points.json::<wxpay_shared::admin::PointsView>().await.is_ok_and(|user| user.balance >= killed * 200)
        })
        .await;
        pair.kill_worker();
        assert!(!load.is_finished(), "the load goes on");
        pair.start_worker();
    }
    assert_eq!(load.await.unwrap(), NOTIFICATIONS, "every notification got its SUCCESS");
    pair.ready().await;
    pair.settled(node, &host).await;
    assert_eq!(pair.dead_letters().await.matching, 0);
    for order in 0..ORDERS {
        let order = pair.order("shop", &format!("LOAD{order:04}")).await;
        let found = (order.state, order.payments.len(), order.ledger.len(), order.points);
        assert_eq!(found, (OrderState::Paid, 1, 1, 10), "{}", order.out_trade_no);
    }
    for user in 0..10 {
        let account: wxpay_shared::admin::PointsView = pair.get(&format!("/points/shop/user{user}")).await;
        assert_eq!((account.balance, account.ledger.len()), (1_000, 100));
        assert_eq!(account.ledger.iter().map(|entry| entry.points).sum::<i64>(), account.balance);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_registered_again_without_the_rate_that_it_was_given() {
    let (_, _, pair) = pair().await;
    let register = async |amount: i64, points: Option<&str>| {
        let order = json!({ "merchant": "shop", "out_trade_no": "RATE1", "amount": amount, "points": points });
        pair.client.post(pair.admin_url("/orders")).json(&order).send().await.unwrap().status().as_u16()
    };
    assert_eq!(register(100, Some("2/1")).await, 201);
    // The merchant's own rate is another one, as after a change of the configuration.
    assert_eq!(register(100, None).await, 200);
    assert_eq!(register(100, Some("3/1")).await, 409);
    assert_eq!(register(101, None).await, 409);
    assert_eq!(pair.order("shop", "RATE1").await.points_rate, "2/1".parse().unwrap());
}
