//! Looking through the retry tiers, for messages that are wanted before their time.
//!
//! The broker cannot search, so a pass takes everything out of a tier and puts back what is not wanted. What is put back
//! keeps the time at which it is due, and its place, for it goes back in its order; until then only its tag is kept. A
//! wanted message is published to the workers, confirmed, and then acked. Whatever ends a pass early, the broker puts
//! back what was not acked.

use std::time::Duration;

use futures_util::{
    future::FutureExt,
    stream::{self, StreamExt},
};
use lapin::{
    Channel, Connection,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::FieldTable,
};
use tokio::time::{Instant, sleep, timeout};

use super::{RESOURCE_LOCKED, RabbitPublisher, code, ready, unavailable, wire};
use crate::{
    envelope::Message,
    queue::{PUBLISH_BUDGET, QueueError, topology},
};

/// Messages whose bodies are in memory at a time, at most.
const CHUNK: u16 = 500;
/// Wanted messages that wait for their confirm at a time, at most.
const ABREAST: usize = 16;
/// How long another worker's release is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// What is on its way within the broker takes no longer.
const GAP: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A whole release takes no longer. Far below the broker's acknowledgement timeout (30 minutes).
const BUDGET: Duration = Duration::from_secs(120);

type Test<'a> = &'a (dyn Fn(&Message) -> bool + Send + Sync);

/// Publishes what is wanted to the workers; how many messages that were.
pub(super) async fn release(
    connection: &Connection,
    parking: &RabbitPublisher,
    tiers: &[String],
    wanted: Test<'_>,
) -> Result<usize, QueueError> {
    parking.connected_within(PUBLISH_BUDGET).await?;
    // Before looking whether anything waits: what another release holds is not counted. The lock is the connection's and
    // would outlive a pass that fails, so it has a channel of its own.
    let guard = lock(connection).await?;
    let passes = async {
        let channel = connection.create_channel().await.map_err(unavailable)?;
        let mut released = 0;
        for tier in tiers {
            released += pass(&channel, parking, tier, wanted).await?;
        }
        channel.close(200, "OK".into()).await.map_err(unavailable)?;
        Ok(released)
    };
    let released = timeout(BUDGET, passes).await.map_err(unavailable).flatten();
    let unlocked = guard.queue_delete(topology::RELEASER.into(), QueueDeleteOptions::default()).await;
    unlocked.map_err(unavailable)?;
    released
}

/// Waits for its turn; the channel on which the lock is to be deleted.
async fn lock(connection: &Connection) -> Result<Channel, QueueError> {
    let started = Instant::now();
    loop {
        let channel = connection.create_channel().await.map_err(unavailable)?;
        let exclusive = QueueDeclareOptions::exclusive();
        match channel.queue_declare(topology::RELEASER.into(), exclusive, FieldTable::default()).await {
            Ok(_) => return Ok(channel),
            Err(error) if code(&error) == Some(RESOURCE_LOCKED) && started.elapsed() < LOCK_PATIENCE => {
                sleep(LOCK_PAUSE).await;
            }
            Err(error) => return Err(unavailable(error)),
        }
    }
}

/// Goes once through a tier.
async fn pass(channel: &Channel, parking: &RabbitPublisher, tier: &str, wanted: Test<'_>) -> Result<usize, QueueError> {
    let (mut released, mut kept) = (0, Vec::new());
    loop {
        // Asked anew each time: the count may have been behind, and a rest that is left would come in front of the others.
        let waiting = ready(channel, tier).await.map_err(unavailable)?;
        if waiting == 0 {
            break;
        }
        let size = u16::try_from(waiting).unwrap_or(CHUNK).min(CHUNK);
        let mut found = Vec::new();
        for delivery in take(channel, tier, size).await.map_err(unavailable)? {
            let message = wire::message(&delivery.properties, delivery.data);
            if wanted(&message) {
                found.push((delivery.delivery_tag, message));
            } else {
                kept.push(delivery.delivery_tag);
            }
        }
        let moves = found.into_iter().map(async |(tag, message)| {
            parking.publish_to(topology::NOTIFY, message).await?;
            channel.basic_ack(tag, BasicAckOptions::default()).await.map_err(unavailable)
        });
        let mut moves = stream::iter(moves).buffer_unordered(ABREAST);
        while let Some(moved) = moves.next().await {
            moved?;
            released += 1;
        }
    }
    // One by one, for the broker returns several at once in no certain order, and a later one in front would hold back
    // those that are due before it.
    for tag in &kept {
        let back = BasicNackOptions { multiple: false, requeue: true };
        channel.basic_nack(*tag, back).await.map_err(unavailable)?;
    }
    all_back(channel, tier, kept.len()).await.map_err(unavailable)?;
    Ok(released)
}

/// Returns when so many messages can be seen in a tier. Those that have come due meanwhile never are.
async fn all_back(channel: &Channel, tier: &str, count: usize) -> lapin::Result<()> {
    let started = Instant::now();
    while started.elapsed() < GAP && ready(channel, tier).await? < u64::try_from(count).unwrap_or(u64::MAX) {
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Takes so many messages from the front of a tier, or what is left of them.
async fn take(channel: &Channel, tier: &str, size: u16) -> lapin::Result<Vec<lapin::message::Delivery>> {
    channel.basic_qos(size, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut deliveries = channel.basic_consume(tier.into(), "".into(), options, FieldTable::default()).await?;
    let mut chunk = Vec::new();
    // The broker puts a message back that is on its way when the subscription ends, so all must have come before.
    while chunk.len() < usize::from(size) {
        match timeout(GAP, deliveries.next()).await {
            Ok(Some(delivery)) => chunk.push(delivery?),
            Ok(None) => break,
            // Some have come due since they were counted.
            Err(_) if ready(channel, tier).await? == 0 => break,
            Err(_) => {}
        }
    }
    channel.basic_cancel(deliveries.tag(), BasicCancelOptions::default()).await?;
    while let Some(Some(delivery)) = deliveries.next().now_or_never() {
        chunk.push(delivery?);
    }
    Ok(chunk)
}
