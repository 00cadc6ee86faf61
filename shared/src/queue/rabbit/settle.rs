//! Which deliveries of a channel wait for their answer, and the answers. Consumer and desk settle in the same way.
//!
//! Each channel is an epoch, and an answer goes to the broker only for a delivery of the present epoch that was not
//! answered before: the broker closes a channel that names a delivery it does not know, and a worker that then answers
//! its remaining old deliveries would be cut off again and again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
};

use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt, join_all, try_join_all};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use tokio::sync::{Notify, Semaphore};

use super::{RabbitPublisher, lanes, unavailable};
use crate::{
    envelope::Message,
    queue::{Delivery, Home, PUBLISH_BUDGET, QueueError, QueueSettings, Settle, Ticket, topology},
};

/// Unique in the process, so that no two channels can take each other's tickets for their own.
static EPOCH: AtomicU64 = AtomicU64::new(1);

type Sent = BoxFuture<'static, lapin::Result<()>>;

/// The answers to the deliveries of one reader, over all the channels that it has one after another.
#[derive(Clone)]
pub(super) struct Hands {
    held: Arc<Mutex<Held>>,
    /// Deliveries got their answers, or the channel is gone.
    answered: Arc<Notify>,
    publisher: Arc<RabbitPublisher>,
    settings: QueueSettings,
    /// How many may be on their way to each queue.
    room: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

#[derive(Default)]
struct Held {
    epoch: u64,
    channel: Option<Channel>,
    /// The messages that wait for their answer, by their delivery tags.
    tags: BTreeMap<u64, Parts>,
    /// The highest tag that was noted, and those below it that are still to come: the broker counts the deliveries of all
    /// queues together, and they are not noted in that order. An ack of many may cover none of them.
    highest: u64,
    unnoted: BTreeSet<u64>,
}

/// The notifications of a message, a bit each.
#[derive(Clone, Copy)]
struct Parts {
    all: u64,
    /// Those that have no answer yet.
    open: u64,
    /// Those of them that were handled and wait until they are parked.
    parked: u64,
    /// One of them could only go back with the others.
    back: bool,
}

impl Parts {
    fn new(count: usize) -> Self {
        let all = u64::MAX >> u64::BITS.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        Self { all, open: all, parked: 0, back: false }
    }

    fn has(&self, part: u8) -> bool {
        self.open & bit(part) != 0
    }
}

fn bit(part: u8) -> u64 {
    1_u64.checked_shl(part.into()).unwrap_or(0)
}

impl Hands {
    pub(super) fn new(publisher: Arc<RabbitPublisher>, settings: QueueSettings) -> Self {
        Self { held: Arc::default(), answered: Arc::default(), publisher, settings, room: Arc::default() }
    }

    /// From now on deliveries come over this channel.
    pub(super) fn open(&self, channel: Channel) {
        let epoch = EPOCH.fetch_add(1, Ordering::Relaxed);
        *self.held() = Held { epoch, channel: Some(channel), ..Held::default() };
    }

    /// The channel is gone: all its tickets are stale.
    pub(super) fn close(&self) {
        *self.held() = Held::default();
        self.answered.notify_waiters();
    }

    /// Notes a delivery with so many notifications; a ticket for each.
    pub(super) fn hold(&self, tag: u64, count: usize) -> impl Iterator<Item = Ticket> + use<> {
        let mut held = self.held();
        held.note(tag);
        held.tags.insert(tag, Parts::new(count));
        let epoch = held.epoch;
        (0..u8::try_from(count).unwrap_or(u8::MAX)).map(move |part| Ticket { epoch, tag, part })
    }

    /// Notes a delivery that is a single message.
    pub(super) fn hold_one(&self, tag: u64) -> Ticket {
        self.hold(tag, 1).next().expect("one ticket for one message")
    }

    /// Notes a delivery that has been answered past these hands.
    pub(super) fn pass(&self, tag: u64) {
        self.held().note(tag);
    }

    /// Gives back everything that has no answer yet, and says how much that was.
    pub(super) async fn give_all_back(&self) -> Result<usize, QueueError> {
        let (count, sent) = {
            let mut held = self.held();
            let last = held.tags.pop_last();
            let count = last.map_or(0, |_| held.tags.len() + 1);
            held.tags.clear();
            (count, last.and_then(|(last, _)| held.nack(last, true)))
        };
        self.answered.notify_waiters();
        try_join_all(sent).await.map_err(unavailable)?;
        Ok(count)
    }

    /// How many deliveries have no answer yet.
    pub(super) fn count(&self) -> usize {
        self.held().tags.len()
    }

    /// How many deliveries from this one on have no answer yet.
    pub(super) fn held_since(&self, tag: u64) -> usize {
        self.held().tags.range(tag..).count()
    }

