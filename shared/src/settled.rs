//! The worker's shortcut in front of a store on a server: events that are known to have taken effect, so that a repeat
//! needs no query.
//!
//! It is written after the store's commit and never before: marking earlier would turn a crash into a lost payment. It
//! is not flushed and may be deleted at any time; that costs queries and changes no result. So its own faults are logged
//! and otherwise count as "not known". All calls are short but may touch the disk.
//!
//! A store that was away may have come back without its last commits: another server took its place, or a backup. What the
//! shortcut would then answer for is paid nowhere. So it is forgotten whenever the store was out of sight.
//!
//! It knows a generation of facts and the one before. Each has a database of its own, which goes as a whole: so its size, in
//! memory too, has a limit whatever a shop's traffic is. To remove facts one by one costs sled more than to put them.

use std::sync::{
    PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::digest;

use crate::{disk::Disk, event::EventKey};

/// Facts of one generation. Most of WeChat's repeats come within three hours, and the store answers what is not known any
/// more; sled takes about 30 bytes of memory for each record, however small its cache is.
const GENERATION: usize = 200_000;
/// Generations that are known.
const KNOWN: usize = 2;

/// What stands for a fingerprint: so much of its SHA-256 that sled keeps it without an allocation.
type Digest = [u8; 16];

/// Events that took effect, with their fingerprints.
pub struct Settled {
    generations: RwLock<Generations>,
    /// Facts of one generation.
    size: usize,
    /// Goes last: who opens the directory next must not find a generation that is being removed.
    disk: Disk,
}

#[derive(Default)]
struct Generations {
    /// Those that are known, the newest last.
    known: Vec<sled::Db>,
    /// Facts of the newest.
    facts: AtomicUsize,
    /// How many there were.
    count: u64,
    sight: Sight,
}

/// A time for which the store was in sight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight(u64);

impl Settled {
    /// A shortcut beside an open database. It knows nothing: nobody saw the store since the process before.
    #[must_use]
    pub fn new(disk: Disk) -> Self {
        Self::with_size(disk, GENERATION)
    }

    fn with_size(disk: Disk, size: usize) -> Self {
        Self { generations: RwLock::default(), size, disk }
    }

    /// Since when the store has been in sight: asked before something is written there, and given with it to
    /// [`put_all`](Self::put_all).
    #[must_use]
    pub fn sight(&self) -> Sight {
        self.look().sight
    }

    /// Knows nothing any more, and will know nothing of what was written until now. In a runtime.
    pub fn forget_all(&self) {
        let mut generations = self.change();
        generations.sight.0 += 1;
        let known = std::mem::take(&mut generations.known);
        self.end(known);
    }

    /// Whether the fact that took effect under this key is known here to be the one with this fingerprint.
    #[must_use]
    pub fn knows(&self, key: &EventKey, fingerprint: &str) -> bool {
        let digest = digest_of(fingerprint);
        self.look().known.iter().rev().any(|generation| {
            let value = generation.get(key.as_str()).inspect_err(report).ok().flatten();
            value.is_some_and(|value| *value == digest)
        })
    }

    /// Remembers facts that are durable in the store, unless it was out of sight since; forgets old ones. In a runtime.
    pub fn put_all(&self, sight: Sight, facts: Vec<(EventKey, String)>) {
        if !self.look().has_room(self.size) {
            self.begin_generation();
        }
        let generations = self.look();
        let Some(newest) = generations.known.last().filter(|_| generations.sight == sight) else { return };
        generations.facts.fetch_add(facts.len(), Ordering::Relaxed);
        // Single writes: a batch of sled's is written to the disk at once, twice, which nothing here needs.
        let mut put = facts.iter().map(|(key, fingerprint)| newest.insert(key.as_str(), &digest_of(fingerprint)));
        put.find_map(Result::err).iter().for_each(report);
    }

    fn begin_generation(&self) {
        let mut generations = self.change();
        // Another batch may have been quicker.
        if generations.has_room(self.size) {
            return;
        }
        match self.disk.passing(&format!("settled.{}", generations.count)) {
            Ok(database) => generations.known.push(database),
            Err(error) => return report(&error),
        }
        generations.count += 1;
        generations.facts = AtomicUsize::new(0);
        let old = generations.known.len().saturating_sub(KNOWN);
        self.end(generations.known.drain(..old).collect());
    }

    /// In the background: sled takes some hundredths of a second for it.
    fn end(&self, generations: Vec<sled::Db>) {
        if !generations.is_empty() {
            let disk = self.disk.clone();
            tokio::task::spawn_blocking(move || {
                drop(generations);
                drop(disk);
            });
        }
    }

    fn look(&self) -> RwLockReadGuard<'_, Generations> {
        self.generations.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Generations> {
        self.generations.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn has_room(&self, size: usize) -> bool {
        !self.known.is_empty() && self.facts.load(Ordering::Relaxed) < size
    }
}

fn digest_of(fingerprint: &str) -> Digest {
    let digest = digest::digest(&digest::SHA256, fingerprint.as_bytes());
    *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

fn report(error: &impl std::fmt::Display) {
    tracing::warn!(%error, "the record of settled events is not usable; the store answers instead");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::disk::Holds;

    fn key(n: usize) -> EventKey {
        serde_json::from_str(&format!("\"pay:1900000001:{n:04}\"")).unwrap()
    }

    async fn disk(directory: &TempDir) -> Disk {
        Disk::open(directory.path(), Holds::Shortcut).await.unwrap()
    }

    fn put(settled: &Settled, facts: std::ops::Range<usize>) {
        settled.put_all(settled.sight(), facts.map(|n| (key(n), format!("fact {n}"))).collect());
    }

    fn known(settled: &Settled) -> Vec<usize> {
        (0..100).filter(|n| settled.knows(&key(*n), &format!("fact {n}"))).collect()
    }

    /// Waits until so many generations are on the disk.
    async fn kept(directory: &TempDir, expected: usize) {
        let kept = || std::fs::read_dir(directory.path().join("passing")).map_or(0, Iterator::count);
        let reached = async {
            while kept() != expected {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(30), reached).await;
        assert!(reached.is_ok(), "{} are kept, not {expected}", kept());
    }

    #[tokio::test]
    async fn what_was_put_is_known_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let settled = Settled::new(disk(&directory).await);
        settled.put_all(settled.sight(), vec![(key(1), "shop/A 1999 CNY".to_owned())]);
        assert!(settled.knows(&key(1), "shop/A 1999 CNY"));
        assert!(!settled.knows(&key(1), "shop/A 2000 CNY"));
        assert!(!settled.knows(&key(2), "shop/A 1999 CNY"));
    }

    #[tokio::test]
    async fn the_latest_two_generations_are_known_and_no_more_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let settled = Settled::with_size(disk(&directory).await, 10);
        for n in 0..95 {
            put(&settled, n..n + 1);
            kept(&directory, if n < 10 { 1 } else { 2 }).await;
        }
        assert_eq!(known(&settled), (80..95).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_was_put_before_the_store_was_out_of_sight_is_not_known() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let disk = disk(&directory).await;
            let settled = Settled::with_size(disk.clone(), 10);
            assert!(known(&settled).is_empty());
            put(&settled, round * 5..round * 5 + 5);
            settled.forget_all();
            assert!(known(&settled).is_empty());
            put(&settled, round * 5..round * 5 + 5);
            assert_eq!(known(&settled), (round * 5..round * 5 + 5).collect::<Vec<_>>());
            kept(&directory, 1).await;
            drop(settled);
            disk.close().await.unwrap();
        }
    }

    /// Its commit may be lost although it was answered, and whoever waits for the answer may be slow.
    #[tokio::test]
    async fn what_was_written_before_the_store_was_out_of_sight_is_not_put_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let settled = Settled::new(disk(&directory).await);
        let before = settled.sight();
        settled.forget_all();
        settled.put_all(before, vec![(key(1), "fact 1".to_owned())]);
        assert!(known(&settled).is_empty());
        put(&settled, 1..2);
        assert_eq!(known(&settled), [1]);
    }

    #[tokio::test]
    async fn what_a_process_left_that_died_goes() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join("passing/settled.7");
        std::fs::create_dir_all(&left).unwrap();
        std::fs::write(left.join("db"), "half a database").unwrap();
        let settled = Settled::new(disk(&directory).await);
        put(&settled, 1..2);
        kept(&directory, 1).await;
        assert_eq!(known(&settled), [1]);
    }
}
