//! Queues that do not answer, and are left out for a while.
//!
//! A quorum queue without a leader answers nothing, and the broker's channel that first asks it for something does nothing
//! else for 65 s: it looks dead, and all other queues with it. So whoever meets such a queue takes a new channel and
//! leaves the queue out, until it may be asked again.

use std::time::Duration;

use tokio::time::Instant;

/// How long a queue is left out before it is asked again.
const LEFT_OUT: Duration = Duration::from_secs(60);

/// The queues that are left out at present.
#[derive(Default)]
pub(super) struct Silent(Vec<(String, Instant)>);

impl Silent {
    /// Leaves a queue out from now on.
    pub(super) fn leave_out(&mut self, queue: &str, now: Instant) {
        self.0.retain(|(known, _)| known != queue);
        self.0.push((queue.to_owned(), now + LEFT_OUT));
    }

    /// Whether a queue is left out.
    pub(super) fn has(&self, queue: &str) -> bool {
        self.0.iter().any(|(known, _)| known == queue)
    }

    /// Takes back those whose time is over; whether there were any.
    pub(super) fn take_back(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|(_, until)| now < *until);
        self.0.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_left_out_until_its_time_is_over() {
        let (mut silent, now) = (Silent::default(), Instant::now());
        silent.leave_out("a", now);
        silent.leave_out("b", now);
        silent.leave_out("a", now + Duration::from_secs(1));
        assert!(silent.has("a") && !silent.has("c"));
        assert!(!silent.take_back(now + LEFT_OUT - Duration::from_nanos(1)));
        assert!(silent.take_back(now + LEFT_OUT));
        assert_eq!((silent.has("a"), silent.has("b")), (true, false));
    }
}
