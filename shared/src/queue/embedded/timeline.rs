//! The time by which messages come due: the clock's, except that it never goes back.
//!
//! A clock that is set back by an hour would let a message of the five-second tier wait for an hour. So the time goes on
//! from where it was, as fast as the clock does; set forward, it only makes messages due early.

use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Clock;

pub(super) struct Timeline {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    /// The latest answer.
    last: u64,
    /// How far the clock is behind it.
    behind: u64,
}

impl Timeline {
    /// Unix time in milliseconds, and not before `earliest`.
    pub(super) fn new(clock: Arc<dyn Clock>, earliest: u64) -> Self {
        Self { clock, state: Mutex::new(State { last: earliest, behind: 0 }) }
    }

    /// Unix time in milliseconds, or later.
    pub(super) fn now_millis(&self) -> u64 {
        // Before 1970 nothing was due.
        let clock = u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.behind += state.last.saturating_sub(clock.saturating_add(state.behind));
        state.last = clock.saturating_add(state.behind);
        state.last
    }
}
