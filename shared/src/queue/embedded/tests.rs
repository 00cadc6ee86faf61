//! What the embedded queue promises, and what the contract suite cannot see from outside.

use std::{collections::BTreeMap, path::Path, sync::Mutex};

use jiff::{SignedDuration, Timestamp};

use super::{
    super::{Consumer, Settle},
    *,
};
use crate::{disk::Holds, envelope::Log, ids::NotificationId};

struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    fn advance(&self, seconds: i64) {
        let mut now = self.0.lock().unwrap();
        *now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct Bench {
    disk: Disk,
    queue: EmbeddedQueue,
    clock: Arc<ManualClock>,
}

async fn open(directory: &Path) -> Bench {
    let disk = Disk::open(directory, Holds::Records).await.unwrap();
    let clock = Arc::new(ManualClock(Mutex::new(Timestamp::from_second(1_800_000_000).unwrap())));
    let retry_delays = vec![Duration::from_secs(5), Duration::from_secs(60), Duration::ZERO];
    let settings = QueueSettings { prefetch: 4, in_flight: 8, retry_delays, shards: 1, taken_shards: Vec::new() };
    let queue = EmbeddedQueue::open(disk.clone(), settings, Arc::<ManualClock>::clone(&clock)).await.unwrap();
    Bench { disk, queue, clock }
}

impl Bench {
    async fn close(self) {
        drop(self.queue);
        self.disk.close().await.unwrap();
    }

    async fn depths(&self) -> (u64, u64, u64) {
        let Depths { notify, retry, dead, .. } = self.queue.depths().await.unwrap();
        (notify, retry, dead)
    }

    async fn publish(&self, ids: &[&str]) {
        for id in ids {
            self.queue.publish(message(id)).await.unwrap();
        }
    }
}

fn message(id: &str) -> Message {
    let headers = BTreeMap::from([("wxpay-api".to_owned(), "v3".to_owned())]);
    Message {
        id: NotificationId::parse(id).unwrap(),
        headers,
        body: vec![0, 159, 146, 150].into(),
        log: Log::default(),
    }
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.message.id.as_str()).collect()
}

#[tokio::test]
async fn a_confirmed_message_is_there_after_a_reopening_until_it_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path()).await;
    bench.publish(&["a", "b"]).await;
    let consumer = bench.queue.consumer();
    assert_eq!(ids(&consumer.receive(1).await.unwrap()), ["a"]);
    drop(consumer);
    bench.close().await;

    let bench = open(directory.path()).await;
    let consumer = bench.queue.consumer();
    let got = consumer.receive(9).await.unwrap();
    assert_eq!(got[0].message, message("a"));
    assert_eq!(ids(&got), ["a"], "what was there before is handed out alone");
    consumer.ack(&[got[0].ticket]).await.unwrap();
    assert_eq!(ids(&consumer.receive(9).await.unwrap()), ["b"]);
    bench.disk.durable().await.unwrap();
    drop(consumer);
    bench.close().await;

    let bench = open(directory.path()).await;
    assert_eq!(bench.depths().await, (1, 0, 0));
    assert_eq!(ids(&bench.queue.consumer().receive(9).await.unwrap()), ["b"]);
}

#[tokio::test]
async fn what_a_dropped_consumer_held_comes_again_marked_and_old_tickets_mean_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path()).await;
    bench.publish(&["a"]).await;
    let first = bench.queue.consumer();
    let old = first.receive(1).await.unwrap();
    assert_eq!(old[0].returned, 0);
    drop(first);

    let second = bench.queue.consumer();
    second.ack(&[old[0].ticket]).await.unwrap();
    second.park(&old[0], Home::Dead).await.unwrap();
    let again = second.receive(1).await.unwrap();
    assert_eq!(ids(&again), ["a"]);
    assert_eq!(again[0].returned, 1);
    second.give_back(&again[..1]).await.unwrap();
    assert_eq!(ids(&second.receive(1).await.unwrap()), ["a"]);
}

#[tokio::test]
async fn no_more_than_the_prefetch_is_out_and_settling_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path()).await;
    bench.publish(&["1", "2", "3", "4", "5"]).await;
    let consumer = bench.queue.consumer();
    let got = consumer.receive(100).await.unwrap();
    assert_eq!(ids(&got), ["1", "2", "3", "4"]);
    assert_eq!(bench.depths().await, (1, 0, 0));
    let done = [got[0].ticket];
    let (next, acked) = tokio::join!(consumer.receive(100), consumer.ack(&done));
    acked.unwrap();
    assert_eq!(ids(&next.unwrap()), ["5"]);
}

