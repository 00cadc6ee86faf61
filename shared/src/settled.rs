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
//! It knows a generation of facts and the one before; older ones go as new ones come. So its size, in memory too, has a
//! limit whatever a shop's traffic is. A key is a mark, the generation and the event's key.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use aws_lc_rs::digest;
use sled::{IVec, Tree};

use crate::{
    disk::{Disk, DiskError},
    event::EventKey,
};

/// Facts of one generation. Most of WeChat's repeats come within three hours, and the store answers what is not known any
/// more; sled takes about 30 bytes of memory for each record, however small its cache is.
const GENERATION: usize = 200_000;
/// Old facts that go for each new one: more than come.
const FORGOTTEN_FOR_EACH: usize = 2;
/// So many generations on, none that holds a fact is known.
const FORGETS_ALL: u32 = 2;
/// Sorts before the keys of earlier versions, which began with a letter.
const MARK: u8 = 0;

/// What stands for a fingerprint: so much of its SHA-256 that sled keeps it without an allocation.
type Digest = [u8; 16];

/// Events that took effect, with their fingerprints.
pub struct Settled {
    tree: Tree,
    /// The newest generation.
    newest: AtomicU32,
    /// Its facts. Held while facts are put: two that forget at the same time would take the same old ones, so fewer than come.
    facts: Mutex<usize>,
    /// Facts of one generation.
    size: usize,
}

impl Settled {
    /// The shortcut in an open database. It knows nothing: nobody saw the store since the process before.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(disk: &Disk) -> Result<Self, DiskError> {
        Self::open_with(disk, GENERATION)
    }

    fn open_with(disk: &Disk, size: usize) -> Result<Self, DiskError> {
        let tree = disk.tree("settled")?;
        let last = tree.range(..[MARK + 1]).next_back().transpose().unwrap_or_else(|error| {
            report(&error);
            None
        });
        let number = last.and_then(|(key, _)| number_in(&key)).map_or(0, |number| number.saturating_add(FORGETS_ALL));
        Ok(Self { tree, newest: AtomicU32::new(number), facts: Mutex::default(), size })
    }

    /// Knows nothing any more.
    pub fn forget_all(&self) {
        *self.held() = 0;
        self.newest.fetch_add(FORGETS_ALL, Ordering::Relaxed);
    }

    /// Whether the fact that took effect under this key is known here to be the one with this fingerprint.
    #[must_use]
    pub fn knows(&self, key: &EventKey, fingerprint: &str) -> bool {
        let newest = self.newest.load(Ordering::Relaxed);
        let (digest, known) = (digest_of(fingerprint), newest.saturating_sub(1)..=newest);
        known.rev().any(|number| {
            let value = self.tree.get(name(number, key)).inspect_err(report).ok().flatten();
            value.is_some_and(|value| *value == digest)
        })
    }

    /// Remembers facts that are durable in the store, and forgets old ones.
    pub fn put_all(&self, facts: Vec<(EventKey, String)>) {
        let mut held = self.held();
        if *held >= self.size {
            *held = 0;
            self.newest.fetch_add(1, Ordering::Relaxed);
        }
        *held += facts.len();
        let (newest, forgotten) = (self.newest.load(Ordering::Relaxed), facts.len() * FORGOTTEN_FOR_EACH);
        let written = self.put(facts, newest).and_then(|()| self.forget(newest, forgotten));
        written.unwrap_or_else(|error| report(&error));
    }

    fn held(&self) -> MutexGuard<'_, usize> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Single writes, here and below: a batch of sled's is written to the disk at once, twice, which nothing here needs.
    fn put(&self, facts: Vec<(EventKey, String)>, number: u32) -> sled::Result<()> {
        for (key, fingerprint) in facts {
            self.tree.insert(name(number, &key), &digest_of(&fingerprint))?;
        }
        Ok(())
    }

    /// Removes facts from before the last two generations.
    fn forget(&self, newest: u32, most: usize) -> sled::Result<()> {
        let old = self.tree.range(..start(newest.saturating_sub(1))).chain(self.tree.range([MARK + 1]..));
        for entry in old.take(most) {
            self.tree.remove(entry?.0)?;
        }
        Ok(())
    }
}

fn digest_of(fingerprint: &str) -> Digest {
    let digest = digest::digest(&digest::SHA256, fingerprint.as_bytes());
    *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

/// What the keys of a generation begin with.
fn start(number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [MARK, a, b, c, d]
}

fn name(number: u32, key: &EventKey) -> IVec {
    [&start(number)[..], key.as_str().as_bytes()].concat().into()
}

fn number_in(name: &[u8]) -> Option<u32> {
    name.get(1..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn report(error: &sled::Error) {
    tracing::warn!(%error, "the record of settled events is not usable; the store answers instead");
}

#[cfg(test)]
mod tests {
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
        settled.put_all(facts.map(|n| (key(n), format!("fact {n}"))).collect());
    }

    fn known(settled: &Settled) -> Vec<usize> {
        (0..100).filter(|n| settled.knows(&key(*n), &format!("fact {n}"))).collect()
    }

    #[tokio::test]
    async fn what_was_put_is_known_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let settled = Settled::open(&disk(&directory).await).unwrap();
        settled.put_all(vec![(key(1), "shop/A 1999 CNY".to_owned())]);
        assert!(settled.knows(&key(1), "shop/A 1999 CNY"));
        assert!(!settled.knows(&key(1), "shop/A 2000 CNY"));
        assert!(!settled.knows(&key(2), "shop/A 1999 CNY"));
    }

    #[tokio::test]
    async fn the_latest_two_generations_are_known_and_no_more_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let settled = Settled::open_with(&disk(&directory).await, 10).unwrap();
        let mut most = 0;
        for n in 0..95 {
            put(&settled, n..n + 1);
            most = most.max(settled.tree.len());
        }
        assert_eq!(known(&settled), (80..95).collect::<Vec<_>>());
        assert_eq!((settled.tree.len(), most), (15, 20));
    }

    #[tokio::test]
    async fn what_was_put_before_the_store_was_out_of_sight_is_not_known() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let disk = disk(&directory).await;
            let settled = Settled::open_with(&disk, 10).unwrap();
            assert!(known(&settled).is_empty());
            put(&settled, round * 5..round * 5 + 5);
            settled.forget_all();
            assert!(known(&settled).is_empty());
            put(&settled, round * 5..round * 5 + 5);
            assert_eq!(known(&settled), (round * 5..round * 5 + 5).collect::<Vec<_>>());
            assert!(settled.tree.len() <= 10, "what is not known goes");
            drop(settled);
            disk.close().await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_an_earlier_version_kept_goes() {
        let directory = tempfile::tempdir().unwrap();
        let disk = disk(&directory).await;
        disk.tree("settled").unwrap().insert(key(1).as_str(), &[0; 22]).unwrap();
        let settled = Settled::open_with(&disk, 10).unwrap();
        put(&settled, 1..2);
        assert_eq!((settled.tree.len(), known(&settled)), (1, vec![1]));
    }
}
