//! A message that ends the process each time it is handled must become a dead letter, and its neighbours must get through.
//!
//! Nobody knows which message a process had in hand when it died. So the first ones that lie there at the opening are handed
//! out alone, each under a note that is on disk before; whatever note is found at an opening names a message over which the
//! process died. Each such death is behind at least one answer that was made durable by the next note, so every start gets
//! further, until that message is found or gone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    notes::Notes,
    shelves::{Place, Shelf, Shelves},
};
use crate::{
    disk::DiskError,
    reason::{Reason, Rejection},
};

/// Processes that may die over a message that they had in hand alone. Each of them took ingress with it, so these are few.
const DEATHS_MAX: u32 = 3;

pub(super) struct Caution {
    notes: Notes,
    state: Mutex<State>,
}

struct State {
    /// So many messages are still to be handed out alone.
    left: u64,
    /// One was, and its note stands.
    noted: bool,
    /// Over this one so many processes have died.
    suspect: Option<(Place, u32)>,
}

/// How the next messages may be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    AsManyAsWanted,
    /// One, as soon as nothing else is out.
    Alone,
    /// As many as wanted, as soon as the last one that was alone has its answer.
    Over,
}

impl Caution {
    /// Looks who died before, and over what. `handed_out` messages could be in hand at a time.
    pub(super) fn open(notes: Notes, shelves: &Shelves, handed_out: u16) -> Result<Self, DiskError> {
        let suspect = notes.alone().and_then(|note| match note {
            Some((place, deaths)) => Self::judge(&notes, shelves, place, deaths + 1),
            None => Ok(None),
        });
        let suspect = suspect.map_err(|error| DiskError::Failed(error.into()))?;
        let left = (shelves.count(Shelf::Ready) + shelves.count(Shelf::Retry)).min(handed_out.into());
        Ok(Self { notes, state: Mutex::new(State { left, noted: false, suspect }) })
    }

    fn judge(notes: &Notes, shelves: &Shelves, place: Place, deaths: u32) -> sled::Result<Option<(Place, u32)>> {
        let Some(mut message) = shelves.get(place)? else {
            // Its number may be given again.
            notes.clear_alone()?;
            return Ok(None);
        };
        if deaths < DEATHS_MAX {
            return Ok(Some((place, deaths)));
        }
        tracing::error!(notification = %message.id, deaths, "a message ended the process each time: a dead letter");
        let detail = format!("{deaths} processes ended while they had it in hand alone");
        message.log.rejection = Some(Rejection::new(Reason::DeliveryLimit, detail));
        shelves.relocate(place, Shelf::Dead, 0, &message)?;
        notes.clear_alone()?;
        Ok(None)
    }

    pub(super) fn pace(&self) -> Pace {
        let State { left, noted, .. } = *self.state();
        match (left, noted) {
            (0, false) => Pace::AsManyAsWanted,
            (0, true) => Pace::Over,
            _ => Pace::Alone,
        }
    }

    /// Notes that this message is handed out alone; it may be when the note is on disk.
    pub(super) fn note(&self, place: Place) -> sled::Result<()> {
        let mut state = self.state();
        (state.left, state.noted) = (state.left.saturating_sub(1), true);
        let deaths = state.suspect.filter(|(suspect, _)| *suspect == place).map_or(0, |(_, deaths)| deaths);
        self.notes.set_alone(place, deaths)
    }

    /// The last one has its answer.
    pub(super) fn over(&self) -> sled::Result<()> {
        self.state().noted = false;
        self.notes.clear_alone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
