//! Every notification of the vector set over HTTP, through the real pair on a real RabbitMQ: the reply and the end state
//! must be what the manifest says.

use std::collections::BTreeSet;

use wxpay_shared::{admin::OrderView, order::OrderState};

use crate::{
    harness::{pair::Pair, rabbitmq},
    manifest::{Vector, vectors},
};

const SUCCESS: &str =
    "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>";

/// The vectors that ingress must accept, in rounds in which no transaction occurs twice but for a replay: several of
/// them are other spellings of one notice, and each spelling has to take effect by itself.
fn rounds(vectors: Vec<Vector>) -> Vec<Vec<Vector>> {
    let mut rounds: Vec<(BTreeSet<String>, Vec<Vector>)> = Vec::new();
    for vector in vectors {
        let transaction = vector.field("transaction_id").unwrap_or_default();
        let replay = vector.worker.as_deref() == Some("duplicate");
        let free = rounds.iter().position(|(known, _)| known.contains(&transaction) == replay);
        let index = free.unwrap_or_else(|| {
            rounds.push(Default::default());
            rounds.len() - 1
        });
        rounds[index].0.insert(transaction);
        rounds[index].1.push(vector);
    }
    rounds.into_iter().map(|(_, vectors)| vectors).collect()
}

/// Registers the orders that the vectors name, the first one's amount where several name the same.
async fn register(pair: &Pair, vectors: &[Vector]) {
    let mut registered = BTreeSet::new();
    for vector in vectors {
        if let Some(out_trade_no) = vector.field("out_trade_no").filter(|text| text.len() <= 32)
            && registered.insert((vector.merchant(), out_trade_no.clone()))
        {
            pair.register(vector.merchant(), &out_trade_no, vector.order_amount(), "user-1").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_payment_vector_ends_as_the_manifest_says() {
    let accepted: Vec<_> = vectors("v2pay").into_iter().filter(|vector| vector.ingress == "accept").collect();
    assert!(accepted.len() >= 20, "the vectors are there");
    for round in rounds(accepted) {
        let (node, host) = rabbitmq::fresh_host().await;
        let pair = Pair::start(&node.url(&host)).await;
        register(&pair, &round).await;
        for vector in &round {
            assert_eq!(pair.post(vector.merchant(), vector.bytes()).await, (200, SUCCESS.to_owned()), "{}", vector.id);
        }
        pair.settled(node, &host).await;
        let dead = pair.dead_letters().await.dead_letters;
        for vector in &round {
            let out_trade_no = vector.field("out_trade_no").expect("an accepted notice names its order");
            let order: OrderView = pair.order(vector.merchant(), &out_trade_no).await;
            let its_dead =
                dead.iter().filter(|letter| letter.named.out_trade_no.as_ref() == Some(&out_trade_no)).count();
            match vector.worker.as_deref() {
                Some("apply" | "duplicate") => {
                    assert_eq!(
                        (order.state, order.payments.len(), its_dead),
                        (OrderState::Paid, 1, 0),
                        "{}",
                        vector.id
                    );
                    assert_eq!(order.received.get(), vector.order_amount(), "{}", vector.id);
                    assert_eq!(order.points, vector.order_amount() / 100, "{}", vector.id);
                    let transaction = vector.field("transaction_id");
                    assert_eq!(
                        Some(order.payments[0].transaction_id.as_str()),
                        transaction.as_deref(),
                        "{}",
                        vector.id
                    );
                }
                Some("ignore") => assert_eq!((order.state, its_dead), (OrderState::Unpaid, 0), "{}", vector.id),
                Some("dead_letter") => assert_eq!((order.state, its_dead), (OrderState::Unpaid, 1), "{}", vector.id),
                other => panic!("{}: no check for {other:?}", vector.id),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_refused_or_unusable_payment_vector_ever_changes_an_order() {
    let others: Vec<_> = vectors("v2pay").into_iter().filter(|vector| vector.ingress != "accept").collect();
    assert!(others.len() >= 40, "the vectors are there");
    let (node, host) = rabbitmq::fresh_host().await;
    let pair = Pair::start(&node.url(&host)).await;
    register(&pair, &others).await;
    let mut accepted = 0;
    for vector in &others {
        let (status, reply) = pair.post(vector.merchant(), vector.bytes()).await;
        // v2 looks at the XML alone, so only what was not read to its end has another status.
        let expected = if vector.reason == "body_too_large" { 413 } else { 200 };
        assert_eq!(status, expected, "{}", vector.id);
        if vector.ingress == "either" && reply == SUCCESS {
            accepted += 1;
        } else {
            assert!(
                reply.starts_with("<xml><return_code><![CDATA[FAIL]]></return_code><return_msg><![CDATA["),
                "{}: {reply}",
                vector.id
            );
        }
    }
    pair.settled(node, &host).await;
    assert_eq!(pair.dead_letters().await.matching, accepted, "what was accepted is a dead letter, and nothing else is");
    for vector in &others {
        if let Some(out_trade_no) = vector.field("out_trade_no").filter(|text| text.len() <= 32) {
            let order = pair.order(vector.merchant(), &out_trade_no).await;
            assert_eq!((order.state, order.points), (OrderState::Unpaid, 0), "{}", vector.id);
        }
    }
}
