//! The steps that the tests of the suite are made of.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use tokio::time::timeout;
use wxpay_shared::{
    envelope::{Attempt, Log, Message},
    ids::NotificationId,
    queue::{Consumer, Delivery, Desk, Home as Where, QueueSettings, Settle},
    reason::{Reason, Rejection},
};

use super::{HOUR, Home, LATER, LONG, PATIENCE, SHORT};
use crate::harness::wait_until;

/// How every home is opened.
pub(crate) fn settings() -> QueueSettings {
    QueueSettings {
        prefetch: 8,
        in_flight: 64,
        retry_delays: vec![SHORT, LONG, LATER, HOUR],
        shards: 1,
        taken_shards: Vec::new(),
    }
}

/// A message with a number, and with everything in it that a wire could damage.
pub(crate) fn message(number: usize) -> Message {
    let headers = [("wxpay-version", "1"), ("wxpay-merchant", "shop"), ("wxpay-seal", "00ff"), ("note", "退款 ✓")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let body = [b"\0\xff\r\n<xml>".as_slice(), number.to_string().as_bytes(), &[7; 3_000]].concat();
    let id = format!("{number:08x}");
    Message::received(Some(&id), BTreeMap::from(headers), Bytes::from(body), Log::default())
}

pub(crate) fn failed(message: &Message) -> Message {
    let mut message = message.clone();
    message.log.attempts += 1;
    message.log.note(Attempt {
        at: Timestamp::from_second(1_700_000_000).unwrap(),
        worker: "worker-1".to_owned(),
        error: "连接 refused".to_owned(),
    });
    message
}

pub(crate) fn rejected(message: &Message) -> Message {
    let mut message = failed(message);
    message.log.rejection = Some(Rejection::new(Reason::AmountMismatch, "order 1999 fen, paid 1 fen"));
    message.log.replays = 3;
    message
}

/// Receives until so many have come.
pub(crate) async fn take(consumer: &dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let missing = count - taken.len();
        let received = timeout(PATIENCE, consumer.receive(missing)).await;
        let received = received.unwrap_or_else(|_| panic!("{missing} of {count} messages did not come"));
        taken.extend(received.unwrap());
    }
    taken
}

pub(crate) async fn ack(hands: &(impl Settle + ?Sized), deliveries: &[Delivery]) {
    let tickets: Vec<_> = deliveries.iter().map(|delivery| delivery.ticket).collect();
    hands.ack(&tickets).await.unwrap();
}

pub(crate) async fn publish(home: &dyn Home, numbers: Range<usize>) {
    let publisher = home.publisher().await;
    let abreast = if home.at_once() { settings().in_flight } else { 1 };
    let publishes = stream::iter(numbers).map(|number| publisher.publish(message(number)));
    publishes.buffered(abreast).for_each(async |answer| answer.unwrap()).await;
}

/// Receives so many messages and parks each in this tier, as failed; their ids in the order of parking.
pub(crate) async fn park_all(consumer: &dyn Consumer, count: usize, tier: usize) -> Vec<NotificationId> {
    let mut parked = Vec::new();
    while parked.len() < count {
        let delivery = take(consumer, 1).await.remove(0);
        let changed = failed(&delivery.message);
        parked.push(changed.id.clone());
        park(consumer, delivery, changed, Where::Retry(tier)).await;
    }
    parked
}

/// Moves a delivery on with another log, as a worker or a developer does.
pub(crate) async fn park(hands: &(impl Settle + ?Sized), delivery: Delivery, changed: Message, home: Where) {
    hands.park(&Delivery { message: changed, ..delivery }, home).await.unwrap();
}

/// Receives messages and makes dead letters of them.
pub(crate) async fn bury(home: &dyn Home, numbers: Range<usize>) {
    let count = numbers.len();
    publish(home, numbers).await;
    let consumer = home.consumer().await;
    for delivery in take(&*consumer, count).await {
        let changed = rejected(&delivery.message);
        park(&*consumer, delivery, changed, Where::Dead).await;
    }
}

pub(crate) async fn read(desk: &mut dyn Desk) -> Vec<Delivery> {
    let mut letters = Vec::new();
    while let Some(letter) = desk.next().await.unwrap() {
        letters.push(letter);
    }
    letters
}

pub(crate) fn messages(deliveries: &[Delivery]) -> Vec<Message> {
    let mut messages: Vec<_> = deliveries.iter().map(|delivery| delivery.message.clone()).collect();
    messages.sort_by(|a, b| a.id.cmp(&b.id));
    messages
}

pub(crate) async fn depth_of_dead(home: &dyn Home, expected: u64) {
    let letters = home.dead_letters().await;
    wait_until("so many dead letters", PATIENCE, || async { letters.depths().await.unwrap().dead == expected }).await;
}
