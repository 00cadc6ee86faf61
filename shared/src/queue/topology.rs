//! Every name and argument of the RabbitMQ topology, and its declaration. Both programs declare it at every connect;
//! declaring what is there already changes nothing.
//!
//! All queues are durable quorum queues that refuse a publish rather than drop a message, and hand their dead letters on
//! at least once. That the broker moves messages at all (expired in a retry tier, delivered too often) is the exception:
//! workers publish to the next home themselves and wait for the confirm.

use std::time::Duration;

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::{QueueError, QueueSettings};

/// The direct exchange through which everything is published. A queue's routing key is its name.
pub const EXCHANGE: &str = "wxpay";
/// Where notifications wait for a worker while the queue is not split, and at all times what comes back from the retry
/// tiers. It is always declared, and every worker takes from it.
pub const NOTIFY: &str = "wxpay.notify";
/// Where dead letters wait for a developer.
pub const DEAD: &str = "wxpay.notify.dead";
/// Exists while someone reads the dead letters, and belongs to his connection: whoever comes second is told that it is
/// locked. An exclusive consumer would be the obvious lock, but on quorum queues RabbitMQ 3 takes a second one all the same.
pub const READER: &str = "wxpay.notify.dead.reader";
/// Shards into which the queue may be split: each is a queue with a log of its own on the broker.
pub const SHARDS_MAX: u16 = 256;
/// Exists while a worker looks through the retry tiers: a message that one holds could not be seen by another.
pub const RELEASER: &str = "wxpay.notify.retry.releaser";
/// Exists while a worker consumes that tolerates no other, and belongs to the connection on which it does.
pub const ONLY_WORKER: &str = "wxpay.notify.worker";
/// Deliveries without an answer after which the broker itself declares a message dead: workers die while they hold it.
pub const DELIVERY_LIMIT: i64 = 20;
/// From so many on, workers take messages that came back one at a time, so that it is the one over which they die that
/// reaches the limit, and not what they hold beside it.
pub const RETURNED_OFTEN: u32 = 6;
/// From so many on, a message that has to go back through no fault of its own is published anew instead, which counts
/// from zero.
pub const RETURNED_TOO_OFTEN: u32 = 10;

/// RabbitMQ 4 limits a queue to 20 deliveries unless told otherwise, and its word for "no limit" (-1) is refused by
/// version 3. Reading the dead letters counts as a delivery, and so does looking through a retry tier, so they need a limit
/// that nobody reaches.
const NO_DELIVERY_LIMIT: i64 = 1_000_000_000;
const PRECONDITION_FAILED: u16 = 406;

/// The queues over which ingress spreads notifications: `wxpay.notify` alone, or `wxpay.notify.0` and so on.
#[must_use]
pub fn notify(shards: u16) -> Vec<String> {
    if shards <= 1 { vec![NOTIFY.to_owned()] } else { (0..shards).map(shard).collect() }
}

/// The name of the shard with this number.
#[must_use]
pub fn shard(number: u16) -> String {
    format!("{NOTIFY}.{number}")
}

/// The name of the retry tier with this delay: `wxpay.notify.retry.5s`. The delay is part of it because a queue's
/// arguments cannot be changed, so another delay has to be another queue.
#[must_use]
pub fn retry(delay: Duration) -> String {
    format!("{NOTIFY}.retry.{}", self::delay(delay))
}

/// A delay by its largest whole unit: `5s`.
#[must_use]
pub fn delay(delay: Duration) -> String {
    let millis = delay.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let whole = units.iter().find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit));
    let (unit, letter) = whole.copied().unwrap_or((1, "ms"));
    format!("{}{letter}", millis / unit)
}

