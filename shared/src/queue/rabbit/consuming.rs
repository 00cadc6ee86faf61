//! Consuming: a task subscribes to the worker's queues while messages are wanted, and puts what arrives into the inbox.
//!
//! All queues are read over one channel. RabbitMQ counts a prefetch for each subscription (for a whole channel it cannot
//! with quorum queues), so the worker's is divided among them; each has at least one.

use std::sync::{Arc, atomic::Ordering};

use futures_util::{
    future::{BoxFuture, FutureExt, ready, try_join_all},
    stream::{self, BoxStream, FuturesUnordered, SelectAll, StreamExt},
};
use lapin::{
    Channel, Connection,
    message::Delivery as Arrival,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions},
    types::{FieldTable, ShortString},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Broker, End, HANDSHAKE, PULSE, Session,
    alone::Alone,
    bundle,
    consumer::{Inbox, Phase},
    disconnected, news, part,
    settle::Hands,
    shards::Shards,
    silent::{asked, get},
    unavailable, wire,
};
use crate::{
    envelope::Message,
    queue::{Delivery, QueueError, Settle, topology},
};

pub(super) struct Consuming {
    pub(super) hands: Hands,
    pub(super) inbox: Arc<Inbox>,
    pub(super) shards: Shards,
    /// For questions that may hold up a connection.
    pub(super) asking: Arc<Broker>,
    /// For a worker that must be the only one.
    pub(super) alone: Option<Alone>,
    pub(super) prefetch: u16,
    pub(super) stop: CancellationToken,
}

impl Session for Consuming {
    async fn run(&mut self, connection: Connection) -> Option<End> {
        let connection = Arc::new(connection);
        let refused = match &mut self.alone {
            None => None,
            Some(alone) => tokio::select! {
                locked = alone.lock(&connection) => locked.err(),
                () = self.stop.cancelled() => Some(QueueError::Closed),
            },
        };
        if let Some(refused) = refused {
            part(&connection).await;
            return matches!(refused, QueueError::NotAlone).then_some(End::NotAlone);
        }
        let opened = timeout(HANDSHAKE, connection.create_channel()).await;
        if let Ok(Ok(channel)) = &opened {
            self.hands.open(channel.clone());
            self.shards.look_afresh();
            self.inbox.set(|phase| phase.connection.replace(Arc::clone(&connection)).is_none());
            self.consume(&connection, channel).await;
            self.hands.close();
            self.inbox.clear();
            self.inbox.set(|phase| {
                (phase.connection, phase.subscribed) = (None, false);
                true
            });
        }
        part(&connection).await;
        drop(opened);
        None
    }
}

