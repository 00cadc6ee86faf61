//! RabbitMQ without our programs: the bare publishers that ingress is held against, and filling and emptying the queue.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, sleep_until};
use wxpay_shared::{
    envelope::Message,
    queue::{
        DeadLetters as _, Publisher,
        rabbit::{RabbitDeadLetters, RabbitPublisher},
        topology,
    },
    reason::{Reason, Rejection},
};

use super::{load::microseconds, notices::Orders, stage::Stage, summary::per_second};

/// Messages that are put into the queue at a time, before a worker is measured.
const FILLERS: usize = 1000;

/// A connection, for whoever wants nothing else of the broker.
pub(super) async fn connect(url: &SecretString) -> Result<Connection> {
    Connection::connect(url.expose_secret(), ConnectionProperties::default()).await.context("RabbitMQ")
}

/// What the bare publisher did.
pub(super) struct Bare {
    /// Confirms a second in the measured time.
    pub(super) rate: u64,
    /// Confirms in all.
    pub(super) confirmed: u64,
}

/// Publishes without HTTP and without proofs: persistent messages with mandatory and confirm on one channel, always `depth` in flight;
/// each publish is polled at once and never awaited alone, which is the fastest that the client library can.
pub(super) async fn bare_publisher(
    stage: &Stage,
    messages: &[Message],
    depth: usize,
    measured: Duration,
) -> Result<Bare> {
    let (connection, channel) = confirming(stage).await?;
    let wire: Vec<_> = messages.iter().map(|message| (properties(message), &message.body)).collect();
    let mut publishes = wire.iter().cycle();
    let mut in_flight = FuturesUnordered::new();
    let begin = Instant::now() + stage.effort.warm_up;
    let end = begin + measured;
    let (mut confirmed, mut counted) = (0, 0);
    loop {
        while in_flight.len() < depth {
            let (properties, body) = publishes.next().context("no message")?;
            in_flight.push(publish(&channel, properties.clone(), body));
        }
        in_flight.next().await.context("nothing in flight")??;
        confirmed += 1;
        let now = Instant::now();
        if now >= end {
            break;
        }
        counted += u64::from(now >= begin);
    }
    while let Some(outcome) = in_flight.next().await {
        outcome?;
        confirmed += 1;
    }
    connection.close(200, "OK".into()).await?;
    Ok(Bare { rate: per_second(counted, measured), confirmed })
}

/// The time to the confirm when so many messages a second are published, whether earlier ones were confirmed or not; from
/// the moment at which each was due.
pub(super) async fn bare_open_loop(
    stage: &Stage,
    messages: &[Message],
    rate: u64,
    measured: Duration,
) -> Result<Histogram<u64>> {
    let (connection, channel) = confirming(stage).await?;
    let wire: Vec<_> = messages.iter().map(|message| (properties(message), &message.body)).collect();
    let mut publishes = wire.iter().cycle();
    let mut in_flight = FuturesUnordered::new();
    let begin = Instant::now() + stage.effort.warm_up;
    let end = begin + measured;
    let started = Instant::now();
    let due = |number: u64| started + Duration::from_nanos(number * 1_000_000_000 / rate.max(1));
    let (mut number, mut latency) = (0, microseconds());
    loop {
        while due(number) <= Instant::now() && due(number) < end {
            let (properties, body) = publishes.next().context("no message")?;
            let (channel, properties, due) = (&channel, properties.clone(), due(number));
            in_flight.push(async move { publish(channel, properties, body).await.map(|()| (due, Instant::now())) });
            number += 1;
        }
        tokio::select! {
            Some(confirmed) = in_flight.next() => {
                let (due, now) = confirmed?;
                if due >= begin {
                    latency.saturating_record(u64::try_from((now - due).as_micros()).unwrap_or(u64::MAX));
                }
            }
            () = sleep_until(due(number)), if due(number) < end => {}
            else => break,
        }
    }
    connection.close(200, "OK".into()).await?;
    Ok(latency)
}

