//! The database's thread: runs the jobs one by one and makes what a group of them wrote durable at once.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
};

use super::{DiskError, tally::Tally};

/// Jobs that one flush may cover, so that the first of them does not wait for ever.
const GROUP_MAX: usize = 4096;

/// Runs a job; says whether there is something to flush, and returns what tells whoever waits how that went.
pub(super) type Job = Box<dyn FnOnce() -> (Answer, bool) + Send>;
type Answer = Box<dyn FnOnce(Result<(), DiskError>) + Send>;

pub(super) enum Task {
    Run(Job),
    Stop,
}

/// What the thread has.
pub(super) struct Flusher {
    pub(super) db: sled::Db,
    /// sled's log.
    pub(super) file: File,
    pub(super) tally: Tally,
    pub(super) failure: Arc<OnceLock<DiskError>>,
    pub(super) syncs: Arc<AtomicU64>,
}

impl Flusher {
    /// Runs jobs until it is told to stop or nobody can send one any more.
    pub(super) fn serve(mut self, inbox: &Receiver<Task>) {
        let mut open = true;
        while open {
            let Ok(first) = inbox.recv() else { break };
            let (mut answers, mut wrote) = (Vec::new(), false);
            for task in std::iter::once(first).chain(inbox.try_iter()).take(GROUP_MAX) {
                match task {
                    Task::Run(job) => {
                        let (answer, written) = job();
                        answers.push(answer);
                        wrote |= written;
                    }
                    Task::Stop => open = false,
                }
            }
            let flushed = if wrote { self.flush() } else { self.check() };
            for answer in answers {
                answer(flushed.clone());
            }
        }
        if let Err(error) = self.flush() {
            tracing::error!(%error, "the last flush failed");
        }
        // A commit that comes later is told so by the closed channel.
    }

    fn check(&self) -> Result<(), DiskError> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.check()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let written = catch_unwind(AssertUnwindSafe(|| self.write_out())).map_err(|_| DiskError::Panicked);
        let written = written.and_then(|written| written.map_err(|error| DiskError::Failed(Arc::new(error))));
        written.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "nothing is confirmed until a restart");
            self.failure.get_or_init(|| error).clone()
        })
    }

    fn write_out(&mut self) -> sled::Result<()> {
        self.tally.count()?;
        self.db.flush()?;
        self.file.sync_data()?;
        Ok(self.tally.note(&self.file)?)
    }
}