#[tokio::test]
async fn a_receive_that_is_dropped_loses_nothing_and_one_that_waits_is_woken() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path()).await;
    let consumer = bench.queue.consumer();
    for _ in 0..20 {
        tokio::select! {
            biased;
            got = consumer.receive(1) => panic!("{got:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    let (got, ()) = tokio::join!(consumer.receive(1), bench.publish(&["a"]));
    assert_eq!(ids(&got.unwrap()), ["a"]);
}

#[tokio::test]
async fn a_parked_message_comes_back_when_its_delay_is_over_with_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path()).await;
    bench.publish(&["a", "b", "c"]).await;
    let consumer = bench.queue.consumer();
    let mut got = consumer.receive(3).await.unwrap();
    got[0].message.log.attempts = 7;
    consumer.park(&got[0], Home::Retry(1)).await.unwrap();
    consumer.park(&got[1], Home::Retry(0)).await.unwrap();
    assert!(matches!(consumer.park(&got[2], Home::Retry(9)).await, Err(QueueError::Park(PublishError::Unroutable))));
    consumer.ack(&[got[2].ticket]).await.unwrap();
    assert_eq!(bench.depths().await, (0, 2, 0));

    bench.clock.advance(5);
    assert_eq!(ids(&consumer.receive(9).await.unwrap()), ["b"]);
    bench.clock.advance(55);
    let late = consumer.receive(9).await.unwrap();
    assert_eq!((ids(&late), late[0].message.log.attempts), (vec!["a"], 7));

    bench.clock.advance(-60);
    consumer.park(&late[0], Home::Retry(2)).await.unwrap();
    assert_eq!(ids(&consumer.receive(9).await.unwrap()), ["a"], "a clock set back hides nothing");
}

#[tokio::test]
async fn a_clock_set_back_makes_nobody_wait_longer_than_his_delay() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path()).await;
    bench.publish(&["a", "b"]).await;
    let consumer = bench.queue.consumer();
    let got = consumer.receive(2).await.unwrap();
    consumer.park(&got[0], Home::Retry(1)).await.unwrap();
    bench.clock.advance(-3_600);
    let before = bench.queue.inner.timeline.now_millis();
    bench.clock.advance(60);
    assert_eq!(bench.queue.inner.timeline.now_millis(), before + 60_000);
    let first = consumer.receive(9).await.unwrap();
    assert_eq!(ids(&first), ["a"]);
    consumer.ack(&[first[0].ticket]).await.unwrap();

    bench.clock.advance(86_400);
    consumer.park(&got[1], Home::Retry(0)).await.unwrap();
    drop(consumer);
    bench.close().await;
    // Opened again with a clock that is a day behind.
    let bench = open(directory.path()).await;
    let consumer = bench.queue.consumer();
    bench.queue.inner.timeline.now_millis();
    bench.clock.advance(5);
    assert_eq!(ids(&consumer.receive(9).await.unwrap()), ["b"]);
}

/// Processes that each die over one of four messages, the moment they get it.
#[tokio::test]
async fn a_message_that_ends_each_process_becomes_a_dead_letter_and_its_neighbours_get_through() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path()).await;
    bench.publish(&["1", "2", "dead", "4"]).await;
    bench.close().await;
    let mut handled = Vec::new();
    for _ in 0..3 {
        let bench = open(directory.path()).await;
        assert_eq!(bench.depths().await.2, 0);
        let consumer = bench.queue.consumer();
        loop {
            let got = consumer.receive(9).await.unwrap();
            assert_eq!(got.len(), 1);
            if ids(&got) == ["dead"] {
                break;
            }
            handled.push(got[0].message.id.to_string());
            consumer.ack(&[got[0].ticket]).await.unwrap();
        }
        // As at a death: it has no answer, and the note stands.
        drop(consumer);
        bench.close().await;
    }
    let bench = open(directory.path()).await;
    assert_eq!((bench.depths().await, handled), ((1, 0, 1), vec!["1".to_owned(), "2".to_owned()]));
    let mut desk = bench.queue.open().await.unwrap();
    let dead = desk.next().await.unwrap().unwrap();
    assert_eq!(dead.message.log.rejection.unwrap().reason, crate::reason::Reason::DeliveryLimit);
    let consumer = bench.queue.consumer();
    let last = consumer.receive(9).await.unwrap();
    assert_eq!(ids(&last), ["4"]);
    consumer.ack(&[last[0].ticket]).await.unwrap();
    bench.publish(&["5", "6"]).await;
    assert_eq!(ids(&consumer.receive(9).await.unwrap()), ["5", "6"], "caution is over");
}

