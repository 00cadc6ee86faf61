//! The worker's side of consuming: a task (`consuming`) fills an inbox, from which `receive` takes what is ready.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use lapin::Connection;
use secrecy::SecretString;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Broker, End, RabbitPublisher, alone::Alone, consuming::Consuming, release, settle::Hands, shards::Shards,
    supervise, unavailable,
};
use crate::queue::{Consumer, Delivery, Home, QueueError, QueueSettings, Settle, Ticket, Wanted, topology};

/// How long [`RabbitConsumer::close`] and `pause` wait for the broker.
const PATIENCE: Duration = Duration::from_secs(5);

/// The worker side on RabbitMQ, with two connections: one that consumes, and one over which messages are parked.
pub struct RabbitConsumer {
    hands: Hands,
    parking: Arc<RabbitPublisher>,
    tiers: Vec<String>,
    inbox: Arc<Inbox>,
    task: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl RabbitConsumer {
    /// Starts connecting in the background, in the runtime of the caller. Messages are taken from the first `receive` on.
    #[must_use]
    pub fn start(url: SecretString, settings: QueueSettings) -> Self {
        Self::start_with(url, settings, None)
    }

    /// [`RabbitConsumer::start`] for a worker that must be the only one on its broker. Where another one is, and stays,
    /// this one ends as [`QueueError::NotAlone`]; it never takes a message beside it.
    #[must_use]
    pub fn start_alone(url: SecretString, settings: QueueSettings) -> Self {
        Self::start_with(url, settings, Some(Alone::default()))
    }

    fn start_with(url: SecretString, settings: QueueSettings, alone: Option<Alone>) -> Self {
        let parking = RabbitPublisher::start_as(url.clone(), settings.clone(), "parking", None);
        let parking = Arc::new(parking);
        let hands = Hands::new(Arc::clone(&parking), settings.clone());
        let inbox = Arc::new(Inbox::default());
        let stop = CancellationToken::new();
        let mut consuming = Consuming {
            hands: hands.clone(),
            inbox: Arc::clone(&inbox),
            shards: Shards::taken(&settings),
            asking: Arc::new(Broker { url: url.clone(), settings: settings.clone(), role: "asking", frame_max: None }),
            alone,
            prefetch: settings.prefetch.max(1),
            stop: stop.clone(),
        };
        let tiers = settings.retry_delays.iter().copied().map(topology::retry).collect();
        let broker = Broker { url, settings, role: "consumer", frame_max: None };
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let end = supervise(&broker, &stopped, &mut consuming).await;
            consuming.inbox.end(end);
        });
        let _stop_on_drop = stop.clone().drop_guard();
        Self { hands, parking, tiers, inbox, task: Mutex::new(Some(task)), stop, _stop_on_drop }
    }

    /// Returns when this consumer will never work, or never park: when the topology on the broker contradicts ours, the URL
    /// is none, or it must be alone and is not.
    pub async fn fatal(&self) -> QueueError {
        tokio::select! {
            error = self.never_consumes() => error,
            error = self.parking.fatal() => error,
        }
    }

    async fn never_consumes(&self) -> QueueError {
        let mut phase = self.inbox.phase.subscribe();
        let over = phase.wait_for(|phase| phase.end.as_ref().is_some_and(End::is_fatal)).await;
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
            self.inbox.expect(1);
            let ready = self.inbox.take(max.max(1))?;
            if !ready.is_empty() {
                return Ok(ready);
            }
            arrived.await;
        }
    }

    async fn filled(&self, count: usize) {
        loop {
            let arrived = self.inbox.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            self.inbox.expect(count);
            if self.inbox.ready().len() >= count || self.inbox.is_full(self.hands.count()) {
                return;
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
        self.inbox.phase.borrow().connection.is_some()
    }

    async fn release(&self, wanted: Wanted) -> Result<usize, QueueError> {
        let connection = self.inbox.phase.borrow().connection.clone();
        let connection = connection.ok_or_else(|| unavailable("there is no connection"))?;
        release::release(&connection, &self.parking, &self.tiers, &*wanted).await
    }
}

#[async_trait]
impl Settle for RabbitConsumer {
    async fn ack(&self, tickets: &[Ticket]) -> Result<(), QueueError> {
        self.hands.ack(tickets).await
    }

    async fn give_back(&self, deliveries: &[Delivery]) -> Result<(), QueueError> {
        self.hands.give_back(deliveries).await
    }

    async fn park(&self, delivery: &Delivery, home: Home) -> Result<(), QueueError> {
        self.hands.park(delivery, home).await
    }
}

/// What arrived and was not received, and what is wanted of the task.
#[derive(Default)]
pub(super) struct Inbox {
    ready: Mutex<VecDeque<Delivery>>,
    /// As many are there as somebody waits for.
    arrived: Notify,
    /// The least that somebody waits for, so that nobody is woken for each message; all ask again after [`Self::arrived`].
    enough: AtomicUsize,
    /// Messages that the broker delivers before some of them are settled, from one queue at least.
    pub(super) limit: AtomicUsize,
    pub(super) phase: watch::Sender<Phase>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Phase {
    /// While it lives, and is good for consuming.
    pub(super) connection: Option<Arc<Connection>>,
    pub(super) wanted: bool,
    pub(super) subscribed: bool,
    pub(super) end: Option<End>,
}

impl Inbox {
    pub(super) fn ready(&self) -> MutexGuard<'_, VecDeque<Delivery>> {
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

    /// Adds what came in one message. `held` messages have no answer yet, this one included.
    pub(super) fn put(&self, deliveries: impl Iterator<Item = Delivery>, held: usize) {
        let count = {
            let mut ready = self.ready();
            ready.extend(deliveries);
            ready.len()
        };
        if count >= self.enough.load(Ordering::Acquire) || self.is_full(held) {
            self.enough.store(usize::MAX, Ordering::Release);
            self.arrived.notify_waiters();
        }
    }

    /// Whether no more messages come before some of those that are held are settled.
    fn is_full(&self, held: usize) -> bool {
        held >= self.limit.load(Ordering::Relaxed)
    }

    /// From now on [`Self::arrived`] tells when so many are ready.
    fn expect(&self, count: usize) {
        self.enough.fetch_min(count, Ordering::AcqRel);
    }

    pub(super) fn clear(&self) {
        self.ready().clear();
    }

    fn want(&self, wanted: bool) {
        self.set(|phase| std::mem::replace(&mut phase.wanted, wanted) != wanted);
    }

    fn end(&self, end: End) {
        self.set(|phase| phase.end.replace(end).is_none());
        self.arrived.notify_waiters();
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Phase) -> bool) {
        self.phase.send_if_modified(change);
    }
}
