//! Consuming: a task keeps a subscription alive and fills an inbox, from which `receive` takes what is ready.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{future::FutureExt, stream::StreamExt};
use lapin::{
    Channel, Connection,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use secrecy::SecretString;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Broker, End, HANDSHAKE, PULSE, RabbitPublisher, Session, news, part, settle::Hands, supervise, unavailable, wire,
};
use crate::queue::{Consumer, Delivery, Home, QueueError, QueueSettings, Settle, Ticket, topology};

/// How long [`RabbitConsumer::close`] and `pause` wait for the broker.
const PATIENCE: Duration = Duration::from_secs(5);

/// The worker side on RabbitMQ, with two connections: one that consumes, and one over which messages are parked.
pub struct RabbitConsumer {
    hands: Hands,
    parking: Arc<RabbitPublisher>,
    inbox: Arc<Inbox>,
    task: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl RabbitConsumer {
    /// Starts connecting in the background, in the runtime of the caller. Messages are taken from the first `receive` on.
    #[must_use]
    pub fn start(url: SecretString, settings: QueueSettings) -> Self {
        let parking = RabbitPublisher::start_as(url.clone(), settings.clone(), "parking");
        let parking = Arc::new(parking);
        let hands = Hands::new(Arc::clone(&parking), settings.clone());
        let inbox = Arc::new(Inbox::default());
        let stop = CancellationToken::new();
        let mut consuming = Consuming {
            hands: hands.clone(),
            inbox: Arc::clone(&inbox),
            prefetch: settings.prefetch.max(1),
            stop: stop.clone(),
        };
        let broker = Broker { url, settings, role: "consumer" };
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let end = supervise(&broker, &stopped, &mut consuming).await;
            consuming.inbox.end(end);
        });
        let _stop_on_drop = stop.clone().drop_guard();
        Self { hands, parking, inbox, task: Mutex::new(Some(task)), stop, _stop_on_drop }
    }

    /// Returns when this consumer will never work: when the topology on the broker contradicts ours, or the URL is none.
    /// `receive` answers the same error meanwhile.
    pub async fn fatal(&self) -> QueueError {
        let mut phase = self.inbox.phase.subscribe();
        let over = phase.wait_for(|phase| matches!(phase.end, Some(End::BadUrl | End::Mismatch { .. }))).await;
        match over.as_deref() {
            Ok(Phase { end: Some(end), .. }) => end.error(),
            Ok(_) | Err(_) => std::future::pending().await,
        }
    }

    /// Closes both connections; the broker takes back what was not settled. A few seconds at most.
    pub async fn close(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            drop(timeout(PATIENCE, task).await);
        }
        self.parking.close().await;
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        loop {
            let arrived = self.inbox.arrived.notified();
            tokio::pin!(arrived);
            // Enabled before looking, so that what arrives between the look and the wait is not missed.
            arrived.as_mut().enable();
            let ready = self.inbox.take(max.max(1))?;
            if !ready.is_empty() {
                return Ok(ready);
            }
            arrived.await;
        }
    }

    async fn pause(&self) {
        self.inbox.want(false);
        let mut phase = self.inbox.phase.subscribe();
        let paused = phase.wait_for(|phase| !phase.subscribed || phase.wanted);
        // A broker that does not answer has lost the connection, and takes everything back by itself.
        drop(timeout(PATIENCE, paused).await);
    }

    fn connected(&self) -> bool {
        self.inbox.phase.borrow().connected
    }
}

#[async_trait]
impl Settle for RabbitConsumer {
    async fn ack(&self, tickets: &[Ticket]) -> Result<(), QueueError> {
        self.hands.ack(tickets).await
    }

    async fn give_back(&self, tickets: &[Ticket]) -> Result<(), QueueError> {
        self.hands.give_back(tickets).await
    }

    async fn park(&self, delivery: &Delivery, home: Home) -> Result<(), QueueError> {
        self.hands.park(delivery, home).await
    }
}

/// What arrived and was not received, and what is wanted of the task.
#[derive(Default)]
struct Inbox {
    ready: Mutex<VecDeque<Delivery>>,
    arrived: Notify,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Debug, Default)]
struct Phase {
    connected: bool,
    wanted: bool,
    subscribed: bool,
    end: Option<End>,
}

