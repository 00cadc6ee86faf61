//! The queue's contract, as tests: one suite, run against every home.
//!
//! A home joins by implementing [`Home`] and naming itself in a [`contract`] at the end of the file.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::time::timeout;
use wxpay_shared::queue::{Consumer, DeadLetters, Home as Where, Publisher, Wanted};

use crate::harness::wait_until;

mod homes;
mod letters;
mod steps;

use letters::*;
pub(crate) use steps::*;

/// Long enough for a slow machine, and never waited for in full by a test that passes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const SHORT: Duration = Duration::from_millis(300);
pub(crate) const LONG: Duration = Duration::from_secs(1);
pub(crate) const LATER: Duration = Duration::from_secs(8);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// One home of the queue, opened with [`settings`], empty at first.
#[async_trait]
pub(crate) trait Home: Send {
    /// A publisher that is ready.
    async fn publisher(&self) -> Arc<dyn Publisher>;
    /// A consumer of its own. Dropping it is what a crash of the worker looks like to the home.
    async fn consumer(&self) -> Box<dyn Consumer>;
    /// The dead letters.
    async fn dead_letters(&self) -> Arc<dyn DeadLetters>;
    /// Ends the home without warning and starts it again. What was opened before need not work afterwards.
    async fn restart(&mut self);
    /// How many of many messages a consumer gets without an answer.
    fn out_at_a_time(&self) -> usize;
    /// Whether the tests publish their messages at the same time, which makes bundles of them on RabbitMQ.
    fn at_once(&self) -> bool {
        false
    }
}

async fn a_confirmed_message_survives_a_crash_of_the_queue(mut home: impl Home) {
    publish(&home, 0..20).await;
    home.restart().await;
    let consumer = home.consumer().await;
    let mut numbers = BTreeSet::new();
    while numbers.len() < 20 {
        let deliveries = take(&*consumer, 1).await;
        numbers.extend(deliveries.iter().map(|delivery| delivery.message.id.clone()));
        ack(&*consumer, &deliveries).await;
    }
    assert_eq!(numbers, (0..20).map(|number| message(number).id).collect());
}

async fn a_message_without_an_answer_comes_again(home: impl Home) {
    publish(&home, 0..1).await;
    let first = home.consumer().await;
    let before = take(&*first, 1).await[0].returned;
    drop(first);
    let second = take(&*home.consumer().await, 1).await;
    assert!(second[0].returned > before);
    assert_eq!(second[0].message, message(0));
}

async fn an_ack_is_final(mut home: impl Home) {
    publish(&home, 0..5).await;
    let consumer = home.consumer().await;
    // In an order that no shortcut of the broker's protocol covers.
    let mut deliveries = take(&*consumer, 5).await;
    deliveries.reverse();
    ack(&*consumer, &deliveries[..2]).await;
    ack(&*consumer, &deliveries[2..]).await;
    ack(&*consumer, &deliveries).await;
    publish(&home, 5..6).await;
    ack(&*consumer, &take(&*consumer, 1).await).await;
    let letters = home.dead_letters().await;
    wait_until("the queue is empty", PATIENCE, || async { letters.depths().await.unwrap().notify == 0 }).await;
    drop((consumer, letters));
    // Acks have no confirm of their own. They are on disk at the latest with the next confirmed message.
    publish(&home, 6..7).await;
    home.restart().await;
    assert_eq!(messages(&take(&*home.consumer().await, 1).await), [message(6)]);
}

async fn what_is_given_back_comes_again_untouched(home: impl Home) {
    publish(&home, 0..2).await;
    let consumer = home.consumer().await;
    let deliveries = take(&*consumer, 2).await;
    consumer.give_back(&deliveries[..1]).await.unwrap();
    let again = take(&*consumer, 1).await;
    assert_eq!(again[0].message, deliveries[0].message);
    assert!(again[0].returned > deliveries[0].returned);
    // The other one was left alone.
    consumer.ack(&[again[0].ticket, deliveries[1].ticket]).await.unwrap();
}

async fn a_retried_message_comes_back_after_its_own_delay(home: impl Home) {
    publish(&home, 0..2).await;
    let consumer = home.consumer().await;
    let deliveries = take(&*consumer, 2).await;
    let started = Instant::now();
    let mut order = Vec::new();
    for (delivery, tier) in deliveries.into_iter().zip([1, 0]) {
        let changed = failed(&delivery.message);
        order.push(changed.clone());
        park(&*consumer, delivery, changed, Where::Retry(tier)).await;
    }
    let short = take(&*consumer, 1).await;
    assert!(started.elapsed() >= SHORT);
    let long = take(&*consumer, 1).await;
    assert!(started.elapsed() >= LONG);
    order.reverse();
    assert_eq!([&short[0].message, &long[0].message], [&order[0], &order[1]]);
}

