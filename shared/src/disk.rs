//! A directory with one sled database, and with those that end with their process: the one place that knows sled's traps.
//!
//! All writes run as jobs on one thread, which then makes everything durable at once for all who wait (group commit). So
//! a stalled disk never blocks the async runtime, and transactions need no retry, since no two run at a time.
//!
//! The traps: `flush_async` hangs under concurrent callers, so only the thread flushes. `flush` alone survives a kill but
//! not a power cut, so the thread follows it with `fdatasync` of `<dir>/db`, which holds everything as long as no leaf of
//! a tree outgrows `SEGMENT_BYTES`. After a failed flush or sync nobody can tell what is on disk: sled refuses from
//! then on, Linux forgets the error, so [`Disk`] refuses too until the program opens it again. A kill during the writing
//! of a snapshot leaves a file that sled takes for a damaged database. The lock outlives the last handle by a moment.

use std::{
    error::Error as StdError,
    fs::{DirBuilder, DirEntry, File, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use self::{
    flusher::{Flusher, Job, Task},
    tally::{Gap, Tally},
};

mod flusher;
mod tally;

/// The time that a process which is just going away has to release the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How often the lock is tried meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(20);
/// How soon a failure is told to whoever waits for it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The time after which a job counts as failed; a disk that needs longer is no disk to rely on.
const COMMIT_LIMIT: Duration = Duration::from_secs(30);
/// sled writes what is larger than a quarter of a segment to a file of its own, which it never syncs. A leaf has up to 17
/// records and is written as one, so this keeps records of up to 120 KiB in the log.
const SEGMENT_BYTES: usize = 8 << 20;

/// The directory of databases that end with their process.
const PASSING: &str = "passing";

/// What a database is for: what to do when it is damaged depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Orders, points, accepted notifications: nobody else has them.
    Records,
    /// Only what the store can answer as well.
    Shortcut,
}

impl Holds {
    /// Bytes that sled keeps in memory, as it counts; it takes several times as many. Its default of 1 GiB is a surprise on a
    /// small machine. Of the shortcut only what was told a moment ago is asked for.
    const fn cache_bytes(self) -> u64 {
        match self {
            Self::Records => 128 << 20,
            Self::Shortcut => 1 << 20,
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Records => "restore the directory from a backup; WeChat repeats what is not confirmed meanwhile",
            Self::Shortcut => "delete the directory; it holds nothing that the store does not hold",
        }
    }
}

/// Why a database cannot be opened, or not be closed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it, or another part of this one.
    #[error("{} is in use by another process; only one at a time may use it", .0.display())]
    InUse(PathBuf),
    /// What is in the directory cannot be read.
    #[error("the database in {} is damaged: {}", .path.display(), .holds.advice())]
    Corrupt {
        /// The directory.
        path: PathBuf,
        /// What the advice depends on.
        holds: Holds,
        /// What sled found.
        source: Cause,
    },
    /// The directory cannot be used.
    #[error("cannot use the database directory {}", .0.display())]
    Io(PathBuf, #[source] Cause),
}

/// Why a job is not durable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiskError {
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// A flush failed, now or before. The program must open the database again, best by a restart.
    #[error("the database cannot write to its disk")]
    Failed(#[source] Arc<sled::Error>),
    /// The job did not end in time. It may still take effect.
    #[error("the disk did not answer within {} s", COMMIT_LIMIT.as_secs())]
    Stuck,
    /// The job panicked; what it had written until then may be on disk.
    #[error("a job of the database panicked")]
    Panicked,
    /// Records as an earlier version wrote them. Nothing was changed.
    #[error(
        "data_dir: the {0} in it is an earlier version's, which this one does not read: use that version, or another directory"
    )]
    Earlier(&'static str),
}

type Cause = Box<dyn StdError + Send + Sync>;

/// A handle to an open database; clones share it. It stays open until [`Disk::close`] or until the last handle and the
/// last tree are gone.
#[derive(Clone)]
pub struct Disk {
    db: sled::Db,
    /// Bytes that stay free.
    reserve: u64,
    path: Arc<Path>,
    tasks: Sender<Task>,
    failure: Arc<OnceLock<DiskError>>,
    syncs: Arc<AtomicU64>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl std::fmt::Debug for Disk {
    // sled's own format prints every record.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Disk").field(&self.path).finish()
    }
}

impl Disk {
    /// Opens the database in a directory, making both where they are missing. Waits some seconds for a process that is
    /// just going away.
    ///
    /// # Errors
    /// [`OpenError`]; its text says what a person can do.
    pub async fn open(path: &Path, holds: Holds) -> Result<Self, OpenError> {
        Self::open_within(path, holds, LOCK_PATIENCE).await
    }

