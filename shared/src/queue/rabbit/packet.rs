//! When what is ready to be published goes out: few large packets cost the broker less than many small ones.
//!
//! What is ready waits until it is as much as what is still on its way, and, where messages come fast, at least sixteen;
//! a message that comes alone goes out alone.

use std::{future::pending, time::Duration, vec::Drain};

use tokio::time::{Instant, sleep_until};

/// What is ready waits so long at most for more, and for confirms of what is on its way: some may never come.
const HOLD: Duration = Duration::from_millis(5);
/// Where messages come fast, so many go out together, unless that takes too long.
const ENOUGH: usize = 16;

pub(super) struct Packet<T> {
    pub(super) ready: Vec<T>,
    held_until: Option<Instant>,
    /// How many went out the last time.
    went_together: usize,
}

impl<T> Packet<T> {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { ready: Vec::with_capacity(capacity), held_until: None, went_together: 0 }
    }

    /// What is ready waits from now on, unless something did already.
    pub(super) fn hold(&mut self, now: Instant) {
        self.held_until.get_or_insert(now + HOLD);
    }

    /// Returns when the first of what is ready has waited long enough; never where nothing is.
    pub(super) fn overdue(&self) -> impl Future<Output = ()> + use<T> {
        let until = self.held_until;
        async move {
            match until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        }
    }

    /// What goes out now: everything, or nothing yet.
    pub(super) fn go(&mut self, on_their_way: usize, now: Instant) -> Drain<'_, T> {
        let enough = if self.went_together > 1 { ENOUGH } else { 1 };
        let full = self.ready.len() >= enough.max(on_their_way);
        if !full && self.held_until.is_none_or(|until| now < until) {
            return self.ready.drain(..0);
        }
        self.went_together = self.ready.len();
        self.held_until = None;
        self.ready.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds so many and says how many go out, with so many on their way, after this time.
    fn added(packet: &mut Packet<()>, count: usize, on_their_way: usize, after: Duration) -> usize {
        let now = Instant::now();
        packet.ready.extend(std::iter::repeat_n((), count));
        packet.hold(now);
        packet.go(on_their_way, now + after).count()
    }

    #[test]
    fn who_comes_alone_goes_alone() {
        let mut packet = Packet::with_capacity(1);
        for _ in 0..3 {
            assert_eq!(added(&mut packet, 1, 0, Duration::ZERO), 1);
        }
    }

    #[test]
    fn who_comes_while_others_are_on_their_way_waits_for_as_many() {
        let mut packet = Packet::with_capacity(1);
        assert_eq!(added(&mut packet, 1, 2, Duration::ZERO), 0);
        assert_eq!(added(&mut packet, 1, 2, Duration::ZERO), 2);
        assert_eq!(added(&mut packet, 10, 64, Duration::ZERO), 0);
        assert_eq!(packet.go(10, Instant::now()).count(), 0, "ten, but they come fast now");
        assert_eq!(added(&mut packet, 6, 16, Duration::ZERO), 16);
    }

    #[test]
    fn nobody_waits_longer_than_the_limit() {
        let mut packet = Packet::with_capacity(1);
        assert_eq!(added(&mut packet, 1, 64, HOLD - Duration::from_nanos(1)), 0);
        packet.hold(Instant::now() + HOLD);
        assert_eq!(packet.go(64, Instant::now() + HOLD).count(), 1, "the wait began with the first");
        assert_eq!(packet.go(64, Instant::now() + HOLD).count(), 0);
    }
}