impl Inbox {
    fn ready(&self) -> MutexGuard<'_, VecDeque<Delivery>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        if let Some(end) = &self.phase.borrow().end {
            return Err(end.error());
        }
        self.want(true);
        let mut ready = self.ready();
        let count = max.min(ready.len());
        Ok(ready.drain(..count).collect())
    }

    fn put(&self, delivery: Delivery) {
        self.ready().push_back(delivery);
        self.arrived.notify_waiters();
    }

    fn clear(&self) {
        self.ready().clear();
    }

    fn want(&self, wanted: bool) {
        self.set(|phase| std::mem::replace(&mut phase.wanted, wanted) != wanted);
    }

    fn end(&self, end: End) {
        self.set(|phase| phase.end.replace(end).is_none());
        self.arrived.notify_waiters();
    }

    fn set(&self, change: impl FnOnce(&mut Phase) -> bool) {
        self.phase.send_if_modified(change);
    }
}

/// The task's side.
struct Consuming {
    hands: Hands,
    inbox: Arc<Inbox>,
    prefetch: u16,
    stop: CancellationToken,
}

impl Session for Consuming {
    async fn run(&mut self, connection: Connection) {
        if let Ok(Ok(channel)) = timeout(HANDSHAKE, self.channel(&connection)).await {
            self.hands.open(channel.clone());
            self.inbox.set(|phase| !std::mem::replace(&mut phase.connected, true));
            self.consume(&connection, &channel).await;
            self.hands.close();
            self.inbox.clear();
            self.inbox.set(|phase| {
                (phase.connected, phase.subscribed) = (false, false);
                true
            });
        }
        part(&connection).await;
    }
}

impl Consuming {
    async fn channel(&self, connection: &Connection) -> lapin::Result<Channel> {
        let channel = connection.create_channel().await?;
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
        Ok(channel)
    }

    async fn consume(&self, connection: &Connection, channel: &Channel) {
        let mut news = news(connection);
        let mut pulse = tokio::time::interval(PULSE);
        let mut phase = self.inbox.phase.subscribe();
        let mut stream: Option<lapin::Consumer> = None;
        while connection.status().connected() && channel.status().connected() {
            let wanted = phase.borrow_and_update().wanted;
            match (wanted, stream.take()) {
                (true, None) => {
                    // Said before it is so: a pause must wait for the end of what may already have begun.
                    self.inbox.set(|phase| !std::mem::replace(&mut phase.subscribed, true));
                    let Ok(Ok(subscription)) = timeout(HANDSHAKE, subscribe(channel)).await else { return };
                    stream = Some(subscription);
                    continue;
                }
                (false, Some(subscription)) => {
                    let Ok(Ok(())) = timeout(HANDSHAKE, self.unsubscribe(channel, subscription)).await else { return };
                    self.inbox.set(|phase| std::mem::replace(&mut phase.subscribed, false));
                    continue;
                }
                (_, unchanged) => stream = unchanged,
            }
            tokio::select! {
                delivery = next(stream.as_mut()) => match delivery {
                    Some(Ok(delivery)) => self.arrive(delivery),
                    // Cancelled by the broker, or the channel is closed: a new session subscribes again.
                    Some(Err(_)) | None => return,
                },
                changed = phase.changed() => if changed.is_err() { return },
                _ = news.next() => {}
                _ = pulse.tick() => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    fn arrive(&self, delivery: lapin::message::Delivery) {
        let ticket = self.hands.hold(delivery.delivery_tag);
        let message = wire::message(&delivery.properties, delivery.data);
        self.inbox.put(Delivery { message, redelivered: delivery.redelivered, ticket });
    }

    /// Ends the subscription and gives back what nobody received. The channel stays, for the answers to what was.
    async fn unsubscribe(&self, channel: &Channel, mut stream: lapin::Consumer) -> Result<(), QueueError> {
        channel.basic_cancel(stream.tag(), BasicCancelOptions::default()).await.map_err(unavailable)?;
        while let Some(Some(Ok(delivery))) = stream.next().now_or_never() {
            self.arrive(delivery);
        }
        let unread: Vec<_> = self.inbox.ready().drain(..).map(|delivery| delivery.ticket).collect();
        self.hands.give_back(&unread).await
    }
}

async fn subscribe(channel: &Channel) -> lapin::Result<lapin::Consumer> {
    let options = BasicConsumeOptions::default();
    channel.basic_consume(topology::NOTIFY.into(), "".into(), options, FieldTable::default()).await
}

/// The next delivery; waits for ever without a subscription.
async fn next(stream: Option<&mut lapin::Consumer>) -> Option<lapin::Result<lapin::message::Delivery>> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}