    async fn open_within(path: &Path, holds: Holds, patience: Duration) -> Result<Self, OpenError> {
        let deadline = Instant::now() + patience;
        loop {
            let owned = path.to_owned();
            let opened = tokio::task::spawn_blocking(move || open_now(&owned, holds)).await;
            match opened.unwrap_or_else(|panic| Err(OpenError::Io(path.to_owned(), Box::new(panic)))) {
                Err(OpenError::InUse(_)) if Instant::now() < deadline => tokio::time::sleep(LOCK_POLL).await,
                other => return other,
            }
        }
    }

    /// Calls the disk full as soon as fewer than so many bytes are free on it.
    #[must_use]
    pub fn with_reserve(self, bytes: u64) -> Self {
        Self { reserve: bytes, ..self }
    }

    /// Whether there is more room than the reserve. A disk that cannot say counts as full.
    #[must_use]
    pub fn has_room(&self) -> bool {
        free_bytes(&self.path).is_ok_and(|free| free >= self.reserve)
    }

    /// A tree, made where it is missing.
    ///
    /// # Errors
    /// [`DiskError::Failed`].
    pub fn tree(&self, name: &str) -> Result<sled::Tree, DiskError> {
        self.db.open_tree(name).map_err(|error| DiskError::Failed(Arc::new(error)))
    }

    /// An empty database beside this one that nobody will open again: the handle's end removes its files, and where the
    /// process died before, the next opening does.
    ///
    /// # Errors
    /// [`DiskError::Failed`].
    pub fn passing(&self, name: &str) -> Result<sled::Db, DiskError> {
        let place = self.path.join(PASSING);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(sled::Error::from);
        let config = sled::Config::new().path(place.join(name)).temporary(true);
        let opened = made.and_then(|()| config.cache_capacity(Holds::Shortcut.cache_bytes()).open());
        opened.map_err(|error| DiskError::Failed(Arc::new(error)))
    }

    /// Runs a job on the database's thread, alone, and returns what it returned once everything that it wrote is on disk.
    /// Dropping the future does not stop the job.
    ///
    /// # Errors
    /// [`DiskError`]: whether the job's writes last is then unknown.
    pub async fn commit<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, DiskError> {
        self.commit_if_written(move || (job(), true)).await
    }

    /// The same for a job that writes nothing. Where all that the jobs before it wrote is on disk already, nothing is
    /// flushed.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn look<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, DiskError> {
        self.commit_if_written(move || (job(), false)).await
    }

    /// The same for a job that says itself whether it wrote anything.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn commit_if_written<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> (T, bool) + Send + 'static,
    ) -> Result<T, DiskError> {
        self.check()?;
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            let (done, wrote) = match catch_unwind(AssertUnwindSafe(job)) {
                Ok((done, wrote)) => (Ok(done), wrote),
                Err(_) => (Err(DiskError::Panicked), true),
            };
            // Whoever dropped the future does not want the answer.
            (Box::new(move |flushed: Result<(), DiskError>| drop(sender.send(flushed.and(done)))), wrote)
        });
        self.tasks.send(Task::Run(job)).map_err(|_| DiskError::Closed)?;
        match tokio::time::timeout(COMMIT_LIMIT, receiver).await {
            Ok(answer) => answer.unwrap_or(Err(DiskError::Closed)),
            Err(_) => Err(DiskError::Stuck),
        }
    }

    /// Returns once everything written before the call is on disk.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn durable(&self) -> Result<(), DiskError> {
        self.commit(|| ()).await
    }

    /// Runs a job off the async threads and beside the writes; nothing is flushed for it.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, DiskError> {
        self.check()?;
        tokio::task::spawn_blocking(job).await.map_err(|_| DiskError::Panicked)
    }

    /// Whether a job would be tried now.
    ///
    /// # Errors
    /// [`DiskError::Failed`] for ever after a failed flush, [`DiskError::Closed`] after the close.
    pub fn check(&self) -> Result<(), DiskError> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Returns when the database can write no more. Only opening it again helps, best by a restart of the program.
    pub async fn failed(&self) -> DiskError {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            if let Err(error) = self.check() {
                return error;
            }
        }
    }

    /// How often everything was made durable since the opening: fewer than the commits, for those at a time share one.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Bytes that the database and those beside it take, and bytes that are free. Deleted records give theirs back late
    /// or never.
    ///
    /// # Errors
    /// [`DiskError::Failed`].
    pub async fn space(&self) -> Result<(u64, u64), DiskError> {
        let disk = self.clone();
        let look = move || {
            let size = disk.db.size_on_disk()? + bytes_in(&disk.path.join(PASSING))?;
            Ok((size, free_bytes(&disk.path)?))
        };
        self.run(look).await?.map_err(|error: sled::Error| DiskError::Failed(Arc::new(error)))
    }

    /// Finishes the jobs at hand, flushes, ends the thread and releases the lock: when this returns, another process may
    /// open the database. Whatever uses the database must be dropped before.
    ///
    /// # Errors
    /// [`OpenError::InUse`] where something of this process still holds the database after some seconds.
    pub async fn close(self) -> Result<(), OpenError> {
        let path = Arc::clone(&self.path);
        let stopped = tokio::task::spawn_blocking(move || self.stop());
        stopped.await.map_err(|panic| OpenError::Io(path.to_path_buf(), Box::new(panic)))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        while is_locked(&path).map_err(|error| OpenError::Io(path.to_path_buf(), Box::new(error)))? {
            if Instant::now() >= deadline {
                return Err(OpenError::InUse(path.to_path_buf()));
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
        Ok(())
    }

    fn stop(self) {
        // No thread to tell: it was stopped before.
        drop(self.tasks.send(Task::Stop));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the database's thread panicked");
        }
    }
}