#[tokio::test]
async fn a_desk_shows_the_dead_letters_of_its_opening_in_order_to_one_reader() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path()).await;
    bench.publish(&["a", "b", "c", "d"]).await;
    let consumer = bench.queue.consumer();
    for delivery in consumer.receive(4).await.unwrap() {
        consumer.park(&delivery, Home::Dead).await.unwrap();
    }
    assert_eq!(bench.depths().await, (0, 0, 4));

    let mut desk = bench.queue.open().await.unwrap();
    assert!(matches!(bench.queue.open().await, Err(QueueError::Busy)));
    let mut a = desk.next().await.unwrap().unwrap();
    a.message.log.attempts = 3;
    desk.park(&a, Home::Dead).await.unwrap();
    let b = desk.next().await.unwrap().unwrap();
    desk.ack(&[b.ticket]).await.unwrap();
    desk.park(&b, Home::Dead).await.unwrap_err();
    let c = desk.next().await.unwrap().unwrap();
    desk.park(&c, Home::Retry(0)).await.unwrap();
    let d = desk.next().await.unwrap().unwrap();
    assert_eq!(ids(&[a, b, c, d]), ["a", "b", "c", "d"]);
    assert!(desk.next().await.unwrap().is_none());
    desk.close().await;
    assert_eq!(bench.depths().await, (0, 1, 2));

    let mut desk = bench.queue.open().await.unwrap();
    let mut left = Vec::new();
    while let Some(letter) = desk.next().await.unwrap() {
        left.push((letter.message.id.to_string(), letter.message.log.attempts));
    }
    assert_eq!(left, [("d".to_owned(), 0), ("a".to_owned(), 3)]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_set_aside_and_the_queue_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path()).await;
    bench.publish(&["a", "b"]).await;
    let ready = bench.disk.tree("queue.ready").unwrap();
    let (key, _) = ready.first().unwrap().unwrap();
    ready.insert(key, "garbage").unwrap();
    drop(ready);

    assert_eq!(ids(&bench.queue.consumer().receive(9).await.unwrap()), ["b"]);

    assert_eq!(bench.depths().await, (1, 0, 0));
    let aside = bench.disk.tree("queue.unreadable").unwrap();
    assert_eq!(aside.first().unwrap().unwrap().1, "garbage");
}

#[tokio::test]
async fn one_publish_too_many_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path()).await;
    let (release, block) = std::sync::mpsc::channel::<()>();
    let disk = bench.disk.clone();
    let blocker = tokio::spawn(async move { disk.commit(move || block.recv()).await });
    let publishes: Vec<_> = (0..8)
        .map(|_| {
            let queue = bench.queue.clone();
            tokio::spawn(async move { queue.publish(message("a")).await })
        })
        .collect();
    while bench.queue.ready().is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.queue.publish(message("b")).await, Err(PublishError::Busy));
    release.send(()).unwrap();
    blocker.await.unwrap().unwrap().unwrap();
    for publish in publishes {
        publish.await.unwrap().unwrap();
    }
    bench.queue.ready().unwrap();
}

#[tokio::test]
async fn what_somebody_took_already_is_not_offered_again() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path()).await;
    bench.publish(&["a1"]).await;
    let consumer = bench.queue.consumer();
    let first = consumer.receive(1).await.unwrap();
    // Without a delay: it is due before the move has been told.
    consumer.park(&first[0], Home::Retry(2)).await.unwrap();
    let taken = consumer.receive(1).await.unwrap();
    let place = bench.queue.inner.hands.place(taken[0].ticket).unwrap();
    bench.queue.inner.hands.offer(place);
    let again = bench.queue.inner.hands.take(&bench.queue.inner.shelves, 0, 1, u64::MAX).unwrap();
    assert!(again.is_empty(), "{again:?}");
}