/// Declares everything on a channel of its own, which it closes.
///
/// # Errors
/// [`QueueError::Mismatch`] names what exists with other arguments: nothing helps but deleting it or using its arguments.
/// Anything else is worth another try.
pub async fn declare(connection: &Connection, settings: &QueueSettings) -> Result<(), QueueError> {
    let mut channel = connection.create_channel().await.map_err(|error| failed("channel", &error))?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(EXCHANGE.into(), ExchangeKind::Direct, durable, FieldTable::default())
        .await
        .map_err(|error| failed(EXCHANGE, &error))?;
    // The retry tiers lead back to this one whatever the number of shards: a queue's arguments cannot be changed.
    queue(&channel, NOTIFY, notifications()).await?;
    for shard in notify(settings.shards).iter().filter(|name| *name != NOTIFY) {
        queue(&channel, shard, notifications()).await?;
    }
    queue(&channel, DEAD, quorum(&[("x-delivery-limit", NO_DELIVERY_LIMIT)])).await?;
    for delay in &settings.retry_delays {
        // One queue a delay, because a TTL is only looked at in front of the queue: an hour's message would hold the
        // five-second one behind it.
        let ttl = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let limited = forwarding(NOTIFY, &[("x-message-ttl", ttl), ("x-delivery-limit", NO_DELIVERY_LIMIT)]);
        let declared = queue(&channel, &retry(*delay), limited).await;
        if let Err(QueueError::Mismatch { .. }) = declared {
            // Tiers of earlier versions have no limit of their own. The refusal closed the channel.
            channel = connection.create_channel().await.map_err(|error| failed("channel", &error))?;
            queue(&channel, &retry(*delay), forwarding(NOTIFY, &[("x-message-ttl", ttl)])).await?;
        }
    }
    channel.close(200, "OK".into()).await.map_err(|error| failed("channel", &error))
}

async fn queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), QueueError> {
    let declared = async {
        channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await?;
        let options = QueueBindOptions::default();
        channel.queue_bind(name.into(), EXCHANGE.into(), name.into(), options, FieldTable::default()).await
    };
    declared.await.map_err(|error| failed(name, &error))
}

fn notifications() -> FieldTable {
    forwarding(DEAD, &[("x-delivery-limit", DELIVERY_LIMIT)])
}

fn quorum(numbers: &[(&str, i64)]) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    for (name, number) in numbers {
        arguments.insert((*name).into(), AMQPValue::LongLongInt(*number));
    }
    arguments
}

/// At-least-once works only together with reject-publish; without it the broker falls back silently to losing messages.
fn forwarding(to: &str, numbers: &[(&str, i64)]) -> FieldTable {
    let mut arguments = quorum(numbers);
    arguments.insert("x-dead-letter-exchange".into(), text(EXCHANGE));
    arguments.insert("x-dead-letter-routing-key".into(), text(to));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn failed(name: &str, error: &lapin::Error) -> QueueError {
    if let ErrorKind::ProtocolError(amqp) = error.kind()
        && amqp.get_id() == PRECONDITION_FAILED
    {
        return QueueError::Mismatch { queue: name.to_owned(), detail: amqp.get_message().to_string() };
    }
    QueueError::Unavailable(Box::new(error.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shard_has_the_name_of_the_queue_that_is_not_split() {
        assert_eq!(notify(1), ["wxpay.notify"]);
        assert_eq!(notify(3), ["wxpay.notify.0", "wxpay.notify.1", "wxpay.notify.2"]);
    }

    #[test]
    fn a_delay_is_named_by_its_largest_whole_unit() {
        let name = |millis| retry(Duration::from_millis(millis));
        assert_eq!(name(250), "wxpay.notify.retry.250ms");
        assert_eq!(name(1_500), "wxpay.notify.retry.1500ms");
        assert_eq!(name(5_000), "wxpay.notify.retry.5s");
        assert_eq!(name(90_000), "wxpay.notify.retry.90s");
        assert_eq!(name(120_000), "wxpay.notify.retry.2m");
        assert_eq!(name(3_600_000), "wxpay.notify.retry.1h");
    }
}