async fn what_is_wanted_comes_before_its_time(home: impl Home) {
    publish(&home, 0..60).await;
    let consumer = home.consumer().await;
    park_all(&*consumer, 60, 3).await;
    let wanted = [message(7), message(41)].map(|message| failed(&message));
    let ids = wanted.clone().map(|message| message.id);
    let wants: Wanted = Arc::new(move |message| ids.contains(&message.id));
    assert_eq!(consumer.release(Arc::clone(&wants)).await.unwrap(), 2);
    let released = take(&*consumer, 2).await;
    assert_eq!(messages(&released), wanted);
    ack(&*consumer, &released).await;
    assert_eq!(consumer.release(wants).await.unwrap(), 0);
    let letters = home.dead_letters().await;
    wait_until("the others wait", PATIENCE, || async { letters.depths().await.unwrap().retry == 58 }).await;
}

/// More than twenty times, after which RabbitMQ 4 would take a message out of a queue without a limit of its own.
async fn what_is_not_wanted_keeps_its_time_and_its_place(home: impl Home) {
    publish(&home, 0..40).await;
    let consumer = home.consumer().await;
    let started = Instant::now();
    let parked = park_all(&*consumer, 40, 2).await;
    for _ in 0..22 {
        assert_eq!(consumer.release(Arc::new(|_| false)).await.unwrap(), 0);
    }
    let mut back = Vec::new();
    while back.len() < parked.len() {
        let deliveries = take(&*consumer, 1).await;
        assert!(started.elapsed() >= LATER);
        back.extend(deliveries.iter().map(|delivery| delivery.message.id.clone()));
        ack(&*consumer, &deliveries).await;
    }
    assert_eq!(back, parked);
}

/// Each holds messages that the other one must see.
async fn releases_at_the_same_time_find_everything(home: impl Home) {
    publish(&home, 0..30).await;
    let (one, other) = (home.consumer().await, home.consumer().await);
    park_all(&*one, 30, 3).await;
    wait_until("both are connected", PATIENCE, || async { one.connected() && other.connected() }).await;
    let wants = |numbers: std::ops::Range<usize>| -> Wanted {
        let ids: BTreeSet<_> = numbers.map(|number| message(number).id).collect();
        Arc::new(move |message| ids.contains(&message.id))
    };
    let released = tokio::join!(one.release(wants(0..15)), other.release(wants(15..30)));
    assert_eq!((released.0.unwrap(), released.1.unwrap()), (15, 15));
}

async fn no_more_than_the_prefetch_is_out_at_a_time(home: impl Home) {
    let prefetch = usize::from(settings().prefetch);
    assert!(home.out_at_a_time() <= prefetch);
    publish(&home, 0..prefetch * 2).await;
    let consumer = home.consumer().await;
    let deliveries = take(&*consumer, home.out_at_a_time()).await;
    // What must not happen has no event to wait for.
    assert!(timeout(SHORT, consumer.receive(1)).await.is_err());
    ack(&*consumer, &deliveries[..1]).await;
    take(&*consumer, 1).await;
    ack(&*consumer, &deliveries[1..]).await;
}

async fn receive_never_waits_for_a_fuller_batch(home: impl Home) {
    publish(&home, 0..1).await;
    let consumer = home.consumer().await;
    let received = timeout(PATIENCE, consumer.receive(64)).await.expect("it does not wait").unwrap();
    assert_eq!(messages(&received), [message(0)]);
}

async fn filled_waits_until_so_many_are_ready_or_no_more_can_come(home: impl Home) {
    publish(&home, 0..1).await;
    let consumer = home.consumer().await;
    ack(&*consumer, &take(&*consumer, 1).await).await;
    // What must not happen has no event to wait for.
    assert!(timeout(SHORT, consumer.filled(1)).await.is_err());
    let (filled, ()) = tokio::join!(timeout(PATIENCE, consumer.filled(2)), publish(&home, 1..3));
    filled.expect("two are ready");
    let two = consumer.receive(64).await.unwrap();
    assert_eq!(two.len(), 2);
    publish(&home, 3..20).await;
    take(&*consumer, home.out_at_a_time() - 2).await;
    timeout(PATIENCE, consumer.filled(2)).await.expect("no more can come");
}

