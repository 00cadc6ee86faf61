//! A worker's side of the embedded queue.
//!
//! A consumer takes from the shelves what nobody holds, and gives everything back when it is dropped. An acknowledgement
//! is not flushed: if a crash undoes it, the message comes again and the worker's dedup absorbs it.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    super::{Consumer, Delivery, Home, QueueError, Settle, Ticket, Wanted},
    Inner,
    caution::Pace,
    next_epoch,
    shelves::Shelf,
    unavailable,
};

/// The longest wait for a due time: a clock that is set forward is noticed within it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One consumer of an [`EmbeddedQueue`](super::EmbeddedQueue).
pub struct EmbeddedConsumer {
    inner: Arc<Inner>,
    epoch: u64,
}

impl EmbeddedConsumer {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, epoch: next_epoch() }
    }

    /// What can be taken now, and how long nothing else comes due.
    async fn take(&self, max: usize) -> Result<(Taken, Duration), QueueError> {
        let (inner, epoch) = (Arc::clone(&self.inner), self.epoch);
        match inner.caution.pace() {
            Pace::AsManyAsWanted => {}
            _ if inner.hands.holds_any() => return Ok((Taken { inner, deliveries: Vec::new() }, LOOK_AGAIN)),
            Pace::Over => inner.caution.over().map_err(unavailable)?,
            Pace::Alone => return self.take_alone().await,
        }
        let taken = self.inner.disk.run(move || {
            let now = inner.timeline.now_millis();
            let deliveries = inner.hands.take(&inner.shelves, epoch, max, now)?;
            let due = inner.hands.next_due(&inner.shelves)?;
            let wait = due.map_or(LOOK_AGAIN, |due| Duration::from_millis(due.saturating_sub(now)).min(LOOK_AGAIN));
            Ok::<_, sled::Error>((Taken { inner, deliveries }, wait))
        });
        taken.await?.map_err(unavailable)
    }

    /// One message, once its note is on disk.
    async fn take_alone(&self) -> Result<(Taken, Duration), QueueError> {
        let (inner, epoch) = (Arc::clone(&self.inner), self.epoch);
        let taken = self.inner.disk.commit(move || {
            // Another consumer may have been quicker.
            let max = usize::from(!inner.hands.holds_any());
            let deliveries = inner.hands.take(&inner.shelves, epoch, max, inner.timeline.now_millis())?;
            let taken = Taken { inner, deliveries };
            for place in taken.deliveries.iter().filter_map(|delivery| taken.inner.hands.place(delivery.ticket)) {
                taken.inner.caution.note(place)?;
            }
            Ok::<_, sled::Error>((taken, LOOK_AGAIN))
        });
        taken.await?.map_err(unavailable)
    }
}

/// Messages on the way to the caller. If the caller stops waiting, they go back.
struct Taken {
    inner: Arc<Inner>,
    deliveries: Vec<Delivery>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.deliveries.is_empty() {
            return;
        }
        for delivery in &self.deliveries {
            self.inner.hands.give_back(delivery.ticket, false);
        }
        self.inner.changed.notify_waiters();
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.inner.hands.give_back_all(self.epoch);
        self.inner.changed.notify_waiters();
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        loop {
            // Listening begins before looking, so that nothing which comes in between is missed.
            let mut changed = pin!(self.inner.changed.notified());
            changed.as_mut().enable();
            let room = usize::from(self.inner.settings.prefetch).saturating_sub(self.inner.hands.held_by(self.epoch));
            let mut wait = LOOK_AGAIN;
            if room > 0 {
                let (mut taken, until_due) = self.take(max.clamp(1, room)).await?;
                if !taken.deliveries.is_empty() {
                    return Ok(std::mem::take(&mut taken.deliveries));
                }
                wait = until_due;
            }
            // Both ends of the wait mean the same: look again.
            drop(tokio::time::timeout(wait, changed).await);
        }
    }

    async fn filled(&self, count: usize) {
        loop {
            let mut changed = pin!(self.inner.changed.notified());
            changed.as_mut().enable();
            let room = usize::from(self.inner.settings.prefetch).saturating_sub(self.inner.hands.held_by(self.epoch));
            let waits = self.inner.waiting(Shelf::Ready) >= count.min(room) as u64;
            // What is taken alone cannot become more.
            if waits || !matches!(self.inner.caution.pace(), Pace::AsManyAsWanted) {
                return;
            }
            changed.await;
        }
    }

    /// Nothing is ever prefetched here.
    async fn pause(&self) {}

    fn connected(&self) -> bool {
        self.inner.disk.check().is_ok()
    }

    async fn release(&self, wanted: Wanted) -> Result<usize, QueueError> {
        let inner = Arc::clone(&self.inner);
        let found = self.inner.disk.run(move || inner.hands.waiting(&inner.shelves, &*wanted)).await?;
        let found = found.map_err(unavailable)?;
        if found.is_empty() {
            return Ok(0);
        }
        let inner = Arc::clone(&self.inner);
        let released = self.inner.disk.commit(move || {
            let released = inner.hands.release(&inner.shelves, &found);
            inner.changed.notify_waiters();
            released
        });
        released.await?.map_err(unavailable)
    }
}

#[async_trait]
impl Settle for EmbeddedConsumer {
    async fn ack(&self, tickets: &[Ticket]) -> Result<(), QueueError> {
        let (inner, tickets) = (Arc::clone(&self.inner), tickets.to_vec());
        let removed = self.inner.disk.run(move || {
            for ticket in tickets {
                let Some(place) = inner.hands.place(ticket) else { continue };
                inner.shelves.remove(place)?;
                inner.hands.forget(ticket);
            }
            inner.changed.notify_waiters();
            Ok::<_, sled::Error>(())
        });
        removed.await?.map_err(unavailable)
    }

    async fn give_back(&self, deliveries: &[Delivery]) -> Result<(), QueueError> {
        for delivery in deliveries {
            self.inner.hands.give_back(delivery.ticket, true);
        }
        self.inner.changed.notify_waiters();
        Ok(())
    }

    async fn park(&self, delivery: &Delivery, home: Home) -> Result<(), QueueError> {
        // A stale one is delivered again to whoever holds it now, who will answer it.
        let Some(place) = self.inner.hands.place(delivery.ticket) else { return Ok(()) };
        self.inner.relocate(place, delivery, home).await
    }
}
