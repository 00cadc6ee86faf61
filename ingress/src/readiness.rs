//! Whether ingress can make a notification durable now, as far as it can tell.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use wxpay_shared::queue::{PublishError, Publisher};

/// For how long a late confirm counts. After that ingress calls itself ready, so that the next notification can tell: one
/// that is not sent any has no other way to find out.
const LATE_COUNTS: Duration = Duration::from_secs(10);

/// Why ingress should get no notifications at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReady {
    /// A publish would fail at once.
    #[error("{0}")]
    Queue(#[from] PublishError),
    /// The last confirm that was waited for did not come in time.
    #[error("the queue's confirms are late")]
    Late,
}

/// What the last publishes showed.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<Instant>>);

impl Readiness {
    /// A publish ended in this way.
    pub(crate) fn published(&self, result: Result<(), PublishError>) {
        match result {
            Ok(()) => self.late_since(None),
            Err(PublishError::Timeout) => self.late_since(Some(Instant::now())),
            // The queue says the others itself, and says when they are over.
            Err(
                PublishError::NotConnected
                | PublishError::Blocked
                | PublishError::Busy
                | PublishError::Full
                | PublishError::Unroutable
                | PublishError::Nacked
                | PublishError::Closed,
            ) => {}
        }
    }

    pub(crate) fn check(&self, publisher: &dyn Publisher) -> Result<(), NotReady> {
        publisher.ready()?;
        let late = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if late.is_some_and(|late| late.elapsed() < LATE_COUNTS) { Err(NotReady::Late) } else { Ok(()) }
    }

    fn late_since(&self, moment: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use wxpay_shared::envelope::Message;

    use super::*;

    struct Says(Result<(), PublishError>);

    #[async_trait]
    impl Publisher for Says {
        async fn publish(&self, _: Message) -> Result<(), PublishError> {
            self.0
        }

        fn ready(&self) -> Result<(), PublishError> {
            self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_confirm_counts_until_one_is_in_time_or_it_is_long_ago() {
        let readiness = Readiness::default();
        let queue = Says(Ok(()));
        assert_eq!(readiness.check(&queue), Ok(()));
        readiness.published(Err(PublishError::Timeout));
        assert_eq!(readiness.check(&queue), Err(NotReady::Late));
        readiness.published(Err(PublishError::Busy));
        assert_eq!(readiness.check(&queue), Err(NotReady::Late));
        readiness.published(Ok(()));
        assert_eq!(readiness.check(&queue), Ok(()));
        readiness.published(Err(PublishError::Timeout));
        tokio::time::advance(LATE_COUNTS).await;
        assert_eq!(readiness.check(&queue), Ok(()), "the next notification tells");
        let blocked = PublishError::Blocked;
        assert_eq!(readiness.check(&Says(Err(blocked))), Err(NotReady::Queue(blocked)));
    }
}
