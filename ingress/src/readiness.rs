//! Whether ingress can make a notification durable now, as far as it can tell.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use wxpay_shared::queue::{PublishError, Publisher};

/// For how long a late confirm or a refusal counts. After that ingress calls itself ready, so that the next notification can
/// tell: one that is not sent any has no other way to find out.
const BAD_COUNTS: Duration = Duration::from_secs(10);

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

/// What the last publish showed, if it was bad, and when.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, NotReady)>>);

impl Readiness {
    /// A publish ended in this way.
    pub(crate) fn published(&self, result: Result<(), PublishError>) {
        match result {
            Ok(()) => self.note(None),
            Err(PublishError::Timeout) => self.note(Some(NotReady::Late)),
            Err(error @ (PublishError::Unroutable | PublishError::Nacked)) => self.note(Some(error.into())),
            // The queue says the others itself, and says when they are over.
            Err(
                PublishError::NotConnected
                | PublishError::Blocked
                | PublishError::Busy
                | PublishError::Full
                | PublishError::Closed,
            ) => {}
        }
    }

    pub(crate) fn check(&self, publisher: &dyn Publisher) -> Result<(), NotReady> {
        publisher.ready()?;
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((since, bad)) if since.elapsed() < BAD_COUNTS => Err(bad),
            Some(_) | None => Ok(()),
        }
    }

    fn note(&self, bad: Option<NotReady>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = bad.map(|bad| (Instant::now(), bad));
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
    async fn a_bad_publish_counts_until_one_is_good_or_it_is_long_ago() {
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
        tokio::time::advance(BAD_COUNTS).await;
        assert_eq!(readiness.check(&queue), Ok(()), "the next notification tells");
        for refused in [PublishError::Nacked, PublishError::Unroutable] {
            readiness.published(Err(refused));
            assert_eq!(readiness.check(&queue), Err(NotReady::Queue(refused)));
            readiness.published(Ok(()));
            assert_eq!(readiness.check(&queue), Ok(()));
        }
        let blocked = PublishError::Blocked;
        assert_eq!(readiness.check(&Says(Err(blocked))), Err(NotReady::Queue(blocked)));
    }
}
