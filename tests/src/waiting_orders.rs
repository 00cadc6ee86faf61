//! A payment whose order is registered late is applied within seconds, however long its retry tier is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, future::join_all, stream::iter};
use tokio::time::timeout;
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    envelope::{Api, Envelope, Message, SealKeys},
    ids::{MerchantName, NotificationId},
    order::OrderState,
    queue::{
        Consumer as _, Depths, Publisher as _, QueueSettings,
        rabbit::{RabbitConsumer, RabbitPublisher},
        topology,
    },
    reason::Reason,
};

use crate::{
    harness::{
        database::{Kind, fresh_schema},
        notice::Notice,
        pair::{API_V3_KEY, DEADLINE, Pair, SEAL_KEY},
        rabbitmq, wait_until,
        wechat::{public_key, transaction, v3},
    },
    protocol::post_v3,
    queue_contract::{ack, message, settings, take},
    sql_workers::with_store,
};

/// A few seconds, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

async fn paid(pair: &Pair, order: &str) {
    wait_until(&format!("{order} is paid"), SOON, async || pair.order("shop", order).await.state == OrderState::Paid)
        .await;
}

async fn waiting(pair: &Pair) -> u64 {
    pair.get::<Depths>("/queue").await.retry
}

/// Sends notifications of payments for orders that nobody registered, until all wait in a tier.
async fn send(pair: &Pair, orders: &[String]) {
    let posts = iter(orders).map(|order| pair.post("shop", Notice::new(order, 100).xml("n")));
    assert!(posts.buffer_unordered(32).all(async |reply| reply.0 == 200 && reply.1.contains("SUCCESS")).await);
    let count = u64::try_from(orders.len()).unwrap();
    wait_until("all wait for their orders", DEADLINE * 2, async || waiting(pair).await == count).await;
}

async fn what_waits_for_an_hour_comes_at_once(pair: &Pair) {
    send(pair, &["LATE", "WRONG", "NEVER"].map(str::to_owned)).await;
    let signed = v3(&public_key(), API_V3_KEY, "TRANSACTION.SUCCESS", 1, &transaction("SEALED", 100));
    assert_eq!(post_v3(pair, "shop", &signed).await.0, 204);
    wait_until("that one waits too", DEADLINE, async || waiting(pair).await == 4).await;

    pair.register("shop", "LATE", 100, "u").await;
    paid(pair, "LATE").await;
    pair.register("shop", "SEALED", 100, "u").await;
    paid(pair, "SEALED").await;
    pair.register("shop", "WRONG", 99, "u").await;
    wait_until("the wrong amount is told", SOON, async || pair.dead_letters().await.matching == 1).await;
    let letter = pair.dead_letters().await.dead_letters.remove(0);
    assert_eq!((letter.reason, letter.named.out_trade_no.as_deref()), (Reason::AmountMismatch, Some("WRONG")));
    wait_until("the other one waits on", SOON, async || waiting(pair).await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_order_is_paid_at_once_on_rabbitmq() {
    let mut pair = Pair::prepare(&rabbitmq::fresh_url().await);
    pair.set_retries("\"1h\"", 4);
    pair.start_ingress();
    pair.start_worker();
    pair.ready().await;
    what_waits_for_an_hour_comes_at_once(&pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_order_is_paid_at_once_on_the_embedded_queue() {
    let mut pair = Pair::prepare("embedded");
    pair.set_retries("\"1h\"", 4);
    pair.start_serve();
    pair.ready().await;
    what_waits_for_an_hour_comes_at_once(&pair).await;
}

/// Whichever worker parked a notification, and whichever hears of the order.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_order_is_paid_at_once_with_two_workers() {
    let url = rabbitmq::fresh_url().await;
    let store = fresh_schema(Kind::Postgres).await;
    let [mut one, mut other] = [(); 2].map(|()| Pair::prepare(&url));
    for pair in [&mut one, &mut other] {
        with_store(pair, &store);
        pair.set_retries("\"1h\"", 4);
        pair.start_worker();
    }
    one.start_ingress();
    one.ready().await;
    other.worker_ready().await;
    let orders: Vec<_> = (0..40).map(|number| format!("TWO{number}")).collect();
    send(&one, &orders).await;
    let registering = orders.iter().zip([&one, &other].into_iter().cycle());
    join_all(registering.map(|(order, pair)| pair.register("shop", order, 100, "u"))).await;
    join_all(orders.iter().map(|order| paid(&other, order))).await;
    assert_eq!((waiting(&one).await, one.dead_letters().await.matching), (0, 0));
}

/// Two thousand others are looked through each time, and stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_order_is_found_among_two_thousand_others() {
    let url = rabbitmq::fresh_url().await;
    let mut pair = Pair::prepare(&url);
    pair.set_retries("\"1h\"", 4);
    pair.start_worker();
    pair.worker_ready().await;
    let sealed = |number: usize| {
        let received_at = SystemClock.now();
        let (id, merchant) = (NotificationId::new(received_at), MerchantName::parse("shop").unwrap());
        let body = Notice::new(&format!("MANY{number}"), 100).xml("n").into();
        Envelope { id, merchant, api: Api::V2, received_at, body }.seal(&SealKeys::new(SEAL_KEY.as_bytes(), None))
    };
    park_in(&url, Duration::from_secs(3_600), (0..2_005).map(sealed)).await;
    for number in [0, 500, 999, 1_500, 2_004] {
        pair.register("shop", &format!("MANY{number}"), 100, "u").await;
        paid(&pair, &format!("MANY{number}")).await;
    }
    wait_until("the others wait on", SOON, async || waiting(&pair).await == 2_000).await;
}

/// Looking takes every message out of its tier. They come back at their time all the same, and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_that_are_looked_through_keep_their_time() {
    const TIER: Duration = Duration::from_secs(30);
    let url = rabbitmq::fresh_url().await;
    let settings = QueueSettings { retry_delays: vec![TIER], prefetch: 500, ..settings() };
    let consumer = RabbitConsumer::start(url.clone().into(), settings);
    wait_until("it is connected", DEADLINE, async || consumer.connected()).await;
    let started = Instant::now();
    park_in(&url, TIER, (0..2_000).map(message)).await;
    let parking = started.elapsed();
    for number in 0..3 {
        let wanted = message(number).id;
        assert_eq!(consumer.release(Arc::new(move |message| message.id == wanted)).await.unwrap(), 1);
        ack(&consumer, &take(&consumer, 1).await).await;
    }
    let mut back = 3;
    while back < 2_000 {
        let received = timeout(TIER + DEADLINE, consumer.receive(500)).await.expect("they come back").unwrap();
        assert!(started.elapsed() >= TIER);
        back += received.len();
        ack(&consumer, &received).await;
    }
    assert!(started.elapsed() < TIER + parking + DEADLINE, "{:?}", started.elapsed());
}

/// Publishes messages right into a tier.
async fn park_in(url: &str, tier: Duration, messages: impl Iterator<Item = Message>) {
    let settings = QueueSettings { retry_delays: vec![tier], in_flight: 500, ..settings() };
    let publisher = RabbitPublisher::start(url.to_owned().into(), settings);
    wait_until("the publisher is ready", DEADLINE, async || publisher.ready().is_ok()).await;
    let key = topology::retry(tier);
    let publishes = iter(messages).map(|message| publisher.publish_to(&key, message));
    assert!(publishes.buffered(200).all(async |published| published.is_ok()).await);
    publisher.close().await;
}
