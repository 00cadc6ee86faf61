//! The three shelves on disk, how many messages each has, and how a message moves between them without a moment in which
//! it is on none.
//!
//! A key is the time at which the message is due (0 where it is due at once) and its sequence number, so each shelf is in
//! the order of delivery. Counting a tree takes a walk through it, so that happens once, at the opening. A record that
//! cannot be read is set aside as it is, for a person, and the queue goes on.

use std::{
    ops::Bound,
    sync::atomic::{AtomicU64, Ordering},
};

use sled::{
    IVec, Transactional, Tree,
    transaction::{TransactionError, TransactionalTree},
};

use super::record;
use crate::{
    disk::{Disk, DiskError},
    envelope::Message,
};

/// Where a message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Shelf {
    Ready,
    Retry,
    Dead,
}

/// The order of a shelf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// Unix time in milliseconds; 0 for at once.
    pub(super) due: u64,
    pub(super) sequence: u64,
}

/// A message's exact place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) shelf: Shelf,
    pub(super) key: Key,
}

pub(super) struct Shelves {
    /// Ready, retry, dead, and what could not be read.
    trees: [Tree; 4],
    counts: [AtomicU64; 4],
    next_sequence: AtomicU64,
}

const ASIDE: usize = 3;

impl Shelf {
    const ALL: [Self; 3] = [Self::Ready, Self::Retry, Self::Dead];

    const fn index(self) -> usize {
        match self {
            Self::Ready => 0,
            Self::Retry => 1,
            Self::Dead => 2,
        }
    }
}

impl Key {
    fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.due) << 64) | u128::from(self.sequence)).to_be_bytes()
    }

    /// Keys of another length are none that this program wrote.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (due, sequence) = bytes.split_first_chunk::<8>()?;
        Some(Self { due: u64::from_be_bytes(*due), sequence: u64::from_be_bytes(sequence.try_into().ok()?) })
    }
}

impl Place {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let shelf = u8::try_from(self.shelf.index()).unwrap_or_default();
        [&[shelf][..], &self.key.to_bytes()].concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (shelf, key) = bytes.split_first()?;
        Some(Self { shelf: *Shelf::ALL.get(usize::from(*shelf))?, key: Key::from_bytes(key)? })
    }
}

impl Shelves {
    pub(super) fn open(disk: &Disk) -> Result<Self, DiskError> {
        let names = ["queue.ready", "queue.retry", "queue.dead", "queue.unreadable"];
        let [ready, retry, dead, aside] = names.map(|name| disk.tree(name));
        let trees = [ready?, retry?, dead?, aside?];
        let (mut counts, mut last) = ([0; 4], 0);
        for (tree, count) in trees.iter().zip(&mut counts) {
            for key in tree.iter().keys() {
                let key = key.map_err(|error| DiskError::Failed(error.into()))?;
                last = last.max(Key::from_bytes(&key).unwrap_or_default().sequence);
                *count += 1;
            }
        }
        Ok(Self { trees, counts: counts.map(AtomicU64::new), next_sequence: AtomicU64::new(last + 1) })
    }

    pub(super) fn count(&self, shelf: Shelf) -> u64 {
        self.counts[shelf.index()].load(Ordering::Relaxed)
    }

    /// The last number that was given.
    pub(super) fn last_sequence(&self) -> u64 {
        self.next_sequence.load(Ordering::Acquire) - 1
    }

