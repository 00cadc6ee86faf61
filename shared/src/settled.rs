//! The worker's shortcut in front of a store on a server: events that are known to have taken effect, so that a repeat
//! needs no query.
//!
//! It is written after the store's commit and never before: marking earlier would turn a crash into a lost payment. It
//! is not flushed and may be deleted at any time; that costs queries and changes no result. So its own faults are logged
//! and otherwise count as "not known". All calls are short but may touch the disk.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use jiff::Timestamp;
use sled::{Batch, IVec, Tree};

use crate::{
    disk::{Disk, DiskError},
    event::EventKey,
};

/// What stands for a fingerprint: so much of its SHA-256 that an entry, with its 8 bytes of time, has the 22 bytes that sled
/// keeps without an allocation.
type Digest = [u8; 14];

/// Events that took effect, with their fingerprints.
pub struct Settled {
    tree: Tree,
    /// Where the sweep goes on; a new process begins at the front.
    cursor: Mutex<IVec>,
}

impl Settled {
    /// The shortcut in an open database.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(disk: &Disk) -> Result<Self, DiskError> {
        Ok(Self { tree: disk.tree("settled")?, cursor: Mutex::default() })
    }

    /// Whether the fact that took effect under this key is known here to be the one with this fingerprint.
    #[must_use]
    pub fn knows(&self, key: &EventKey, fingerprint: &str) -> bool {
        let value = self.tree.get(key.as_str()).inspect_err(report).ok().flatten();
        value.is_some_and(|value| value.get(8..) == Some(&digest_of(fingerprint)))
    }

    /// Remembers facts that are durable in the store.
    pub fn put_all(&self, facts: impl IntoIterator<Item = (EventKey, String)>, now: Timestamp) {
        // Not as a batch of sled's: that is written to the disk at once, twice, which nothing here needs.
        for (key, fingerprint) in facts {
            let value = [&now.as_millisecond().to_be_bytes()[..], &digest_of(&fingerprint)].concat();
            if let Err(error) = self.tree.insert(key.as_str(), value) {
                return report(&error);
            }
        }
    }

    /// Looks at up to `max_steps` entries, going on where the last call ended and round again, and forgets those from
    /// before `older_than`. Returns how many it forgot.
    pub fn sweep(&self, older_than: Timestamp, max_steps: usize) -> usize {
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut forgotten, mut steps) = (Batch::default(), 0, 0);
        for entry in self.tree.range(cursor.clone()..).take(max_steps) {
            let (key, value) = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    report(&error);
                    break;
                }
            };
            steps += 1;
            // The smallest key after this one.
            *cursor = [&key[..], &[0]].concat().into();
            if written_at(&value).is_none_or(|at| at < older_than.as_millisecond()) {
                batch.remove(key);
                forgotten += 1;
            }
        }
        if steps < max_steps {
            *cursor = IVec::default();
        }
        self.tree.apply_batch(batch).unwrap_or_else(|error| report(&error));
        forgotten
    }
}

fn digest_of(fingerprint: &str) -> Digest {
    let digest = digest::digest(&digest::SHA256, fingerprint.as_bytes());
    *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

/// `None` for an entry that this program did not write.
fn written_at(value: &[u8]) -> Option<i64> {
    value.first_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes))
}

fn report(error: &sled::Error) {
    tracing::warn!(%error, "the record of settled events is not usable; the store answers instead");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Holds;

    fn key(n: u32) -> EventKey {
        serde_json::from_str(&format!("\"pay:1900000001:{n:04}\"")).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn what_was_put_is_known_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let settled = Settled::open(&Disk::open(directory.path(), Holds::Shortcut).await.unwrap()).unwrap();
        settled.put_all([(key(1), "shop/A 1999 CNY".to_owned())], at(5));
        assert!(settled.knows(&key(1), "shop/A 1999 CNY"));
        assert!(!settled.knows(&key(1), "shop/A 2000 CNY"));
        assert!(!settled.knows(&key(2), "shop/A 1999 CNY"));
    }

    #[tokio::test]
    async fn the_sweep_forgets_what_is_old_in_steps_and_goes_round() {
        let directory = tempfile::tempdir().unwrap();
        let settled = Settled::open(&Disk::open(directory.path(), Holds::Shortcut).await.unwrap()).unwrap();
        for n in 0..10 {
            settled.put_all([(key(n), format!("fact {n}"))], at(if n % 2 == 0 { 100 } else { 200 }));
        }
        let mut forgotten = Vec::new();
        for _ in 0..5 {
            forgotten.push(settled.sweep(at(150), 3));
        }
        assert_eq!(forgotten, [2, 1, 2, 0, 0]);
        assert_eq!(
            (0..10).filter(|n| settled.knows(&key(*n), &format!("fact {n}"))).collect::<Vec<_>>(),
            [1, 3, 5, 7, 9]
        );
        assert_eq!((0..4).map(|_| settled.sweep(at(300), 2)).sum::<usize>(), 5);
    }
}
