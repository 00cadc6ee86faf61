//! Publishing with confirm: handlers hand their messages to the one task that owns the channel, and wait for its answer.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::{
    Connection, ConnectionStatus, Event,
    types::{FrameSize, ShortString},
};
use secrecy::SecretString;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::{JoinHandle, yield_now},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Broker, End, HANDSHAKE, PULSE, Session, bundle, confirms::Job, lanes::Lanes, news, packet::Packet, part, supervise,
    unavailable,
};
use crate::{
    envelope::Message,
    queue::{PUBLISH_BUDGET, PublishError, Publisher, QueueError, QueueSettings, topology},
};

/// Jobs that are taken in before confirms are looked at again.
const BATCH: usize = 64;
/// The largest frame of what ingress publishes. lapin keeps buffers for 32 frames each way, 8 MiB with the broker's own 128 KiB.
/// A body may take several frames; the headers must fit into one, and only the worker's, with their history, are long.
const FRAME_MAX: FrameSize = 32 * 1024;
/// So long after an unroutable message the topology is declared again. Where a queue is deleted and is there again before the
/// broker has cancelled its consumers, RabbitMQ 3.10 moves them to the new one without a word and delivers nothing to them.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// The ingress side on RabbitMQ. There at once; not connected until the broker is.
pub struct RabbitPublisher {
    link: watch::Receiver<Link>,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
    _stop_on_drop: DropGuard,
}

#[derive(Clone)]
enum Link {
    Down,
    Up { jobs: mpsc::Sender<Job>, status: ConnectionStatus },
    Over(End),
}

impl RabbitPublisher {
    /// Starts connecting in the background, in the runtime of the caller.
    #[must_use]
    pub fn start(url: SecretString, settings: QueueSettings) -> Self {
        Self::start_as(url, settings, "publisher", Some(FRAME_MAX))
    }

    pub(super) fn start_as(
        url: SecretString,
        settings: QueueSettings,
        role: &'static str,
        frame_max: Option<FrameSize>,
    ) -> Self {
        let (state, link) = watch::channel(Link::Down);
        let stop = CancellationToken::new();
        let in_flight = settings.in_flight.clamp(1, Semaphore::MAX_PERMITS);
        let broker = Broker { url, settings, role, frame_max };
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut publishing = Publishing {
                link: state.clone(),
                settings: broker.settings.clone(),
                role,
                in_flight,
                shards: topology::notify(broker.settings.shards).into_iter().map(ShortString::from).collect(),
                turn: AtomicUsize::new(0),
                stop: stopped.clone(),
            };
            let end = supervise(&broker, &stopped, &mut publishing).await;
            state.send_replace(Link::Over(end));
        });
        Self {
            link,
            slots: Arc::new(Semaphore::new(in_flight)),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
            task: Mutex::new(Some(task)),
        }
    }

    /// [`Publisher::publish`] with a routing key of one's own, in a message that is shared with nobody.
    ///
    /// # Errors
    /// As there; [`PublishError::Unroutable`] for a key that leads to no queue.
    pub async fn publish_to(&self, routing_key: &str, message: Message) -> Result<(), PublishError> {
        self.hand_over(Some(routing_key.into()), message).await
    }

    async fn hand_over(&self, routing_key: Option<ShortString>, message: Message) -> Result<(), PublishError> {
        let jobs = self.open()?;
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| PublishError::Busy)?;
        let (answer, answered) = oneshot::channel();
        let job = Job { routing_key, message, answer, slot };
        // There is room for as many as there are slots, so this fails only when the session has just ended.
        jobs.try_send(job).map_err(|_| PublishError::NotConnected)?;
        match timeout(PUBLISH_BUDGET, answered).await {
            Ok(answer) => answer.unwrap_or(Err(PublishError::NotConnected)),
            Err(_) => Err(PublishError::Timeout),
        }
    }

    /// Waits until there is a connection.
    pub(super) async fn connected_within(&self, budget: Duration) -> Result<(), QueueError> {
        let mut link = self.link.clone();
        let waited = timeout(budget, link.wait_for(|link| !matches!(link, Link::Down))).await;
        match waited.map_err(unavailable)?.map_err(unavailable)?.clone() {
            Link::Over(end) => Err(end.error()),
            Link::Up { .. } | Link::Down => Ok(()),
        }
    }

    /// Whether it will never work any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(*self.link.borrow(), Link::Over(_))
    }

    /// Returns when this publisher will never work: when the topology on the broker contradicts ours, or the URL is none.
    /// `publish` answers [`PublishError::NotConnected`] meanwhile.
    pub async fn fatal(&self) -> QueueError {
        let mut link = self.link.clone();
        let over = link.wait_for(|link| matches!(link, Link::Over(end) if end.is_fatal())).await;
        match over.as_deref() {
            Ok(Link::Over(end)) => end.error(),
            Ok(Link::Down | Link::Up { .. }) | Err(_) => std::future::pending().await,
        }
    }

    /// Takes no more, waits for the confirms that are on their way, and closes the connection; a few seconds at most.
    pub async fn close(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            drop(timeout(PUBLISH_BUDGET * 2, task).await);
        }
    }

    fn open(&self) -> Result<mpsc::Sender<Job>, PublishError> {
        if self.stop.is_cancelled() {
            return Err(PublishError::Closed);
        }
        match &*self.link.borrow() {
            // lapin would queue the frames without bound and without an error.
            Link::Up { status, .. } if status.blocked() => Err(PublishError::Blocked),
            Link::Up { jobs, status } if status.connected() => Ok(jobs.clone()),
            Link::Over(End::Closed) => Err(PublishError::Closed),
            Link::Up { .. } | Link::Down | Link::Over(End::BadUrl | End::NotAlone | End::Mismatch { .. }) => {
                Err(PublishError::NotConnected)
            }
        }
    }
}

