//! What RabbitMQ can do to its clients: away at the start, killed, blocked, silent, cut off, changed under them, and full
//! of what others published.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;
use wxpay_shared::{
    envelope::{Log, Message},
    queue::{
        Consumer, DeadLetters, Home, PUBLISH_BUDGET, PublishError, Publisher, QueueError, QueueSettings, Settle,
        rabbit::{RabbitConsumer, RabbitDeadLetters, RabbitPublisher},
        topology,
    },
    reason::Reason,
};

use crate::{
    harness::{
        rabbitmq::{self, Node},
        wait_until,
    },
    queue_contract::{PATIENCE, ack, message, read, settings, take},
    rabbit_bundles::died_over::{died_over, go_back},
};

pub(crate) mod silence;
mod strangers;

/// A little more than the budget, for a busy machine.
const IN_TIME: Duration = PUBLISH_BUDGET.saturating_add(Duration::from_secs(1));
/// How quick "at once" is.
const AT_ONCE: Duration = Duration::from_millis(500);

pub(crate) async fn ready(publisher: &RabbitPublisher) {
    wait_until("the publisher is ready", PATIENCE * 2, || async { publisher.ready().is_ok() }).await;
}

async fn publisher(url: &str) -> RabbitPublisher {
    let publisher = RabbitPublisher::start(url.to_owned().into(), settings());
    ready(&publisher).await;
    publisher
}

fn consumer(url: &str) -> RabbitConsumer {
    RabbitConsumer::start(url.to_owned().into(), settings())
}

