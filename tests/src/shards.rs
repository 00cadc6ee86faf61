//! The main queue in shards: who publishes where, who takes what, and a number of shards that changes under load.

use std::{collections::BTreeSet, process::Command, sync::Arc, time::Duration};

use futures_util::future::join_all;
use wxpay_shared::{
    ids::NotificationId,
    order::OrderState,
    queue::{
        Consumer, DeadLetters, Depths, Home, Publisher, QueueSettings, ShardDepth,
        rabbit::{RabbitConsumer, RabbitDeadLetters, RabbitPublisher},
    },
};

use crate::{
    harness::{
        notice::Notice,
        pair::{DEADLINE, Pair, binary, terminate},
        rabbitmq, wait_until,
    },
    queue_contract::{PATIENCE, ack, message, park, settings, take},
};

fn with(shards: u16, taken_shards: &[u16]) -> QueueSettings {
    QueueSettings { shards, taken_shards: taken_shards.to_vec(), prefetch: 64, ..settings() }
}

async fn publisher(url: &str, shards: u16) -> Arc<RabbitPublisher> {
    let publisher = RabbitPublisher::start(url.to_owned().into(), with(shards, &[]));
    wait_until("the publisher is ready", PATIENCE, || async { publisher.ready().is_ok() }).await;
    Arc::new(publisher)
}

async fn publish(publisher: &RabbitPublisher, numbers: std::ops::Range<usize>) {
    for number in numbers {
        publisher.publish(message(number)).await.unwrap();
    }
}

async fn depths(url: &str, shards: u16) -> Depths {
    RabbitDeadLetters::new(url.to_owned().into(), with(shards, &[])).depths().await.unwrap()
}

