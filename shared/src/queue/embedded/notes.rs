//! What the queue must know of the process before it: the latest time by which it parked, and which message it had in hand
//! alone.

use sled::Tree;

use super::shelves::Place;
use crate::disk::{Disk, DiskError};

const TIME: &str = "time";
const ALONE: &str = "alone";

#[derive(Clone)]
pub(super) struct Notes(Tree);

impl Notes {
    pub(super) fn open(disk: &Disk) -> Result<Self, DiskError> {
        disk.tree("queue.notes").map(Self)
    }

    /// Unix time in milliseconds, 0 where nothing was ever parked.
    pub(super) fn time(&self) -> sled::Result<u64> {
        let bytes = self.0.get(TIME)?;
        Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    pub(super) fn set_time(&self, now: u64) -> sled::Result<()> {
        self.0.insert(TIME, &now.to_be_bytes()).map(drop)
    }

    /// The message that was handed out alone, and how many processes had died over it before.
    pub(super) fn alone(&self) -> sled::Result<Option<(Place, u32)>> {
        let Some(bytes) = self.0.get(ALONE)? else { return Ok(None) };
        let note = bytes.split_last_chunk::<4>();
        Ok(note.and_then(|(place, deaths)| Some((Place::from_bytes(place)?, u32::from_be_bytes(*deaths)))))
    }

    pub(super) fn set_alone(&self, place: Place, deaths: u32) -> sled::Result<()> {
        self.0.insert(ALONE, [place.to_bytes().as_slice(), &deaths.to_be_bytes()].concat()).map(drop)
    }

    /// It has its answer.
    pub(super) fn clear_alone(&self) -> sled::Result<()> {
        self.0.remove(ALONE).map(drop)
    }
}
