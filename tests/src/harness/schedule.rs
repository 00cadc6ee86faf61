//! Which fault comes when: a function of the seed alone.

use super::{faults::Fault, rig::Home};

/// An endless row of faults. Each kind comes once before any comes again, so that a short soak has many kinds.
pub(crate) struct Schedule {
    random: fastrand::Rng,
    all: Vec<Fault>,
    ahead: Vec<Fault>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, home: Home) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), all: Fault::all(home), ahead: Vec::new() }
    }

    pub(crate) fn next(&mut self) -> Fault {
        if self.ahead.is_empty() {
            self.ahead = self.all.clone();
            self.random.shuffle(&mut self.ahead);
        }
        self.ahead.pop().expect("there are faults")
    }
}