fn depth(queue: &str, waiting: u64, workers: u64) -> ShardDepth {
    ShardDepth { queue: queue.to_owned(), waiting, workers }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_spreads_and_two_workers_take_what_each_is_told_to() {
    let url = rabbitmq::fresh_url().await;
    publish(&*publisher(&url, 3).await, 0..30).await;
    let waiting = [
        depth("wxpay.notify", 0, 0),
        depth("wxpay.notify.0", 10, 0),
        depth("wxpay.notify.1", 10, 0),
        depth("wxpay.notify.2", 10, 0),
    ];
    wait_until("they are spread", PATIENCE, || async { depths(&url, 3).await.shards == waiting }).await;
    assert_eq!(depths(&url, 3).await.notify, 30);

    let one = RabbitConsumer::start(url.clone().into(), with(3, &[0, 2]));
    let theirs = take(&one, 20).await;
    let numbers: BTreeSet<_> = theirs.iter().map(|delivery| delivery.message.id.clone()).collect();
    assert_eq!(numbers, (0..30).filter(|number| number % 3 != 1).map(|number| message(number).id).collect());
    let seen = depths(&url, 3).await;
    assert_eq!(seen.shards[2], depth("wxpay.notify.1", 10, 0), "what nobody takes can be seen");
    let other = RabbitConsumer::start(url.clone().into(), with(3, &[1]));
    let rest = take(&other, 10).await;
    ack(&other, &rest).await;
    one.close().await;
    let taken = [("wxpay.notify", 1), ("wxpay.notify.0", 0), ("wxpay.notify.1", 1), ("wxpay.notify.2", 0)];
    wait_until("one worker is left", PATIENCE, || async {
        let shards = depths(&url, 3).await.shards;
        shards.iter().map(|shard| (shard.queue.as_str(), shard.workers)).eq(taken)
    })
    .await;
    // What comes back from a tier comes to whoever takes anything at all.
    let all = RabbitConsumer::start(url.clone().into(), with(3, &[]));
    let theirs = take(&all, 20).await;
    let back = theirs.len();
    for delivery in theirs {
        let same = delivery.message.clone();
        park(&all, delivery, same, Home::Retry(0)).await;
    }
    all.close().await;
    assert_eq!(take(&other, back).await.len(), 20);
}

/// Publishers of the old and of the new setting work side by side, as in a rolling change; each worker is replaced by one
/// of the new setting while it holds messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_number_of_shards_loses_nothing_and_leaves_nothing() {
    const EACH: usize = 400;
    let url = rabbitmq::fresh_url().await;
    let mut published = 0;
    let mut seen: BTreeSet<NotificationId> = BTreeSet::new();
    let mut old = publisher(&url, 1).await;
    for shards in [4, 2, 1] {
        let new = publisher(&url, shards).await;
        let load = [&old, &new].map(|publisher| {
            let (publisher, from) = (Arc::clone(publisher), published);
            published += EACH;
            tokio::spawn(async move { publish(&publisher, from..from + EACH).await })
        });
        let consumer = RabbitConsumer::start(url.clone().into(), with(shards, &[]));
        let mut parked = false;
        // So that half of them wait, or are held, when the setting changes again.
        while seen.len() + EACH < published {
            let mut deliveries = take(&consumer, 1).await;
            if !std::mem::replace(&mut parked, true) {
                let same = deliveries[0].message.clone();
                park(&consumer, deliveries.remove(0), same, Home::Retry(1)).await;
            }
            seen.extend(deliveries.iter().map(|delivery| delivery.message.id.clone()));
            ack(&consumer, &deliveries).await;
        }
        take(&consumer, 1).await;
        join_all(load).await.into_iter().for_each(|publishing| publishing.unwrap());
        old = new;
    }
    let consumer = RabbitConsumer::start(url.clone().into(), with(1, &[]));
    while seen.len() < published {
        let deliveries = take(&consumer, 1).await;
        seen.extend(deliveries.iter().map(|delivery| delivery.message.id.clone()));
        ack(&consumer, &deliveries).await;
    }
    wait_until("nothing is left", PATIENCE, || async {
        let Depths { notify, retry, dead, shards, .. } = depths(&url, 1).await;
        (notify, retry, dead, shards.len()) == (0, 0, 0, 5)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_worker_finds_shards_that_are_made_later() {
    let url = rabbitmq::fresh_url().await;
    publish(&*publisher(&url, 1).await, 0..1).await;
    let consumer = RabbitConsumer::start(url.clone().into(), with(1, &[]));
    let held = take(&consumer, 1).await;
    publish(&*publisher(&url, 2).await, 1..5).await;
    let mut later = Vec::new();
    // It looks twice a minute.
    while later.len() < 4 {
        let received = tokio::time::timeout(Duration::from_secs(60), consumer.receive(4)).await;
        later.extend(received.expect("it finds them").unwrap());
    }
    // The earlier delivery is still good.
    ack(&consumer, &held).await;
    ack(&consumer, &later).await;
    consumer.close().await;
    assert_eq!(depths(&url, 2).await.notify, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_no_worker_takes_is_shown_and_keeps_what_it_has() {
    let (node, host) = rabbitmq::fresh_host().await;
    let mut pair = Pair::prepare(&node.url(&host));
    pair.change("[queue]\n", "[queue]\nshards = 3\n");
    pair.change("[worker]\n", "[worker]\nshards = [0, 1]\n");
    pair.start_ingress();
    pair.start_worker();
    pair.ready().await;
    for number in 0..6 {
        let order = format!("SHARD{number}");
        pair.register("shop", &order, 100, "u").await;
        assert_eq!(pair.post("shop", Notice::new(&order, 100).xml("n")).await.0, 200);
    }
    let admin = pair.admin_url("");
    let queue = || {
        let output = Command::new(binary("wxpayctl")).args(["queue", "--admin", &admin]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    wait_until("two are left", DEADLINE, async || {
        let depths: Depths = pair.get("/queue").await;
        depths.notify == 2 && depths.shards.contains(&depth("wxpay.notify.2", 2, 0))
    })
    .await;
    assert!(queue().contains("of these in wxpay.notify.2; NO worker takes them"), "{}", queue());
    assert!(queue().contains("of these in wxpay.notify.0; workers: 1"), "{}", queue());

    terminate(&mut pair.take_worker()).await;
    pair.change("shards = [0, 1]\n", "shards = []\n");
    pair.start_worker();
    pair.worker_ready().await;
    pair.settled(node, &host).await;
    for number in 0..6 {
        assert_eq!(pair.order("shop", &format!("SHARD{number}")).await.state, OrderState::Paid);
    }
}