/// A connection, on which the queue has been declared, and a channel with confirms.
async fn confirming(stage: &Stage) -> Result<(Connection, Channel)> {
    let connection = connect(&stage.broker()?.url).await?;
    topology::declare(&connection, &stage.config.queue_settings()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

async fn publish(channel: &Channel, properties: BasicProperties, body: &[u8]) -> Result<()> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let exchange = topology::EXCHANGE.into();
    let confirm = channel.basic_publish(exchange, topology::NOTIFY.into(), options, body, properties).await?;
    match confirm.await? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(_) | Confirmation::NotRequested => bail!("not confirmed"),
    }
}

/// The same bytes as ingress sends.
fn properties(message: &Message) -> BasicProperties {
    let text = |value: &str| AMQPValue::LongString(value.as_bytes().into());
    let headers = message.headers.iter().map(|(name, value)| (ShortString::from(name.as_str()), text(value)));
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("text/xml".into())
        .with_message_id(message.id.as_str().into())
        .with_correlation_id("1".into())
        .with_headers(FieldTable::from(headers.collect::<BTreeMap<_, _>>()))
}

/// Empties the queue.
pub(super) async fn purge(stage: &Stage) -> Result<()> {
    purge_queue(stage, topology::NOTIFY).await
}

/// Empties the dead letters.
pub(super) async fn purge_dead(stage: &Stage) -> Result<()> {
    purge_queue(stage, topology::DEAD).await
}

async fn purge_queue(stage: &Stage, queue: &str) -> Result<()> {
    let connection = connect(&stage.broker()?.url).await?;
    topology::declare(&connection, &stage.config.queue_settings()).await?;
    let channel = connection.create_channel().await?;
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
    Ok(connection.close(200, "OK".into()).await?)
}

/// Refuses a broker on which our queue is in use: the benchmark empties it.
pub(super) async fn must_be_unused(url: &SecretString) -> Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    // Where the queue is not there, nobody uses it.
    let Ok(queue) = channel.queue_declare(topology::NOTIFY.into(), passive, FieldTable::default()).await else {
        return Ok(());
    };
    if queue.message_count() > 0 || queue.consumer_count() > 0 {
        bail!(
            "--url: {} is in use there, and the benchmark empties it: give a virtual host of its own",
            topology::NOTIFY
        );
    }
    Ok(connection.close(200, "OK".into()).await?)
}

/// Puts the payments of these orders into the queue, as ingress does.
pub(super) async fn fill(stage: &Stage, orders: &Orders) -> Result<()> {
    let publisher = RabbitPublisher::start(stage.broker()?.url.clone(), stage.config.queue_settings());
    wxpay_servers::wait_until("the publisher is connected", Duration::from_secs(30), async || {
        publisher.ready().is_ok()
    })
    .await;
    publish_all(stage, orders, &publisher).await?;
    publisher.close().await;
    Ok(())
}

/// Publishes the payments of these orders.
pub(super) async fn publish_all(stage: &Stage, orders: &Orders, publisher: &impl Publisher) -> Result<()> {
    let publishes =
        stream::iter(orders.numbers.clone()).map(|number| publisher.publish(stage.play.message(orders, number)));
    let mut publishes = pin!(publishes.buffer_unordered(FILLERS));
    while publishes.try_next().await?.is_some() {}
    Ok(())
}

/// Puts the payments of these orders among the dead letters, as a worker does.
pub(super) async fn fill_dead(stage: &Stage, orders: &Orders) -> Result<()> {
    let letters = RabbitDeadLetters::new(stage.broker()?.url.clone(), stage.config.queue_settings());
    let desk = letters.open().await?;
    let rejection = Rejection::new(Reason::AmountMismatch, "order 1 fen, paid 2 fen");
    let parked = stream::iter(orders.numbers.clone()).map(|number| {
        let mut message = stage.play.message(orders, number);
        message.log.rejection = Some(rejection.clone());
        desk.add(message)
    });
    let added = parked.buffer_unordered(FILLERS).try_for_each(async |()| Ok(())).await;
    desk.close().await;
    letters.close().await;
    Ok(added?)
}
