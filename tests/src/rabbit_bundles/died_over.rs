//! What other workers died over, given to one that lives.

use std::ops::Range;

use lapin::{
    Channel,
    message::Delivery,
    options::{BasicGetOptions, BasicNackOptions},
};
use tokio::time::timeout;
use wxpay_shared::queue::{self, Consumer as _, rabbit::RabbitConsumer, topology};

use super::{Broker, numbered};
use crate::{
    queue_contract::{SHORT, ack, messages, settings, take},
    rabbit_faults::stranger,
};

/// A message over which workers died so often, in the hands of the last one that did.
pub(crate) async fn died_over(stranger: &Channel, times: u32) -> Delivery {
    for _ in 0..times {
        go_back(stranger, &get(stranger).await).await;
    }
    get(stranger).await
}

async fn get(stranger: &Channel) -> Delivery {
    let got = stranger.basic_get(topology::NOTIFY.into(), BasicGetOptions::default()).await.unwrap();
    got.expect("the queue is not empty").delivery
}

pub(crate) async fn go_back(stranger: &Channel, delivery: &Delivery) {
    let back = BasicNackOptions { multiple: false, requeue: true };
    stranger.basic_nack(delivery.delivery_tag, back).await.unwrap();
}

/// A worker with one message in hand is given these, over which others died so often.
async fn beside_one_in_hand(numbers: Range<usize>, times: u32) -> (Broker, RabbitConsumer, Vec<queue::Delivery>) {
    let broker = Broker::open().await;
    let stranger = stranger(&broker.url).await;
    broker.publish_at_once(numbers).await;
    let held = died_over(&stranger, times).await;
    let consumer = broker.consumer();
    broker.publish_at_once(9..10).await;
    let in_hand = take(&consumer, 1).await;
    go_back(&stranger, &held).await;
    (broker, consumer, in_hand)
}

#[tokio::test]
async fn a_bundle_over_which_another_worker_died_often_is_taken_apart_as_well() {
    let (broker, consumer, in_hand) = beside_one_in_hand(0..3, topology::RETURNED_OFTEN).await;
    let taken = take(&consumer, 3).await;
    assert_eq!(messages(&taken), numbered(0..3));
    assert!(taken.iter().all(|delivery| delivery.returned < topology::RETURNED_OFTEN), "each has its own count");
    ack(&consumer, &in_hand).await;
    ack(&consumer, &taken).await;
    broker.wait_for_messages(0).await;
}

#[tokio::test]
async fn a_message_over_which_another_worker_died_often_has_no_neighbours() {
    let (broker, consumer, in_hand) = beside_one_in_hand(0..1, topology::RETURNED_OFTEN).await;
    // What must not happen has no event to wait for.
    assert!(timeout(SHORT, consumer.receive(1)).await.is_err(), "not beside what is in hand");
    ack(&consumer, &in_hand).await;
    let alone = take(&consumer, 1).await;
    assert_eq!(messages(&alone), numbered(0..1));
    broker.publish_at_once(2..3).await;
    assert!(timeout(SHORT, consumer.receive(1)).await.is_err(), "nothing beside it");
    ack(&consumer, &alone).await;
    assert_eq!(messages(&take(&consumer, 1).await), numbered(2..3));
}

/// Behind it in the same burst came others, and the answers to many go to the broker as one.
#[tokio::test]
async fn a_message_that_is_put_aside_is_not_answered_with_those_behind_it() {
    let broker = Broker::open().await;
    let stranger = stranger(&broker.url).await;
    broker.publish_at_once(0..1).await;
    let deadly = died_over(&stranger, topology::RETURNED_OFTEN).await;
    let consumer = broker.consumer();
    let full = usize::from(settings().prefetch);
    for number in 1..=full {
        broker.publish_at_once(number..number + 1).await;
    }
    let in_hand = take(&consumer, full).await;
    go_back(&stranger, &deadly).await;
    for number in full + 1..full + 4 {
        broker.publish_at_once(number..number + 1).await;
    }
    ack(&consumer, &in_hand).await;
    let behind = take(&consumer, 3).await;
    assert_eq!(messages(&behind), numbered(full + 1..full + 4));
    ack(&consumer, &behind).await;
    assert_eq!(messages(&take(&consumer, 1).await), numbered(0..1));
}

/// Among many workers it would go from one to the next until the broker gives it up.
#[tokio::test]
async fn what_came_back_very_often_goes_back_no_more() {
    let (_broker, consumer, in_hand) = beside_one_in_hand(0..1, 2 * topology::RETURNED_OFTEN - 1).await;
    assert_eq!(messages(&take(&consumer, 1).await), numbered(0..1));
    ack(&consumer, &in_hand).await;
}