async fn a_receive_that_is_dropped_loses_nothing(home: impl Home) {
    let consumer = home.consumer().await;
    assert!(timeout(Duration::from_millis(1), consumer.receive(1)).await.is_err());
    publish(&home, 0..5).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 5 {
        if let Ok(received) = timeout(Duration::from_micros(50), consumer.receive(1)).await {
            deliveries.extend(received.unwrap());
        }
    }
    assert_eq!(messages(&deliveries), (0..5).map(message).collect::<Vec<_>>());
}

async fn a_ticket_of_another_connection_is_harmless(home: impl Home) {
    publish(&home, 0..1).await;
    let first = home.consumer().await;
    let stale = take(&*first, 1).await.remove(0);
    drop(first);
    let second = home.consumer().await;
    let fresh = take(&*second, 1).await;
    second.ack(&[stale.ticket]).await.unwrap();
    second.give_back(std::slice::from_ref(&stale)).await.unwrap();
    second.park(&stale, Where::Dead).await.unwrap();
    ack(&*second, &fresh).await;
    publish(&home, 1..2).await;
    assert_eq!(messages(&take(&*second, 1).await), [message(1)]);
    depth_of_dead(&home, 0).await;
}

async fn a_paused_consumer_gives_back_what_nobody_received(home: impl Home) {
    publish(&home, 0..6).await;
    let consumer = home.consumer().await;
    let mine = take(&*consumer, 1).await;
    consumer.pause().await;
    let other = home.consumer().await;
    let theirs = take(&*other, 5).await;
    // Received before the pause, so still ours to answer.
    ack(&*consumer, &mine).await;
    other.pause().await;
    other.give_back(&theirs).await.unwrap();
    assert_eq!(take(&*consumer, 5).await.len(), 5);
}

/// Every test of the contract for one home. The first expression opens it, the second opens one that is restarted.
macro_rules! contract {
    ($name:ident, $open:expr, $open_to_restart:expr) => {
        contract! { $name, (flavor = "multi_thread", worker_threads = 2), $open, $open_to_restart;
            what_is_given_back_comes_again_untouched
            no_more_than_the_prefetch_is_out_at_a_time
            filled_waits_until_so_many_are_ready_or_no_more_can_come
        }
    };
    // For a home in which a message has one notification, these as well.
    ($name:ident, $flavor:tt, $open:expr, $open_to_restart:expr; $($single:ident)*) => {
        mod $name {
            contract! { $flavor $open_to_restart =>
                a_confirmed_message_survives_a_crash_of_the_queue
                an_ack_is_final
                a_dead_letter_keeps_id_headers_body_and_log
                a_letter_can_be_added_while_others_are_read
            }
            contract! { $flavor $open =>
                a_message_without_an_answer_comes_again
                a_retried_message_comes_back_after_its_own_delay
                what_is_wanted_comes_before_its_time
                what_is_not_wanted_keeps_its_time_and_its_place
                releases_at_the_same_time_find_everything
                the_dead_letters_have_one_reader_at_a_time
                a_letter_stays_until_it_is_settled
                a_letter_that_dies_again_replaces_itself
                a_reading_has_no_limit
                a_replayed_letter_comes_to_the_workers
                receive_never_waits_for_a_fuller_batch
                a_receive_that_is_dropped_loses_nothing
                a_ticket_of_another_connection_is_harmless
                a_paused_consumer_gives_back_what_nobody_received
                $($single)*
            }
        }
    };
    ($flavor:tt $open:expr => $($case:ident)+) => {
        $(
            #[tokio::test $flavor]
            async fn $case() {
                super::$case($open.await).await;
            }
        )+
    };
}

contract!(rabbit, super::homes::Rabbit::open(1), super::homes::Restarted::open(1));
contract!(rabbit_in_shards, super::homes::Rabbit::open(3), super::homes::Restarted::open(3));
contract!(embedded, super::homes::Embedded::open(), super::homes::Embedded::open());
// With one thread, for then everything that is published at once is there before any of it is sent. What bundles have to
// themselves is in `rabbit_bundles.rs`.
contract! { rabbit_in_bundles, (flavor = "current_thread"),
    super::homes::Rabbit::open_for_bundles(), super::homes::Restarted::open_for_bundles();
}
