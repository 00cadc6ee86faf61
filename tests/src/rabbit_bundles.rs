//! Several notifications in one AMQP message: each is handled by itself, whatever becomes of those beside it.
//!
//! With one thread, for then everything that is published at once is there before any of it is sent: what comes out as one
//! message is certain.

use std::ops::Range;

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::{
    BasicProperties, Channel,
    options::{BasicGetOptions, BasicPublishOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;
use wxpay_shared::{
    envelope::Message,
    queue::{
        Consumer as _, DeadLetters as _, Delivery, Home, PublishError, Publisher as _, QueueSettings, Settle as _,
        rabbit::{RabbitConsumer, RabbitDeadLetters, RabbitPublisher},
        topology,
    },
    reason::Reason,
};

use self::died_over::{died_over, go_back};
use crate::{
    harness::{rabbitmq, wait_until},
    queue_contract::{PATIENCE, SHORT, ack, failed, message, messages, park, read, rejected, settings, take},
    rabbit_faults::{ready, stranger},
};

pub(crate) mod died_over;
mod refused;

/// Notifications in a full bundle.
const FULL: usize = 16;

/// A virtual host of its own.
struct Broker {
    url: String,
    publisher: RabbitPublisher,
}

impl Broker {
    async fn open() -> Self {
        Self::at(rabbitmq::fresh_url().await).await
    }

    async fn at(url: String) -> Self {
        let publisher = RabbitPublisher::start(url.clone().into(), QueueSettings { in_flight: 512, ..settings() });
        ready(&publisher).await;
        Self { url, publisher }
    }

    async fn try_publish_at_once(&self, messages: impl Iterator<Item = Message>) -> Vec<Result<(), PublishError>> {
        join_all(messages.map(|message| self.publisher.publish(message))).await
    }

    async fn publish_at_once(&self, numbers: Range<usize>) {
        self.try_publish_at_once(numbers.map(message)).await.into_iter().for_each(Result::unwrap);
    }

    fn consumer(&self) -> RabbitConsumer {
        RabbitConsumer::start(self.url.clone().into(), settings())
    }

    fn letters(&self) -> RabbitDeadLetters {
        RabbitDeadLetters::new(self.url.clone().into(), settings())
    }

    /// Waits until so many AMQP messages wait for a worker.
    async fn wait_for_messages(&self, count: u64) {
        let letters = self.letters();
        wait_until("so many messages", PATIENCE, || async { letters.depths().await.unwrap().notify == count }).await;
    }
}

fn numbered(numbers: Range<usize>) -> Vec<Message> {
    numbers.map(message).collect()
}

#[tokio::test]
async fn what_is_published_at_once_shares_messages() {
    let broker = Broker::open().await;
    broker.publish_at_once(0..FULL * 2 + 8).await;
    broker.wait_for_messages(3).await;
    let taken = take(&broker.consumer(), FULL * 2 + 8).await;
    let taken: Vec<_> = taken.into_iter().map(|delivery| delivery.message).collect();
    assert_eq!(taken, numbered(0..FULL * 2 + 8));
}

#[tokio::test]
async fn a_bundle_is_no_larger_than_the_largest_notification() {
    let broker = Broker::open().await;
    let large = |number| Message { body: Bytes::from(vec![7; 30_000]), ..message(number) };
    broker.try_publish_at_once((0..5).map(large)).await.into_iter().for_each(Result::unwrap);
    broker.wait_for_messages(3).await;
    assert_eq!(messages(&take(&broker.consumer(), 5).await), (0..5).map(large).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_bundle_without_a_queue_is_refused_to_everyone_in_it() {
    let broker = Broker::open().await;
    let stranger = stranger(&broker.url).await;
    stranger.queue_delete(topology::NOTIFY.into(), QueueDeleteOptions::default()).await.unwrap();
    let answers = broker.try_publish_at_once((0..4).map(message)).await;
    assert_eq!(answers, [Err(PublishError::Unroutable); 4]);
}

#[tokio::test]
async fn a_bundle_is_acked_with_the_last_of_its_notifications() {
    let broker = Broker::open().await;
    broker.publish_at_once(0..3).await;
    let consumer = broker.consumer();
    let taken = take(&consumer, 3).await;
    // The same one twice is one.
    ack(&consumer, &taken[..2]).await;
    ack(&consumer, &taken[..2]).await;
    drop(consumer);
    let consumer = broker.consumer();
    let again = take(&consumer, 3).await;
    assert_eq!(messages(&again), numbered(0..3));
    assert!(again.iter().all(|delivery| delivery.returned > 0));
    ack(&consumer, &again[1..]).await;
    ack(&consumer, &again[..1]).await;
    consumer.close().await;
    broker.wait_for_messages(0).await;
}

#[tokio::test]
async fn the_notifications_of_a_bundle_end_apart() {
    let broker = Broker::open().await;
    broker.publish_at_once(0..5).await;
    let consumer = broker.consumer();
    let mut taken = take(&consumer, 5).await.into_iter();
    let mut next = || taken.next().unwrap();
    let (dead, later, back, done, last) = (next(), next(), next(), next(), next());
    park(&consumer, dead, rejected(&message(0)), Home::Dead).await;
    park(&consumer, later, failed(&message(1)), Home::Retry(0)).await;
    consumer.give_back(&[back]).await.unwrap();
    ack(&consumer, &[done]).await;
    let back = take(&consumer, 2).await;
    assert_eq!(messages(&back), [failed(&message(1)), message(2)]);
    ack(&consumer, &back).await;
    ack(&consumer, &[last]).await;
    consumer.close().await;
    broker.wait_for_messages(0).await;
    let mut desk = broker.letters().open().await.unwrap();
    assert_eq!(messages(&read(&mut *desk).await), [rejected(&message(0))]);
    desk.close().await;
}

#[tokio::test]
async fn a_bundle_that_goes_back_as_a_whole_stays_one() {
    let broker = Broker::open().await;
    broker.publish_at_once(0..3).await;
    let consumer = broker.consumer();
    let taken = take(&consumer, 3).await;
    consumer.give_back(&taken).await.unwrap();
    let again = take(&consumer, 3).await;
    assert_eq!(messages(&again), numbered(0..3));
    assert!(again[0].returned > taken[0].returned);
    drop(consumer);
    broker.wait_for_messages(1).await;
}

#[tokio::test]
async fn what_nobody_received_of_a_bundle_goes_back_alone() {
    let broker = Broker::open().await;
    broker.publish_at_once(0..4).await;
    let (one, other) = (broker.consumer(), broker.consumer());
    let mine = take(&one, 1).await;
    one.pause().await;
    let theirs = take(&other, 3).await;
    assert_eq!(messages(&theirs), numbered(1..4));
    // What was received before the pause is still to be answered.
    let mine = mine.into_iter().next().unwrap();
    park(&one, mine, failed(&message(0)), Home::Retry(0)).await;
    ack(&other, &theirs).await;
    let later = take(&other, 1).await;
    assert_eq!(messages(&later), [failed(&message(0))]);
    ack(&other, &later).await;
    one.close().await;
    other.close().await;
    broker.wait_for_messages(0).await;
}

#[tokio::test]
async fn the_prefetch_counts_messages() {
    let broker = Broker::open().await;
    let out = usize::from(settings().prefetch) * FULL;
    broker.publish_at_once(0..out + FULL).await;
    let consumer = broker.consumer();
    let taken = take(&consumer, out - 2).await;
    timeout(PATIENCE, consumer.filled(3)).await.expect("no more can come");
    let rest = take(&consumer, 2).await;
    // What must not happen has no event to wait for.
    ack(&consumer, &taken[..FULL - 1]).await;
    assert!(timeout(SHORT, consumer.receive(1)).await.is_err());
    ack(&consumer, &taken[FULL - 1..]).await;
    ack(&consumer, &rest).await;
    assert_eq!(take(&consumer, FULL).await.len(), FULL);
}

/// So the notification over which workers die is alone from then on.
#[tokio::test]
async fn a_bundle_that_came_back_often_is_taken_apart() {
    let broker = Broker::open().await;
    broker.publish_at_once(0..3).await;
    broker.wait_for_messages(1).await;
    let mut deaths = 0;
    loop {
        let consumer = broker.consumer();
        let taken = take(&consumer, 3).await;
        assert_eq!(messages(&taken), numbered(0..3));
        drop(consumer);
        deaths += 1;
        if taken.iter().any(|delivery| delivery.returned == 0) && deaths > 1 {
            break;
        }
        assert!(deaths < topology::RETURNED_OFTEN, "it comes back as one for ever");
    }
    broker.wait_for_messages(3).await;
}

#[tokio::test]
async fn a_bundle_that_the_broker_gave_up_is_letters_of_its_notifications() {
    let broker = Broker::open().await;
    broker.publish_at_once(0..3).await;
    let stranger = stranger(&broker.url).await;
    let times = u32::try_from(topology::DELIVERY_LIMIT).unwrap();
    go_back(&stranger, &died_over(&stranger, times).await).await;
    let letters = broker.letters();
    wait_until("the broker gives up", PATIENCE, || async { letters.depths().await.unwrap().dead == 1 }).await;
    let mut desk = letters.open().await.unwrap();
    let found = read(&mut *desk).await;
    let plain = |delivery: &Delivery| Message { log: message(0).log, ..delivery.message.clone() };
    assert_eq!(found.iter().map(plain).collect::<Vec<_>>(), numbered(0..3));
    for delivery in &found {
        let rejection = delivery.message.log.rejection.as_ref().unwrap();
        assert_eq!(rejection.reason, Reason::DeliveryLimit);
    }
    // One of them is discarded, and the others stay.
    ack(&*desk, &found[1..2]).await;
    desk.close().await;
    let mut desk = letters.open().await.unwrap();
    let left = read(&mut *desk).await;
    assert_eq!(left.iter().map(plain).collect::<Vec<_>>(), [message(0), message(2)]);
    desk.close().await;
}

/// Makes a dead letter of the bundle that waits, as a worker from before there were bundles does: it finds no seal.
async fn move_to_dead(stranger: &Channel) {
    let bundle = stranger.basic_get(topology::NOTIFY.into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
    let mut headers = bundle.properties.headers().clone().unwrap();
    headers.insert("wxpay-attempts".into(), AMQPValue::LongLongInt(1));
    headers.insert("wxpay-reason".into(), AMQPValue::LongString("unsealed".into()));
    let properties = BasicProperties::default().with_headers(headers);
    let options = BasicPublishOptions::default();
    stranger
        .basic_publish(topology::EXCHANGE.into(), topology::DEAD.into(), options, &bundle.data, properties)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_bundle_that_a_worker_did_not_know_is_letters_of_its_notifications() {
    let broker = Broker::open().await;
    broker.publish_at_once(0..3).await;
    let stranger = stranger(&broker.url).await;
    move_to_dead(&stranger).await;
    let letters = broker.letters();
    wait_until("it is a dead letter", PATIENCE, || async { letters.depths().await.unwrap().dead == 1 }).await;
    let mut desk = letters.open().await.unwrap();
    let found = read(&mut *desk).await;
    let told: Vec<_> = found.iter().map(|letter| letter.message.log.rejection.as_ref().unwrap().reason).collect();
    assert_eq!(told, [Reason::Unsealed; 3]);
    assert_eq!(found[2].message.body, message(2).body);
    desk.close().await;
}

#[tokio::test]
async fn what_only_looks_like_a_bundle_is_one_message() {
    let broker = Broker::open().await;
    let stranger = stranger(&broker.url).await;
    let bodies: [&[u8]; 3] = [b"", b"\0\0\0\x05hello", &[0xff; 40]];
    for (count, body) in [0, 2, 1_000].into_iter().zip(bodies) {
        let mut headers = FieldTable::default();
        headers.insert("wxpay-bundle".into(), AMQPValue::LongLongInt(count));
        let properties = BasicProperties::default().with_headers(headers);
        let (exchange, options) = (topology::EXCHANGE.into(), BasicPublishOptions::default());
        stranger.basic_publish(exchange, topology::NOTIFY.into(), options, body, properties).await.unwrap();
    }
    let taken = take(&broker.consumer(), 3).await;
    assert_eq!(taken.iter().map(|delivery| &delivery.message.body[..]).collect::<Vec<_>>(), bodies);
}