#[async_trait]
impl Publisher for RabbitPublisher {
    async fn publish(&self, message: Message) -> Result<(), PublishError> {
        self.hand_over(None, message).await
    }

    fn ready(&self) -> Result<(), PublishError> {
        self.open()?;
        if self.slots.available_permits() == 0 { Err(PublishError::Busy) } else { Ok(()) }
    }
}

/// The task's side.
struct Publishing {
    link: watch::Sender<Link>,
    settings: QueueSettings,
    role: &'static str,
    in_flight: usize,
    shards: Vec<ShortString>,
    turn: AtomicUsize,
    stop: CancellationToken,
}

impl Session for Publishing {
    async fn run(&mut self, connection: Connection) -> Option<End> {
        let mut lanes = Lanes::new(&connection, self.role);
        // All at once: where the broker blocks the connection, it opens none later.
        if self.open(&mut lanes).await.is_ok() {
            let (jobs, inbox) = mpsc::channel(self.in_flight);
            self.link.send_replace(Link::Up { jobs, status: connection.status().clone() });
            if let Err(error) = self.publish(&connection, inbox, &mut lanes).await {
                tracing::warn!(role = self.role, %error, "cannot open a channel to RabbitMQ");
            }
            // Whoever still waits gets the answer now: dropping a job's sender means not connected.
            self.link.send_replace(Link::Down);
        }
        part(&connection).await;
        None
    }
}

impl Publishing {
    async fn open(&self, lanes: &mut Lanes<'_>) -> Result<(), QueueError> {
        for shard in &self.shards {
            lanes.open(shard).await?;
        }
        Ok(())
    }

    async fn publish(
        &self,
        connection: &Connection,
        mut inbox: mpsc::Receiver<Job>,
        lanes: &mut Lanes<'_>,
    ) -> Result<(), QueueError> {
        let mut news = news(connection);
        let mut pulse = tokio::time::interval(PULSE);
        let mut packet = Packet::with_capacity(BATCH);
        let mut repairs = FuturesUnordered::new();
        loop {
            let overdue = packet.overdue();
            tokio::select! {
                _ = inbox.recv_many(&mut packet.ready, BATCH) => {
                    packet.hold(Instant::now());
                    // First the handlers that are ready: what they publish goes out in the same packet.
                    yield_now().await;
                    packet.ready.extend(std::iter::from_fn(|| inbox.try_recv().ok()).take(BATCH));
                }
                wave = lanes.wave() => {
                    if let Some(cause) = wave.lost {
                        tracing::warn!(role = self.role, cause, "the channel to RabbitMQ is lost");
                        return Ok(());
                    }
                    if wave.unroutable && repairs.is_empty() {
                        // A queue was deleted under us. The next message finds it again.
                        repairs.push(async {
                            sleep(REPAIR_PAUSE).await;
                            timeout(HANDSHAKE, topology::declare(connection, &self.settings)).await
                        });
                    }
                }
                Some(outcome) = repairs.next() => {
                    if matches!(outcome, Ok(Ok(()))) {
                        tracing::warn!(role = self.role, "a message was unroutable; declared the topology again");
                    } else if !connection.status().blocked() {
                        // Connecting anew declares again, and says what is wrong. What a blocked connection does not answer,
                        // another one would not either.
                        return Ok(());
                    }
                }
                Some(event) = news.next() => self.tell(&event),
                _ = pulse.tick() => lanes.tend(Instant::now()),
                () = overdue => {}
                () = self.stop.cancelled() => {
                    self.send(packet.ready.drain(..), lanes).await?;
                    return timeout(PUBLISH_BUDGET, self.finish(inbox, lanes)).await.unwrap_or(Ok(()));
                }
            }
            if !connection.status().connected() || !lanes.connected() {
                return Ok(());
            }
            self.send(packet.go(lanes.waiting(), Instant::now()), lanes).await?;
        }
    }

    async fn send(&self, jobs: impl Iterator<Item = Job>, lanes: &mut Lanes<'_>) -> Result<(), QueueError> {
        let now = Instant::now();
        for mut bundle in bundle::split(jobs) {
            let queue = bundle[0].routing_key.take().unwrap_or_else(|| self.next_shard(lanes, now));
            lanes.publish(queue, bundle, now).await?;
        }
        Ok(())
    }

    /// Arrival order does not matter, so the shards simply take turns; those that do not answer are passed over.
    fn next_shard(&self, lanes: &Lanes<'_>, now: Instant) -> ShortString {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..self.shards.len()).map(|next| &self.shards[(turn + next) % self.shards.len()]);
        in_turn.min_by_key(|queue| lanes.rank(queue, now)).expect("there is one shard at least").clone()
    }

    async fn finish(&self, mut inbox: mpsc::Receiver<Job>, lanes: &mut Lanes<'_>) -> Result<(), QueueError> {
        inbox.close();
        while let Some(job) = inbox.recv().await {
            self.send(std::iter::once(job), lanes).await?;
        }
        lanes.all_answered().await;
        Ok(())
    }

    fn tell(&self, event: &Event) {
        if let Event::ConnectionBlocked(reason) = event {
            tracing::warn!(role = self.role, reason, "RabbitMQ blocks publishers");
        }
        if let Event::ConnectionUnblocked = event {
            tracing::info!(role = self.role, "RabbitMQ takes publishes again");
        }
    }
}