fn open_now(path: &Path, holds: Holds) -> Result<Disk, OpenError> {
    let io_error = |error: io::Error| OpenError::Io(path.to_owned(), Box::new(error));
    // Records are personal. An existing directory is its owner's to protect.
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error)?;
    if is_locked(path).map_err(io_error)? {
        return Err(OpenError::InUse(path.to_owned()));
    }
    remove_unfinished_snapshots(path).map_err(io_error)?;
    let length = tally::log_length(path).map_err(io_error)?;
    let config = sled::Config::new().path(path).segment_size(SEGMENT_BYTES).cache_capacity(holds.cache_bytes());
    // sled panics over some kinds of damage.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let db = config.open()?;
        let tally = Tally::open(path, &db, length, holds)?;
        Ok((db, tally))
    }));
    let (db, tally) = match opened {
        Ok(opened) => opened.map_err(|gap| classify(gap, path, holds))?,
        Err(_) => {
            let source = Cause::from("sled panicked while it read the database");
            return Err(OpenError::Corrupt { path: path.to_owned(), holds, source });
        }
    };
    // Not before sled has its lock: they are another process' as long as that runs.
    remove_passing(path).map_err(io_error)?;
    let file = File::open(path.join("db")).map_err(io_error)?;
    if let Err(error) = file.set_permissions(Permissions::from_mode(0o600)) {
        tracing::warn!(%error, path = %path.display(), "cannot keep the database from other users of this machine");
    }
    // The names of new files are durable only once their directory is.
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io_error)?;
    let (tasks, inbox) = mpsc::channel();
    let (failure, syncs) = (Arc::new(OnceLock::new()), Arc::new(AtomicU64::new(0)));
    let flusher = Flusher { db: db.clone(), file, tally, failure: Arc::clone(&failure), syncs: Arc::clone(&syncs) };
    let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(move || flusher.serve(&inbox));
    let thread = Arc::new(Mutex::new(Some(thread.map_err(io_error)?)));
    Ok(Disk { db, reserve: 0, path: path.into(), tasks, failure, syncs, thread })
}

/// What an ordinary user may still write to the disk that holds this path.
fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// What the files in a directory take. What goes meanwhile takes nothing.
fn bytes_in(path: &Path) -> io::Result<u64> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let entries = match std::fs::read_dir(path) {
        Err(error) if gone(&error) => return Ok(0),
        entries => entries?,
    };
    let size = |entry: DirEntry| match entry.metadata() {
        Err(error) if gone(&error) => Ok(0),
        metadata => metadata.and_then(|it| if it.is_dir() { bytes_in(&entry.path()) } else { Ok(it.len()) }),
    };
    entries.map(|entry| entry.and_then(size)).sum()
}

/// Whether anyone has the database open. A database that does not exist yet is free.
fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match File::open(path.join("db")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A snapshot only saves time at the next start; one that was never finished keeps sled from starting at all.
fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(file = %name, "removing a snapshot that a crash left unfinished");
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn remove_passing(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path.join(PASSING)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn classify(gap: Gap, path: &Path, holds: Holds) -> OpenError {
    let path = path.to_owned();
    let error = match gap {
        Gap::Sled(error) => error,
        Gap::Io(error) => return OpenError::Io(path, Box::new(error)),
        Gap::Behind(_) | Gap::Unreadable(_) => return OpenError::Corrupt { path, holds, source: Box::new(gap) },
    };
    match &error {
        sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => OpenError::InUse(path),
        sled::Error::Io(io) if io.kind() != io::ErrorKind::UnexpectedEof => OpenError::Io(path, Box::new(error)),
        sled::Error::Io(_)
        | sled::Error::Corruption { .. }
        | sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_) => OpenError::Corrupt { path, holds, source: Box::new(error) },
    }
}

#[cfg(test)]
mod tests;
