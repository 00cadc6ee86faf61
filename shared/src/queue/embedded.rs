//! The queue's home on sled, for one process: no broker, the same promises.
//!
//! Three shelves hold the messages (`shelves`): ready, waiting for a retry, dead. Publishing and parking are jobs on the
//! database's thread and return once they are on disk. Who holds which message is known only in memory (`hands`), so
//! after a crash every message that was not acknowledged is delivered again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore};

use self::{
    caution::Caution,
    consumer::EmbeddedConsumer,
    desk::EmbeddedDesk,
    hands::Hands,
    notes::Notes,
    shelves::{Place, Shelf, Shelves},
    timeline::Timeline,
};
use super::{
    DeadLetters, Delivery, Depths, Desk, Home, PUBLISH_BUDGET, PublishError, Publisher, QueueError, QueueSettings,
    record,
};
use crate::{
    clock::Clock,
    disk::{Disk, DiskError},
    envelope::Message,
};

mod caution;
pub mod consumer;
mod desk;
mod hands;
mod notes;
mod shelves;
mod timeline;

/// The queue; clones share it. Consumers come from [`EmbeddedQueue::consumer`].
#[derive(Clone)]
pub struct EmbeddedQueue {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Disk,
    settings: QueueSettings,
    timeline: Timeline,
    shelves: Shelves,
    hands: Hands,
    caution: Caution,
    notes: Notes,
    /// Something changed that a waiting consumer should look at.
    changed: Notify,
    in_flight: Arc<Semaphore>,
    desk_taken: AtomicBool,
}

impl EmbeddedQueue {
    /// The queue in an open database. Counts the messages, which takes a moment where many lie.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn open(disk: Disk, settings: QueueSettings, clock: Arc<dyn Clock>) -> Result<Self, DiskError> {
        let opened = disk.run({
            let disk = disk.clone();
            let prefetch = settings.prefetch;
            move || {
                let (shelves, notes) = (Shelves::open(&disk)?, Notes::open(&disk)?);
                let caution = Caution::open(notes.clone(), &shelves, prefetch)?;
                Ok::<_, DiskError>((shelves, notes, caution))
            }
        });
        let (shelves, notes, caution) = opened.await??;
        let in_flight = Arc::new(Semaphore::new(settings.in_flight));
        let (hands, changed, desk_taken) = (Hands::default(), Notify::new(), AtomicBool::new(false));
        // The clock may have been set back while nobody looked: what waits was parked by this time at the latest.
        let latest = notes.time().map_err(|error| DiskError::Failed(Arc::new(error)))?;
        let timeline = Timeline::new(clock, latest);
        let inner = Inner { disk, settings, timeline, shelves, hands, caution, notes, changed, in_flight, desk_taken };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A new consumer. What it holds when it is dropped is delivered again.
    #[must_use]
    pub fn consumer(&self) -> EmbeddedConsumer {
        EmbeddedConsumer::new(Arc::clone(&self.inner))
    }
}

#[async_trait]
impl Publisher for EmbeddedQueue {
    async fn publish(&self, message: Message) -> Result<(), PublishError> {
        self.ready()?;
        let permit = Arc::clone(&self.inner.in_flight).try_acquire_owned().map_err(|_| PublishError::Busy)?;
        // Encoded here, since the database's thread is what everybody waits for.
        let (inner, record) = (Arc::clone(&self.inner), record::encode(&message));
        // sled flushes every 500 ms by itself; without waiting for the commit our SUCCESS could outlive the record. The
        // permit goes with the job: after a timeout the message still lies before the thread, and counts.
        let commit = self.inner.disk.commit(move || {
            let added = inner.shelves.add(Shelf::Ready, record);
            inner.changed.notify_waiters();
            (added, permit)
        });
        match tokio::time::timeout(PUBLISH_BUDGET, commit).await {
            Ok(Ok((Ok(()), _permit))) => Ok(()),
            Ok(Ok((Err(error), _permit))) => {
                tracing::error!(%error, "cannot write a message");
                Err(PublishError::Nacked)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(PublishError::Timeout),
        }
    }

    fn ready(&self) -> Result<(), PublishError> {
        self.inner.disk.check()?;
        if !self.inner.disk.has_room() {
            return Err(PublishError::Full);
        }
        if self.inner.in_flight.available_permits() == 0 { Err(PublishError::Busy) } else { Ok(()) }
    }
}

#[async_trait]
impl DeadLetters for EmbeddedQueue {
    async fn open(&self) -> Result<Box<dyn Desk>, QueueError> {
        self.inner.disk.check()?;
        if self.inner.desk_taken.swap(true, Ordering::AcqRel) {
            return Err(QueueError::Busy);
        }
        // From here on the desk's drop gives the place free again.
        Ok(Box::new(EmbeddedDesk::new(Arc::clone(&self.inner))))
    }

    async fn depths(&self) -> Result<Depths, QueueError> {
        self.inner.disk.check()?;
        Ok(Depths {
            notify: self.inner.waiting(Shelf::Ready),
            retry: self.inner.waiting(Shelf::Retry),
            dead: self.inner.shelves.count(Shelf::Dead),
            tiers: Vec::new(),
            shards: Vec::new(),
        })
    }
}

impl Inner {
    /// How many messages of a shelf nobody holds.
    fn waiting(&self, shelf: Shelf) -> u64 {
        self.shelves.count(shelf).saturating_sub(self.hands.count(shelf))
    }

    /// Moves a delivered message to another home and returns once that is on disk. After an error it is still where it was,
    /// as far as one can know.
    async fn relocate(self: &Arc<Self>, from: Place, delivery: &Delivery, home: Home) -> Result<(), QueueError> {
        let now = self.timeline.now_millis();
        let (shelf, due) = match home {
            Home::Dead => (Shelf::Dead, 0),
            Home::Retry(tier) => {
                let delay = *self.settings.retry_delays.get(tier).ok_or(PublishError::Unroutable)?;
                (Shelf::Retry, now.saturating_add(millis(delay)))
            }
        };
        let (inner, message, ticket) = (Arc::clone(self), delivery.message.clone(), delivery.ticket);
        let moved = self.disk.commit(move || {
            if shelf == Shelf::Retry {
                inner.notes.set_time(now)?;
            }
            let key = inner.shelves.relocate(from, shelf, due, &message)?;
            inner.hands.forget(ticket);
            if let Some(key) = key {
                inner.hands.offer(Place { shelf, key });
            }
            inner.changed.notify_waiters();
            Ok::<_, sled::Error>(key)
        });
        match moved.await?.map_err(unavailable)? {
            Some(_) => Ok(()),
            None => Err(QueueError::Unavailable("the message has left its place already".into())),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Numbers the consumers and desks of this process, so that a ticket means nothing to any but its own.
fn next_epoch() -> u64 {
    static EPOCH: AtomicU64 = AtomicU64::new(1);
    EPOCH.fetch_add(1, Ordering::Relaxed)
}

fn unavailable(error: sled::Error) -> QueueError {
    QueueError::Unavailable(Box::new(error))
}

impl From<DiskError> for QueueError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Closed => Self::Closed,
            DiskError::Failed(_) | DiskError::Stuck | DiskError::Panicked | DiskError::Earlier(_) => {
                Self::Unavailable(Box::new(error))
            }
        }
    }
}

impl From<DiskError> for PublishError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Closed => Self::Closed,
            DiskError::Stuck => Self::Timeout,
            DiskError::Failed(_) | DiskError::Panicked | DiskError::Earlier(_) => Self::Nacked,
        }
    }
}

#[cfg(test)]
mod tests;