impl Consuming {
    async fn consume(&mut self, connection: &Connection, channel: &Channel) {
        let mut news = news(connection);
        let mut pulse = tokio::time::interval(PULSE);
        let mut phase = self.inbox.phase.subscribe();
        let mut subscription: Option<Subscription> = None;
        let mut questions = FuturesUnordered::<BoxFuture<'static, (String, bool)>>::new();
        while connection.status().connected() && channel.status().connected() {
            let wanted = phase.borrow_and_update().wanted;
            match (wanted, subscription.take()) {
                (true, None) => {
                    // Said before it is so: a pause must wait for the end of what may already have begun.
                    self.inbox.set(|phase| !std::mem::replace(&mut phase.subscribed, true));
                    let Ok(()) = self.one_by_one(connection, channel, &mut phase).await else { return };
                    if !phase.borrow().wanted {
                        let given_back = timeout(HANDSHAKE, self.give_unread_back()).await;
                        let Ok(Ok(())) = given_back else { return };
                        self.inbox.set(|phase| std::mem::replace(&mut phase.subscribed, false));
                        continue;
                    }
                    match timeout(HANDSHAKE, self.subscribe(connection, channel)).await {
                        Ok(Ok(subscribed)) => subscription = Some(subscribed),
                        Ok(Err(error)) => {
                            tracing::warn!(cause = error.to_string(), "cannot consume from RabbitMQ");
                            return;
                        }
                        Err(_) => return,
                    }
                    continue;
                }
                (false, taken) if phase.borrow().subscribed => {
                    if !self.ended(channel, taken).await {
                        return;
                    }
                    self.inbox.set(|phase| std::mem::replace(&mut phase.subscribed, false));
                    continue;
                }
                (_, unchanged) => subscription = unchanged,
            }
            tokio::select! {
                delivery = next(subscription.as_mut()) => {
                    if !self.received(channel, &mut subscription, delivery).await {
                        return;
                    }
                }
                changed = phase.changed() => if changed.is_err() { return },
                _ = news.next() => {}
                Some((queue, answered)) = questions.next() => {
                    self.shards.answered(&queue, answered);
                    if answered && !self.ended(channel, subscription.take()).await {
                        return;
                    }
                }
                _ = pulse.tick() => if subscription.is_some() {
                    if questions.is_empty() && let Some(queue) = self.shards.to_ask() {
                        questions.push(asked(Arc::clone(&self.asking), queue.to_owned()).boxed());
                    }
                    let Ok(Ok(changed)) = timeout(HANDSHAKE, self.shards.look(connection)).await else { return };
                    // Another program made shards that this one does not know, or a person deleted old ones.
                    if changed && !self.ended(channel, subscription.take()).await {
                        return;
                    }
                },
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// What a subscription brought. Whether the session goes on.
    async fn received(
        &self,
        channel: &Channel,
        subscription: &mut Option<Subscription>,
        delivery: Option<lapin::Result<Arrival>>,
    ) -> bool {
        match delivery {
            // Another worker has died over it, or this one's predecessor, of whose end the broker knew too late.
            Some(Ok(delivery)) if goes_back(&delivery) => {
                let cancelled = timeout(HANDSHAKE, self.cancel(channel, subscription.take(), Some(delivery))).await;
                return matches!(cancelled, Ok(Ok(())));
            }
            Some(Ok(delivery)) => {
                self.arrive(delivery);
                return true;
            }
            // A new session subscribes again.
            Some(Err(error)) => tracing::warn!(cause = error.to_string(), "the channel to RabbitMQ is lost"),
            None => tracing::warn!("RabbitMQ cancelled the subscription"),
        }
        false
    }

    fn arrive(&self, delivery: Arrival) {
        let returned = wire::returned(&delivery.properties);
        let messages = bundle::unpack(&delivery.properties, &delivery.data)
            .unwrap_or_else(|| vec![wire::message(&delivery.properties, delivery.data)]);
        let tickets = self.hands.hold(delivery.delivery_tag, messages.len());
        let deliveries =
            messages.into_iter().zip(tickets).map(|(message, ticket)| Delivery { message, returned, ticket });
        self.inbox.put(deliveries, self.hands.count());
    }

    /// What is in a bundle becomes messages of their own.
    async fn take_apart(&self, tag: u64, messages: Vec<Message>) -> Result<(), QueueError> {
        try_join_all(messages.into_iter().map(|message| self.hands.publish(topology::NOTIFY, message))).await?;
        self.hands.ack(&[self.hands.hold_one(tag)]).await
    }

    /// Takes those messages in front of each queue that came back often, and waits for the answer to each before it takes
    /// the next. Whatever a worker holds when it dies counts as delivered once more; so the message over which it dies must
    /// be the only one. The first that did not come back often goes back, which makes it one of them in the end.
    async fn one_by_one(
        &mut self,
        connection: &Connection,
        channel: &Channel,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<(), QueueError> {
        self.inbox.limit.store(1, Ordering::Relaxed);
        let queues: Vec<_> = self.shards.names().into_iter().map(str::to_owned).collect();
        for queue in queues {
            loop {
                let got = get(channel, &queue).await;
                if let Err(error) = &got {
                    self.leave_out(connection, &queue, error).await;
                }
                let got = got?;
                self.shards.answered(&queue, true);
                let Some(delivery) = got else { break };
                if !came_back_often(&delivery) {
                    self.give_back(channel, &delivery).await?;
                    break;
                }
                // Where the broker takes no copies, it is handled as it is: given back, it would come again until the
                // broker gives it up.
                if let Some(messages) = bundle::unpack(&delivery.properties, &delivery.data)
                    && self.take_apart(delivery.delivery_tag, messages).await.is_ok()
                {
                    continue;
                }
                if !self.all_answered(channel, phase).await {
                    return self.give_back(channel, &delivery).await;
                }
                self.arrive(delivery);
                if !self.all_answered(channel, phase).await {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// After this session, which it ended, a queue that cannot be read is left out, unless it is the connection's fault.
    async fn leave_out(&mut self, connection: &Connection, queue: &str, error: &QueueError) {
        if let Ok(Ok(_)) = timeout(PULSE, connection.create_channel()).await {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(queue, cause, "cannot take from a queue; where there are others, it is left out");
            self.shards.leave_out(queue);
        }
    }

    /// Waits until everything that was received has its answer. Not if this worker is to take nothing more before that.
    async fn all_answered(&self, channel: &Channel, phase: &mut watch::Receiver<Phase>) -> bool {
        tokio::select! {
            () = self.hands.empty() => true,
            _ = phase.wait_for(|phase| !phase.wanted) => false,
            () = disconnected(channel) => false,
            () = self.stop.cancelled() => false,
        }
    }

    /// Subscribes to every queue.
    async fn subscribe(&mut self, connection: &Connection, channel: &Channel) -> lapin::Result<Subscription> {
        if self.shards.look(connection).await? {
            tracing::info!(queues = self.shards.names().len(), "takes from the shards of other settings too");
        }
        let queues = self.shards.names();
        let each = (self.prefetch / u16::try_from(queues.len()).unwrap_or(u16::MAX)).max(1);
        self.inbox.limit.store(each.into(), Ordering::Relaxed);
        channel.basic_qos(each, BasicQosOptions::default()).await?;
        let mut subscription = Subscription { tags: Vec::new(), deliveries: SelectAll::new() };
        for queue in queues {
            let options = BasicConsumeOptions::default();
            let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
            subscription.tags.push(consumer.tag());
            // The end of one must be seen, or it would be missing silently among the others.
            subscription.deliveries.push(consumer.map(Some).chain(stream::once(ready(None))).boxed());
        }
        Ok(subscription)
    }

    /// [`Self::unsubscribe`], and whether it came off in time.
    async fn ended(&self, channel: &Channel, subscription: Option<Subscription>) -> bool {
        matches!(timeout(HANDSHAKE, self.unsubscribe(channel, subscription)).await, Ok(Ok(())))
    }

    /// Ends the subscription and gives back what nobody received. The channel stays, for the answers to what was.
    async fn unsubscribe(&self, channel: &Channel, subscription: Option<Subscription>) -> Result<(), QueueError> {
        self.cancel(channel, subscription, None).await?;
        self.give_unread_back().await
    }

    /// Ends the subscription. This delivery and what was on its way behind it has arrived then, but for what came back
    /// often, which goes back, to be taken alone. Only now: while the subscription lasts, it would come again.
    async fn cancel(
        &self,
        channel: &Channel,
        subscription: Option<Subscription>,
        first: Option<Arrival>,
    ) -> Result<(), QueueError> {
        let Some(mut subscription) = subscription else { return Ok(()) };
        for tag in subscription.tags {
            channel.basic_cancel(tag, BasicCancelOptions::default()).await.map_err(unavailable)?;
        }
        let mut behind = Vec::from_iter(first);
        while let Some(Some(arrived)) = subscription.deliveries.next().now_or_never() {
            behind.extend(arrived.and_then(Result::ok));
        }
        for delivery in behind {
            if goes_back(&delivery) {
                // A reject and no nack: from RabbitMQ 4.3 on a nack is not counted, and this must not go on without end.
                channel
                    .basic_reject(delivery.delivery_tag, BasicRejectOptions { requeue: true })
                    .await
                    .map_err(unavailable)?;
                self.hands.pass(delivery.delivery_tag);
            } else {
                self.arrive(delivery);
            }
        }
        Ok(())
    }

    /// Gives back what was not noted, and so has no ticket.
    async fn give_back(&self, channel: &Channel, delivery: &Arrival) -> Result<(), QueueError> {
        let back = BasicNackOptions { multiple: false, requeue: true };
        channel.basic_nack(delivery.delivery_tag, back).await.map_err(unavailable)?;
        self.hands.pass(delivery.delivery_tag);
        Ok(())
    }

    async fn give_unread_back(&self) -> Result<(), QueueError> {
        let unread: Vec<_> = self.inbox.ready().drain(..).collect();
        self.hands.give_back(&unread).await
    }
}

/// The subscriptions to all queues, read as one.
struct Subscription {
    tags: Vec<ShortString>,
    /// `None` where one of them ended.
    deliveries: SelectAll<BoxStream<'static, Option<lapin::Result<Arrival>>>>,
}

fn came_back_often(delivery: &Arrival) -> bool {
    wire::returned(&delivery.properties) >= topology::RETURNED_OFTEN
}

/// Whether a subscribed worker gives it back, to take it alone. Not without end: it may go to one subscribed worker after
/// the other, and each counts as a delivery.
fn goes_back(delivery: &Arrival) -> bool {
    came_back_often(delivery) && wire::returned(&delivery.properties) < 2 * topology::RETURNED_OFTEN
}

/// The next delivery; waits for ever without a subscription.
async fn next(subscription: Option<&mut Subscription>) -> Option<lapin::Result<Arrival>> {
    match subscription {
        Some(subscription) => subscription.deliveries.next().await.flatten(),
        None => std::future::pending().await,
    }
}