    /// Publishes a message to a queue; when this returns, it is there for certain. Waits while as many are on their way
    /// there as the queue's channel takes: nobody out there is in a hurry.
    pub(super) async fn publish(&self, queue: &str, message: Message) -> Result<(), QueueError> {
        let room = {
            let mut rooms = self.room.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(rooms.entry(queue.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(lanes::ROOM))))
        };
        let _permit = room.acquire().await.map_err(unavailable)?;
        self.publisher.connected_within(PUBLISH_BUDGET).await?;
        Ok(self.publisher.publish_to(queue, message).await?)
    }

    /// Publishes a notification to the workers as a message of its own; where that is not possible, its ticket, for it can
    /// only go back with what came beside it.
    async fn publish_anew(&self, delivery: &Delivery) -> Option<Ticket> {
        if !self.holds(delivery.ticket) {
            return None;
        }
        let published = self.publish(topology::NOTIFY, delivery.message.clone()).await;
        match published {
            Ok(()) => self.ack(&[delivery.ticket]).await.err().map(|_| delivery.ticket),
            Err(_) => Some(delivery.ticket),
        }
    }

    /// Returns when nothing is being handled: every delivery has its answer, or waits until its next home takes it. That may
    /// be long, and no process dies of it.
    pub(super) async fn empty(&self) {
        loop {
            // Made before the look, so that no answer falls between the two.
            let answered = self.answered.notified();
            if self.held().tags.values().all(|parts| parts.open & !parts.parked == 0) {
                return;
            }
            answered.await;
        }
    }

    /// Whether it can still be answered; from now on it is handled.
    fn begin_to_park(&self, ticket: Ticket) -> bool {
        let holds = self.holds(ticket);
        if let Some(parts) = self.held().tags.get_mut(&ticket.tag).filter(|_| holds) {
            parts.parked |= bit(ticket.part);
        }
        self.answered.notify_waiters();
        holds
    }

    fn holds(&self, ticket: Ticket) -> bool {
        let held = self.held();
        held.epoch == ticket.epoch && held.tags.get(&ticket.tag).is_some_and(|parts| parts.has(ticket.part))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn note(&mut self, tag: u64) {
        self.unnoted.extend(self.highest + 1..tag);
        self.highest = self.highest.max(tag);
        self.unnoted.remove(&tag);
    }

    /// Answers those of the tickets that can still be answered; the tags of which this was the last.
    fn answer(&mut self, tickets: &[Ticket], back: bool) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let (mut acked, mut returned) = (BTreeSet::new(), BTreeSet::new());
        for ticket in tickets.iter().filter(|ticket| ticket.epoch == self.epoch) {
            let Some(parts) = self.tags.get_mut(&ticket.tag).filter(|parts| parts.has(ticket.part)) else { continue };
            parts.open &= !bit(ticket.part);
            parts.back |= back;
            if parts.open == 0 {
                if parts.back { &mut returned } else { &mut acked }.insert(ticket.tag);
            }
        }
        (acked, returned)
    }

    fn ack(&mut self, tickets: &[Ticket]) -> Vec<Sent> {
        let (mut tags, returned) = self.answer(tickets, false);
        let mut sent = self.return_all(returned);
        let front = self.front(&tags);
        if front > 1 {
            let last = *tags.iter().nth(front - 1).expect("the front is not longer than the list");
            tags = tags.split_off(&(last + 1));
            self.tags = self.tags.split_off(&(last + 1));
            sent.extend(self.send(move |channel| {
                async move { channel.basic_ack(last, BasicAckOptions { multiple: true }).await }.boxed()
            }));
        }
        for tag in tags {
            self.tags.remove(&tag);
            sent.extend(
                self.send(move |channel| {
                    async move { channel.basic_ack(tag, BasicAckOptions::default()).await }.boxed()
                }),
            );
        }
        sent
    }

    /// How many of these tags one ack may answer together. It covers every unanswered delivery up to its tag, also one that
    /// is still being worked on or not even noted. So it is used only for the front of the unanswered ones, as far as all
    /// of them are to be acked.
    fn front(&self, tags: &BTreeSet<u64>) -> usize {
        let end = self.unnoted.first().copied().unwrap_or(u64::MAX);
        self.tags.keys().zip(tags).take_while(|(held, acked)| held == acked && **held < end).count()
    }

    fn give_back(&mut self, tickets: &[Ticket]) -> Vec<Sent> {
        let (_, returned) = self.answer(tickets, true);
        self.return_all(returned)
    }

    fn return_all(&mut self, tags: BTreeSet<u64>) -> Vec<Sent> {
        tags.into_iter()
            .filter_map(|tag| {
                self.tags.remove(&tag);
                self.nack(tag, false)
            })
            .collect()
    }

