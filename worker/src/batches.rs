//! How many batches are in hand at the same time, and when the next one is taken.
//!
//! A transaction costs the store about as much for one event as for ten. So while a batch is in hand, the next one gathers
//! until that has ended, and batches grow with the load by themselves. A worker at rest takes what comes at once, and one
//! with a full queue before it never waits: both have nothing to gain.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// The longest wait for a batch in hand; one that hangs in the store must not hold up the others.
const GATHER: Duration = Duration::from_millis(5);

/// The batches of one worker.
pub(crate) struct Batches {
    most: usize,
    permits: Arc<Semaphore>,
    ended: Arc<Notify>,
}

/// A batch in hand. It ends when this is dropped.
pub(crate) struct Batch {
    _permit: OwnedSemaphorePermit,
    ended: Arc<Notify>,
}

impl Batches {
    /// At most so many at the same time.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, permits: Arc::new(Semaphore::new(most)), ended: Arc::new(Notify::new()) }
    }

    /// Returns when the next batch may be taken. `more_waits` where the last one was full: then this one will be as well.
    pub(crate) async fn begin(&self, more_waits: bool) -> Batch {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        // Listening begins before looking, so that an end in between is not missed.
        let ended = self.ended.notified();
        let others = self.most - self.permits.available_permits() - 1;
        if others > 0 && !more_waits {
            // Both ends of the wait mean the same.
            drop(timeout(GATHER, ended).await);
        }
        Batch { _permit: permit, ended: Arc::clone(&self.ended) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_at_rest_and_one_with_a_full_queue_never_wait() {
        let batches = Batches::new(2);
        let first = batches.begin(false).now_or_never().expect("nothing is in hand");
        let second = batches.begin(true).now_or_never().expect("more waits");
        assert!(batches.begin(true).now_or_never().is_none(), "two are in hand");
        drop((first, second));
        batches.begin(false).now_or_never().expect("nothing is in hand");
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_batch_is_in_hand_the_next_one_gathers_until_its_end() {
        let (batches, begun) = (Batches::new(4), Instant::now());
        let first = batches.begin(false).await;
        let end = async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(batches.begin(false), end);
        assert_eq!(begun.elapsed(), Duration::from_millis(2));
        batches.begin(false).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(2) + GATHER, "one that hangs holds up nobody for long");
        drop(second);
    }
}