/// A client that knows nothing of us. The connection lives as long as the channel.
pub(crate) async fn stranger(url: &str) -> Channel {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    connection.create_channel().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_is_there_before_its_broker_and_finds_it_later() {
    let mut node = Node::prepare();
    let url = node.url("%2f");
    let publisher = RabbitPublisher::start(url.clone().into(), settings());
    let consumer = consumer(&url);
    let started = Instant::now();
    assert_eq!(publisher.ready(), Err(PublishError::NotConnected));
    assert_eq!(publisher.publish(message(0)).await, Err(PublishError::NotConnected));
    assert!(started.elapsed() < AT_ONCE && !consumer.connected());
    node.run();
    node.ready().await;
    ready(&publisher).await;
    publisher.publish(message(1)).await.unwrap();
    assert_eq!(take(&consumer, 1).await[0].message, message(1));
    assert!(consumer.connected());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_confirmed_message_is_missing_after_the_broker_was_killed() {
    let mut node = Node::start();
    node.ready().await;
    let url = node.url("%2f");
    let publisher = Arc::new(publisher(&url).await);
    let publishing = Arc::clone(&publisher);
    // Publishes until the first error, from eight tasks with numbers of their own.
    let tasks = (0..8_usize).map(|lane| {
        let publisher = Arc::clone(&publishing);
        tokio::spawn(async move {
            let mut confirmed = Vec::new();
            for number in (lane * 1_000_000).. {
                let started = Instant::now();
                let answer = publisher.publish(message(number)).await;
                assert!(started.elapsed() < IN_TIME, "{answer:?} took {:?}", started.elapsed());
                if answer.is_err() {
                    break;
                }
                confirmed.push(message(number).id);
            }
            confirmed
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let letters = RabbitDeadLetters::new(url.clone().into(), settings());
    wait_until("some hundred messages", PATIENCE, || async { letters.depths().await.unwrap().notify > 300 }).await;
    node.kill();
    let mut missing: BTreeSet<_> = join_all(tasks).await.into_iter().flat_map(Result::unwrap).collect();
    assert!(missing.len() > 100);
    node.run();
    node.ready().await;
    ready(&publisher).await;
    publisher.publish(message(9_000_000)).await.unwrap();
    let consumer = consumer(&url);
    while !missing.is_empty() {
        let deliveries = take(&consumer, 1).await;
        deliveries.iter().for_each(|delivery| {
            missing.remove(&delivery.message.id);
        });
        ack(&consumer, &deliveries).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_refuses_publishes_in_time_and_passes() {
    let node = Node::start();
    node.ready().await;
    let url = node.url("%2f");
    let (publisher, consumer) = (publisher(&url).await, consumer(&url));
    publisher.publish(message(0)).await.unwrap();
    node.ctl(&["set_vm_memory_high_watermark", "0"]);
    // The alarm comes a moment later; the broker says so when it sees the first publish after it, which is not answered.
    let refused = async {
        loop {
            let started = Instant::now();
            let answer = publisher.publish(message(1)).await;
            assert!(started.elapsed() < IN_TIME);
            if let Err(error) = answer {
                return error;
            }
        }
    };
    let refused = timeout(PATIENCE, refused).await.expect("it is refused in the end");
    assert!(matches!(refused, PublishError::Timeout | PublishError::Blocked), "{refused:?}");
    let started = Instant::now();
    assert_eq!(publisher.ready(), Err(PublishError::Blocked));
    assert_eq!(publisher.publish(message(2)).await, Err(PublishError::Blocked));
    assert!(started.elapsed() < AT_ONCE);
    // Consuming goes on, or the memory would never be freed.
    ack(&consumer, &take(&consumer, 1).await).await;
    node.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    ready(&publisher).await;
    publisher.publish(message(3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_broker_costs_the_budget_and_then_nothing() {
    let node = Node::start();
    node.ready().await;
    let url = node.url("%2f");
    let publisher = publisher(&url).await;
    let consumer = consumer(&url);
    node.freeze();
    let started = Instant::now();
    let answers = join_all((0..settings().in_flight).map(|number| publisher.publish(message(number)))).await;
    assert!(answers.iter().all(|answer| *answer == Err(PublishError::Timeout)), "{answers:?}");
    assert!(started.elapsed() < IN_TIME);
    // Those that timed out are still on their way, so no more are let in: there is no room, or the queue is known to be silent.
    let started = Instant::now();
    let refused = publisher.publish(message(100)).await;
    assert!(matches!(refused, Err(PublishError::Busy | PublishError::Timeout)), "{refused:?}");
    assert!(started.elapsed() < AT_ONCE);
    node.thaw();
    wait_until("it takes again", PATIENCE, || async { publisher.publish(message(101)).await.is_ok() }).await;
    ack(&consumer, &take(&consumer, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_is_unroutable_and_comes_back() {
    let url = rabbitmq::fresh_url().await;
    let (publisher, consumer) = (publisher(&url).await, consumer(&url));
    publisher.publish(message(0)).await.unwrap();
    ack(&consumer, &take(&consumer, 1).await).await;
    consumer.close().await;
    stranger(&url).await.queue_delete(topology::NOTIFY.into(), Default::default()).await.unwrap();
    assert_eq!(publisher.publish(message(1)).await, Err(PublishError::Unroutable));
    wait_until("a publish succeeds", PATIENCE, || async { publisher.publish(message(2)).await.is_ok() }).await;
}

/// The order of parking: the next home confirms before the old one is left. So without a next home nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_next_home_is_gone_stays_where_it_was() {
    let url = rabbitmq::fresh_url().await;
    publisher(&url).await.publish(message(1)).await.unwrap();
    let consumer = consumer(&url);
    let delivery = take(&consumer, 1).await.remove(0);
    stranger(&url).await.queue_delete(topology::DEAD.into(), Default::default()).await.unwrap();
    let parked = consumer.park(&delivery, Home::Dead).await;
    assert!(matches!(parked, Err(QueueError::Park(PublishError::Unroutable))), "{parked:?}");
    consumer.give_back(&[delivery]).await.unwrap();
    assert_eq!(take(&consumer, 1).await[0].message, message(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_survives_the_deletion_of_its_queue() {
    let url = rabbitmq::fresh_url().await;
    let (publisher, consumer) = (publisher(&url).await, consumer(&url));
    publisher.publish(message(0)).await.unwrap();
    ack(&consumer, &take(&consumer, 1).await).await;
    stranger(&url).await.queue_delete(topology::NOTIFY.into(), Default::default()).await.unwrap();
    wait_until("a publish succeeds", PATIENCE, || async { publisher.publish(message(1)).await.is_ok() }).await;
    assert_eq!(take(&consumer, 1).await[0].message, message(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_from_before_a_cut_are_dropped_and_everything_comes_again() {
    let node = Node::start();
    node.ready().await;
    let url = node.url("%2f");
    let (publisher, consumer) = (publisher(&url).await, consumer(&url));
    for number in 0..8 {
        publisher.publish(message(number)).await.unwrap();
    }
    let stale = take(&consumer, 8).await;
    node.ctl(&["close_all_connections", "test"]);
    let mut again = take(&consumer, 1).await;
    for delivery in &stale {
        consumer.ack(&[delivery.ticket]).await.unwrap();
    }
    again.extend(take(&consumer, 7).await);
    let numbers = |deliveries: &[wxpay_shared::queue::Delivery]| {
        deliveries.iter().map(|delivery| delivery.message.id.clone()).collect::<BTreeSet<_>>()
    };
    assert_eq!(numbers(&again), numbers(&stale));
    ack(&consumer, &again).await;
    ready(&publisher).await;
    publisher.publish(message(9)).await.unwrap();
    // Neither the stale answers nor the good ones cost the channel: nothing comes a third time.
    assert_eq!(take(&consumer, 1).await[0].message, message(9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_workers_never_answer_becomes_a_dead_letter() {
    let url = rabbitmq::fresh_url().await;
    publisher(&url).await.publish(message(0)).await.unwrap();
    let stranger = stranger(&url).await;
    let times = u32::try_from(topology::DELIVERY_LIMIT).unwrap();
    go_back(&stranger, &died_over(&stranger, times).await).await;
    let letters = RabbitDeadLetters::new(url.into(), settings());
    wait_until("the broker gives up", PATIENCE, || async { letters.depths().await.unwrap().dead == 1 }).await;
    let mut desk = letters.open().await.unwrap();
    let letter = read(&mut *desk).await.remove(0).message;
    assert_eq!(letter.log.rejection.map(|rejection| rejection.reason), Some(Reason::DeliveryLimit));
    assert_eq!((letter.id, letter.headers, letter.body), (message(0).id, message(0).headers, message(0).body));
    desk.close().await;
}

/// Eight tasks publish at once on one channel, every second message to nowhere. lapin hands returns to the wrong confirms
/// in this crowd; the answers must be right all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_publish_gets_another_ones_answer() {
    const EACH: usize = 2_000;
    let url = rabbitmq::fresh_url().await;
    let many = QueueSettings { in_flight: 512, ..settings() };
    let publisher = Arc::new(RabbitPublisher::start(url.clone().into(), many));
    ready(&publisher).await;
    let tasks = (0..8).map(|lane| {
        let publisher = Arc::clone(&publisher);
        tokio::spawn(async move {
            for chunk in 0..EACH / 50 {
                let publishes = (0..50).map(|number| {
                    let number = lane * EACH + chunk * 50 + number;
                    let key = if number.is_multiple_of(2) { topology::NOTIFY } else { "nowhere" };
                    let publisher = &publisher;
                    async move { (number, publisher.publish_to(key, message(number)).await) }
                });
                for (number, answer) in join_all(publishes).await {
                    let expected = if number.is_multiple_of(2) { Ok(()) } else { Err(PublishError::Unroutable) };
                    assert_eq!(answer, expected, "message {number}");
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let letters = RabbitDeadLetters::new(url.into(), settings());
    assert_eq!(letters.depths().await.unwrap().notify, u64::try_from(8 * EACH / 2).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_queue_says_so_and_closes_in_time() {
    let url = rabbitmq::fresh_url().await;
    let (publisher, consumer) = (publisher(&url).await, consumer(&url));
    publisher.publish(message(0)).await.unwrap();
    take(&consumer, 1).await;
    let started = Instant::now();
    publisher.close().await;
    consumer.close().await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(publisher.publish(message(1)).await, Err(PublishError::Closed));
    assert!(matches!(consumer.receive(1).await, Err(QueueError::Closed)));
}