    /// Adds an encoded message at the end of a shelf. Runs on the database's thread, so that numbers appear in their order
    /// and a reader who has gone past one misses none.
    pub(super) fn add(&self, shelf: Shelf, record: Vec<u8>) -> sled::Result<()> {
        self.tree(shelf).insert(self.next_key(0).to_bytes(), record)?;
        self.counts[shelf.index()].fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Moves a message in one transaction, with its log as it is now; `None` where it was not there. Runs on the database's
    /// thread, for the same reason.
    pub(super) fn relocate(&self, from: Place, shelf: Shelf, due: u64, message: &Message) -> sled::Result<Option<Key>> {
        let (key, record) = (self.next_key(due), record::encode(message));
        let moved = self.transaction(|trees| {
            if trees[from.shelf.index()].remove(&from.key.to_bytes())?.is_none() {
                return Ok(false);
            }
            trees[shelf.index()].insert(&key.to_bytes(), record.as_slice())?;
            Ok(true)
        })?;
        if !moved {
            return Ok(None);
        }
        self.counts[shelf.index()].fetch_add(1, Ordering::Relaxed);
        self.counts[from.shelf.index()].fetch_sub(1, Ordering::Relaxed);
        Ok(Some(key))
    }

    /// Takes a message away for good.
    pub(super) fn remove(&self, place: Place) -> sled::Result<()> {
        if self.tree(place.shelf).remove(place.key.to_bytes())?.is_some() {
            self.counts[place.shelf.index()].fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The message at a place; `None` where none is, or none that can be read.
    pub(super) fn get(&self, place: Place) -> sled::Result<Option<Message>> {
        let Some(bytes) = self.tree(place.shelf).get(place.key.to_bytes())? else { return Ok(None) };
        self.read(place.shelf, place.key.to_bytes().as_slice().into(), &bytes)
    }

    /// The first message of a shelf with a key after `after` and up to `until`.
    pub(super) fn next(&self, shelf: Shelf, after: Key, until: Key) -> sled::Result<Option<(Key, Message)>> {
        let range = (Bound::Excluded(after.to_bytes()), Bound::Included(until.to_bytes()));
        if after >= until {
            return Ok(None);
        }
        for entry in self.tree(shelf).range(range) {
            let (bytes, value) = entry?;
            let key = Key::from_bytes(&bytes);
            if let (Some(key), Some(message)) = (key, self.read(shelf, bytes, &value)?) {
                return Ok(Some((key, message)));
            }
        }
        Ok(None)
    }

    /// When the first message of a shelf after `after` is due.
    pub(super) fn next_due(&self, shelf: Shelf, after: Key) -> sled::Result<Option<u64>> {
        let mut keys = self.tree(shelf).range((Bound::Excluded(after.to_bytes()), Bound::Unbounded)).keys();
        Ok(keys.next().transpose()?.and_then(|key| Key::from_bytes(&key)).map(|key| key.due))
    }

    fn read(&self, shelf: Shelf, key: IVec, bytes: &IVec) -> sled::Result<Option<Message>> {
        match record::decode(bytes) {
            Ok(message) => Ok(Some(message)),
            Err(error) => {
                tracing::error!(%error, ?shelf, ?key, "setting aside a message that cannot be read");
                self.set_aside(shelf, key)?;
                Ok(None)
            }
        }
    }

    fn set_aside(&self, shelf: Shelf, key: IVec) -> sled::Result<()> {
        let number = self.next_key(0).to_bytes();
        let was_there = self.transaction(|trees| {
            let Some(bytes) = trees[shelf.index()].remove(key.clone())? else { return Ok(false) };
            trees[ASIDE].insert(&number, bytes)?;
            Ok(true)
        })?;
        if was_there {
            self.counts[shelf.index()].fetch_sub(1, Ordering::Relaxed);
            self.counts[ASIDE].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn transaction<T>(
        &self,
        job: impl Fn(&Vec<TransactionalTree>) -> sled::transaction::ConflictableTransactionResult<T>,
    ) -> sled::Result<T> {
        self.trees.as_slice().transaction(job).map_err(|error| match error {
            TransactionError::Storage(error) => error,
            TransactionError::Abort(()) => unreachable!("no job of this file aborts"),
        })
    }

    fn next_key(&self, due: u64) -> Key {
        Key { due, sequence: self.next_sequence.fetch_add(1, Ordering::AcqRel) }
    }

    fn tree(&self, shelf: Shelf) -> &Tree {
        &self.trees[shelf.index()]
    }
}
