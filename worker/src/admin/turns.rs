//! Whose turn it is at the dead letters: they have one reader at a time.
//!
//! Requests of this worker wait for one another in their order, and a long replay makes room for them between two dead
//! letters. Another worker's reader cannot be asked; where it does not end soon, a request is told so. A reading is closed
//! in an orderly way, whatever becomes of the client: it runs in a task of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::{Instant, sleep, timeout},
};
use wxpay_shared::queue::{Delivery, Desk, QueueError};

use crate::Worker;

/// How long a request waits for the others of this worker.
const TURN: Duration = Duration::from_secs(30);
/// How long it then waits for a reader of another worker.
const OTHERS: Duration = Duration::from_secs(3);
/// How often it asks meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A reading that has been going on for so long makes room for whoever waits.
const AT_LEAST: Duration = Duration::from_secs(1);
/// No reading goes on for longer: readers of other workers want to read too, and a broker takes back what is unanswered
/// for half an hour.
const AT_MOST: Duration = Duration::from_secs(20);

/// Between two readings of one request, so that another worker's reader has a chance.
pub(super) const ROOM: Duration = Duration::from_millis(250);

/// Who waits for the dead letters in this worker.
#[derive(Default)]
pub(crate) struct Turns {
    turn: Arc<Mutex<()>>,
    waiting: AtomicUsize,
}

/// One reading; ends with [`Reading::close`].
pub(super) struct Reading {
    worker: Arc<Worker>,
    desk: Box<dyn Desk>,
    since: Instant,
    _turn: OwnedMutexGuard<()>,
}

impl Worker {
    /// Begins a reading of the dead letters, once it is this request's turn.
    pub(super) async fn read_dead_letters(self: &Arc<Self>) -> Result<Reading, QueueError> {
        self.turns.waiting.fetch_add(1, Ordering::Relaxed);
        let turn = timeout(TURN, Arc::clone(&self.turns.turn).lock_owned()).await;
        self.turns.waiting.fetch_sub(1, Ordering::Relaxed);
        let turn = turn.map_err(|_| QueueError::Busy)?;
        let deadline = Instant::now() + OTHERS;
        let desk = loop {
            match self.parts.dead_letters.open().await {
                Err(QueueError::Busy) if Instant::now() < deadline => sleep(ASK_AGAIN).await,
                opened => break opened?,
            }
        };
        Ok(Reading { worker: Arc::clone(self), desk, since: Instant::now(), _turn: turn })
    }
}

impl Reading {
    /// The next dead letter; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Delivery>, QueueError> {
        self.desk.next().await
    }

    pub(super) fn desk(&self) -> &dyn Desk {
        self.desk.as_ref()
    }

    /// Whether somebody else should have the dead letters now.
    pub(super) fn should_make_room(&self) -> bool {
        let age = self.since.elapsed();
        age > AT_MOST || (age > AT_LEAST && self.worker.turns.waiting.load(Ordering::Relaxed) > 0)
    }

    /// What was not settled is a dead letter that the next reader finds.
    pub(super) async fn close(self) {
        self.desk.close().await;
    }
}
