//! The applying side: takes notifications from the queue and makes each business event take effect once.
//!
//! The flow is `Worker::handle` and the lines around it: deliver → open → dedup → apply → settle, a file each. A
//! delivery is settled only after what it says is in the store for certain, so a crash anywhere makes a repeat, and a
//! repeat has no effect.

use std::sync::Arc;

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wxpay_shared::{
    clock::Clock,
    config::Config,
    disk::Disk,
    envelope::SealKeys,
    merchant::LiveMerchants,
    queue::{Consumer, DeadLetters, Delivery, Home},
    runtime::FINISH_BUDGET,
    settled::Settled,
    store::{Store, StoreError},
    trace::Handling,
};

pub mod deliver;
pub mod open;
pub mod dedup;
pub mod apply;
pub mod settle;
pub mod gate;
mod observe;
pub mod release;
pub mod admin;
mod console;

use admin::turns::Turns;
use gate::Gate;
use release::Registrations;
use settle::Ending;

/// What a worker works with.
pub struct Parts {
    /// Where notifications come from.
    pub consumer: Arc<dyn Consumer>,
    /// What could not be applied.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Orders and points.
    pub store: Arc<dyn Store>,
    /// The shortcut for repeats; none where the store is in this process.
    pub settled: Option<Settled>,
    /// The directory of the shortcut or of the store.
    pub disk: Disk,
    /// Whose notifications.
    pub merchants: Arc<LiveMerchants>,
    /// How ingress sealed them.
    pub seal: Arc<SealKeys>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// How to work.
    pub settings: Settings,
}

/// How a worker works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name in the history of what it tried.
    pub name: String,
    /// Deliveries in one transaction, at most.
    pub batch: usize,
    /// Batches at the same time, at most.
    pub concurrency: usize,
    /// Failed attempts after which a notification becomes a dead letter.
    pub max_attempts: u32,
    /// The number of retry tiers.
    pub retry_tiers: usize,
}

impl Settings {
    /// As configured. The name tells machine and process apart.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "worker".to_owned());
        Self {
            name: format!("{host}-{}", std::process::id()),
            batch: usize::from(config.worker.batch),
            concurrency: usize::from(config.worker.concurrency),
            max_attempts: config.worker.max_attempts,
            retry_tiers: config.queue.retry_delays.len(),
        }
    }
}

/// Why a worker is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The gate is shut.
    #[error("the store is away")]
    Store,
    /// Nothing would come.
    #[error("the queue is not connected")]
    Queue,
}

/// A worker.
pub struct Worker {
    parts: Parts,
    gate: Gate,
    registrations: Registrations,
    turns: Turns,
}

impl Worker {
    /// A worker of these parts, at rest.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let (registrations, turns) = (Registrations::default(), Turns::default());
        Arc::new(Self { parts, gate: Gate::default(), registrations, turns })
    }

    /// Works until the token fires; then settles what it has in hand, within [`FINISH_BUDGET`].
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let Settings { concurrency, batch, .. } = self.parts.settings;
        let permits = Arc::new(Semaphore::new(concurrency));
        let (tasks, late) = (TaskTracker::new(), CancellationToken::new());
        let work = async {
            // A store that is away at the start must not cost the first deliveries a round.
            if let Err(error) = self.parts.store.ping().await {
                self.gate.close(&error);
            }
            let mut gathered = Instant::now();
            loop {
                let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
                let deliveries = self.deliver(batch, gathered).await;
                gathered = Instant::now() + deliver::GATHER;
                let worker = Arc::clone(&self);
                tasks.spawn(late.clone().run_until_cancelled_owned(async move {
                    let spans = Handling::of(deliveries.iter().map(|delivery| &delivery.message));
                    let parked = spans.during(worker.process(deliveries)).await;
                    // A home that takes nothing holds up what goes there and nothing else. The queue's prefetch bounds it.
                    drop(permit);
                    worker.park_all(parked).await;
                }));
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
            () = Arc::clone(&self).observe() => {}
            () = Arc::clone(&self).release() => {}
        }
        tasks.close();
        let finish = async {
            self.parts.consumer.pause().await;
            tasks.wait().await;
        };
        if timeout(FINISH_BUDGET, finish).await.is_err() {
            tracing::warn!("some deliveries were not settled in time; they will be delivered again");
            late.cancel();
            tasks.wait().await;
        }
    }

    /// Whether it takes deliveries. A disk that is nearly full is no reason: what was accepted must still be applied.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        if !self.gate.is_open() {
            Err(NotReady::Store)
        } else if !self.parts.consumer.connected() {
            Err(NotReady::Queue)
        } else {
            Ok(())
        }
    }

    /// Handles a batch, and acks what is done; the rest is to be parked. If the store is away, the batch goes back untouched.
    async fn process(&self, deliveries: Vec<Delivery>) -> Vec<(Delivery, Home)> {
        match self.fenced(&deliveries).await {
            Ok(endings) => self.settle(deliveries, endings).await,
            Err(error) => {
                self.gate.close(&error);
                self.give_back(deliveries).await
            }
        }
    }

    /// The flow. One ending for each delivery; an error only where the store is away, and then nothing is decided.
    async fn handle(&self, deliveries: &[Delivery]) -> Result<Vec<Ending>, StoreError> {
        let merchants = self.parts.merchants.now();
        let (mut events, mut shares) = (Vec::new(), Vec::with_capacity(deliveries.len()));
        for delivery in deliveries {
            let opened = self.open(&delivery.message, &merchants);
            shares.push((opened.events.len(), opened.rejections));
            events.extend(opened.events);
        }
        let mut answers = self.dedup_and_apply(events).await?.into_iter();

        let ending = |(events, rejections)| Ending::of(rejections, answers.by_ref().take(events));
        Ok(shares.into_iter().map(ending).collect())
    }
}