    /// Whether these are all the notifications that came in their message, and none of them has an answer yet.
    fn is_whole(&self, tickets: &[Ticket]) -> bool {
        let Some(parts) = tickets.first().and_then(|first| self.tags.get(&first.tag)) else { return true };
        let given = tickets.iter().fold(0, |given, ticket| given | bit(ticket.part));
        given == parts.all && parts.open == parts.all
    }

    fn nack(&self, tag: u64, multiple: bool) -> Option<Sent> {
        self.send(move |channel| {
            async move { channel.basic_nack(tag, BasicNackOptions { multiple, requeue: true }).await }.boxed()
        })
    }

    /// The first poll puts the frame into the connection's queue. It must happen under the lock: an answer that is taken
    /// out here but sent later could come behind a multiple ack that covers it, and the broker closes the channel.
    fn send(&self, answer: impl FnOnce(Channel) -> Sent) -> Option<Sent> {
        let mut sent = answer(self.channel.clone()?);
        match sent.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(result) => Some(std::future::ready(result).boxed()),
            std::task::Poll::Pending => Some(sent),
        }
    }
}

#[async_trait]
impl Settle for Hands {
    async fn ack(&self, tickets: &[Ticket]) -> Result<(), QueueError> {
        let sent = self.held().ack(tickets);
        self.answered.notify_waiters();
        try_join_all(sent).await.map(drop).map_err(unavailable)
    }

    async fn give_back(&self, deliveries: &[Delivery]) -> Result<(), QueueError> {
        let (whole, split): (Vec<_>, Vec<_>) = {
            let held = self.held();
            deliveries
                .chunk_by(|one, next| one.ticket.tag == next.ticket.tag)
                .partition(|message| held.is_whole(&message.iter().map(|delivery| delivery.ticket).collect::<Vec<_>>()))
        };
        // Where other notifications of the message have been answered, or will be, this one alone is published anew.
        let anew = join_all(split.into_iter().flatten().map(|delivery| self.publish_anew(delivery))).await;
        let mut back: Vec<_> = anew.into_iter().flatten().collect();
        back.extend(whole.into_iter().flatten().map(|delivery| delivery.ticket));
        let sent = self.held().give_back(&back);
        self.answered.notify_waiters();
        try_join_all(sent).await.map(drop).map_err(unavailable)
    }

    async fn park(&self, delivery: &Delivery, home: Home) -> Result<(), QueueError> {
        // The broker delivers a stale one again, so publishing it would only make a second copy.
        if !self.begin_to_park(delivery.ticket) {
            return Ok(());
        }
        let key = match home {
            Home::Dead => topology::DEAD.to_owned(),
            Home::Retry(tier) => {
                let delay = self.settings.retry_delays.get(tier);
                topology::retry(*delay.ok_or_else(|| unavailable(format!("there is no retry tier {tier}")))?)
            }
        };
        // Publish, confirm, then ack: a crash between the two makes a copy, which the worker's dedup absorbs. The other
        // order makes a loss.
        self.publish(&key, delivery.message.clone()).await?;
        self.ack(&[delivery.ticket]).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_waits_to_be_parked_is_not_being_handled() {
        let settings = QueueSettings {
            prefetch: 8,
            in_flight: 8,
            retry_delays: vec![Duration::from_secs(5)],
            shards: 1,
            taken_shards: Vec::new(),
        };
        let publisher = RabbitPublisher::start("amqp://127.0.0.1:1".to_owned().into(), settings.clone());
        let hands = Hands::new(Arc::new(publisher), settings);
        let tickets: Vec<_> = hands.hold(1, 2).collect();
        assert!(hands.begin_to_park(tickets[0]));
        assert!(hands.empty().now_or_never().is_none(), "its neighbour is handled");
        assert!(hands.begin_to_park(tickets[1]));
        assert!(hands.empty().now_or_never().is_some());
        assert_eq!(hands.count(), 1, "the broker has no answer");
        let next = hands.hold_one(2);
        assert!(hands.empty().now_or_never().is_none());
        assert!(hands.begin_to_park(next));
        assert!(hands.empty().now_or_never().is_some());
    }

    #[test]
    fn an_ack_of_many_covers_nothing_that_is_not_to_be_acked() {
        let mut held = Held::default();
        let hold = |held: &mut Held, tag| {
            held.note(tag);
            held.tags.insert(tag, Parts::new(1));
        };
        [1, 2, 5].into_iter().for_each(|tag| hold(&mut held, tag));
        assert_eq!(held.front(&BTreeSet::from([1, 2, 5])), 2, "3 and 4 are still to come");
        hold(&mut held, 4);
        assert_eq!(held.front(&BTreeSet::from([1, 2, 4, 5])), 2, "3 is still to come");
        held.note(3);
        assert_eq!(held.front(&BTreeSet::from([1, 2, 4, 5])), 4, "3 went back");
        assert_eq!(held.front(&BTreeSet::from([1, 4, 5])), 1, "2 is being worked on");
    }
}
