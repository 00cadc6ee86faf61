//! Who holds which message, and where to look for the next one. In memory only: a new process finds every message on its
//! shelf again.
//!
//! Each shelf is read once, by a cursor; what is given back behind the cursor is remembered by its place. So no call walks
//! over messages that others hold.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    super::{Delivery, Ticket},
    shelves::{Key, Place, Shelf, Shelves},
};
use crate::envelope::Message;

#[derive(Default)]
pub(super) struct Hands {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last keys that were looked at.
    ready: Key,
    retry: Key,
    /// Messages behind the cursors that nobody holds, and whether somebody did.
    back: BTreeMap<Place, bool>,
    held: HashMap<Ticket, (Place, bool)>,
    next_tag: u64,
}

impl Hands {
    /// Up to `max` messages for a consumer: first those that came back, then retries that are due, then new ones. Reads
    /// the disk while it holds the lock, so it must run off the async threads.
    pub(super) fn take(&self, shelves: &Shelves, epoch: u64, max: usize, now: u64) -> sled::Result<Vec<Delivery>> {
        let mut state = self.lock();
        let mut taken = Vec::new();
        while taken.len() < max {
            match state.take_one(shelves, epoch, now) {
                Ok(Some(delivery)) => taken.push(delivery),
                Ok(None) => break,
                // The next call meets the error again.
                Err(_) if !taken.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// When the next retry is due.
    pub(super) fn next_due(&self, shelves: &Shelves) -> sled::Result<Option<u64>> {
        shelves.next_due(Shelf::Retry, self.lock().retry)
    }

    /// The messages that wait for a retry and are wanted.
    pub(super) fn waiting(
        &self,
        shelves: &Shelves,
        wanted: &(dyn Fn(&Message) -> bool + Send + Sync),
    ) -> sled::Result<Vec<(Key, Message)>> {
        let mut after = self.lock().retry;
        let mut found = Vec::new();
        while let Some((key, message)) = shelves.next(Shelf::Retry, after, Key { due: u64::MAX, sequence: u64::MAX })? {
            after = key;
            if wanted(&message) {
                found.push((key, message));
            }
        }
        Ok(found)
    }

    /// Makes those of them that still wait ready at once; how many. Nobody can take one meanwhile, since that needs the
    /// lock.
    pub(super) fn release(&self, shelves: &Shelves, found: &[(Key, Message)]) -> sled::Result<usize> {
        let state = self.lock();
        let mut released = 0;
        for (key, message) in found.iter().filter(|(key, _)| *key > state.retry) {
            let place = Place { shelf: Shelf::Retry, key: *key };
            released += usize::from(shelves.relocate(place, Shelf::Ready, 0, message)?.is_some());
        }
        Ok(released)
    }

    /// A message was put on a shelf, maybe behind the cursor (an empty delay, a clock set back). Somebody may have taken it
    /// there already.
    pub(super) fn offer(&self, place: Place) {
        let mut state = self.lock();
        let taken = || state.held.values().any(|(held, _)| *held == place);
        if place.shelf == Shelf::Retry && place.key <= state.retry && !taken() {
            state.back.insert(place, false);
        }
    }

    pub(super) fn place(&self, ticket: Ticket) -> Option<Place> {
        self.lock().held.get(&ticket).map(|(place, _)| *place)
    }

    /// The message behind a ticket left its place.
    pub(super) fn forget(&self, ticket: Ticket) {
        self.lock().held.remove(&ticket);
    }

    /// The message behind a ticket is to be delivered again. `seen` where somebody may have begun with it.
    pub(super) fn give_back(&self, ticket: Ticket, seen: bool) {
        let mut state = self.lock();
        if let Some((place, redelivered)) = state.held.remove(&ticket) {
            state.back.insert(place, redelivered || seen);
        }
    }

    /// Everything that a consumer holds is to be delivered again.
    pub(super) fn give_back_all(&self, epoch: u64) {
        let mut state = self.lock();
        let State { held, back, .. } = &mut *state;
        back.extend(held.extract_if(|ticket, _| ticket.epoch == epoch).map(|(_, (place, _))| (place, true)));
    }

    /// How many messages a consumer holds.
    pub(super) fn held_by(&self, epoch: u64) -> usize {
        self.lock().held.keys().filter(|ticket| ticket.epoch == epoch).count()
    }

    pub(super) fn holds_any(&self) -> bool {
        !self.lock().held.is_empty()
    }

    /// How many messages of a shelf are in someone's hands.
    pub(super) fn count(&self, shelf: Shelf) -> u64 {
        self.lock().held.values().filter(|(place, _)| place.shelf == shelf).map(|_| 1).sum()
    }

    /// Nothing that runs under the lock leaves the state half changed, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_one(&mut self, shelves: &Shelves, epoch: u64, now: u64) -> sled::Result<Option<Delivery>> {
        while let Some((&place, &redelivered)) = self.back.first_key_value() {
            let message = shelves.get(place)?;
            self.back.remove(&place);
            if let Some(message) = message {
                return Ok(Some(self.hand_out(message, place, redelivered, epoch)));
            }
        }
        let due = Key { due: now, sequence: u64::MAX };
        if let Some((key, message)) = shelves.next(Shelf::Retry, self.retry, due)? {
            self.retry = key;
            return Ok(Some(self.hand_out(message, Place { shelf: Shelf::Retry, key }, false, epoch)));
        }
        let all = Key { due: 0, sequence: u64::MAX };
        if let Some((key, message)) = shelves.next(Shelf::Ready, self.ready, all)? {
            self.ready = key;
            return Ok(Some(self.hand_out(message, Place { shelf: Shelf::Ready, key }, false, epoch)));
        }
        Ok(None)
    }

    fn hand_out(&mut self, message: Message, place: Place, redelivered: bool, epoch: u64) -> Delivery {
        self.next_tag += 1;
        let ticket = Ticket { epoch, tag: self.next_tag, part: 0 };
        self.held.insert(ticket, (place, redelivered));
        Delivery { message, returned: redelivered.into(), ticket }
    }
}
