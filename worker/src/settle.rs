//! Step 5: each delivery gets its ending: ack, a retry tier, or a dead letter.
//!
//! The only place that decides where a message goes. Parking confirms the next home before it leaves the old one; an
//! ack is sent after everything that had to be durable is.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};
use futures_util::future::join_all;
use tokio::time::sleep;
use wxpay_shared::{
    envelope::{Attempt, Log},
    metric,
    queue::{Delivery, Home, PublishError, QueueError, Settle, topology},
    reason::Rejection,
    store::Applied,
    trace,
};

use crate::{Settings, Worker};

/// How long parking is tried before the delivery is given back. It is held meanwhile, so this stays far below the
/// broker's acknowledgement timeout (30 minutes).
const PARK_PATIENCE: Duration = Duration::from_secs(300);

/// How a delivery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It took effect.
    Applied,
    /// It had taken effect before.
    Duplicate,
    /// It is authentic and changes nothing.
    Ignored,
    /// It may succeed later; what stands in its dead letter if it never does.
    Retry(Rejection),
    /// A person must look at it.
    Dead(Rejection),
}

impl Ending {
    /// The ending of a delivery of which a part was rejected before the store saw it, if so, and the others got these
    /// answers: the worst of them. The others took effect, and repeating them with the worst one has no effect.
    pub(crate) fn of(rejection: Option<Rejection>, answers: impl Iterator<Item = Result<Applied, Rejection>>) -> Self {
        let unread = rejection.map_or(Self::Ignored, Self::Dead);
        answers.fold(unread, |worst, answer| {
            let ending = match answer {
                Ok(Applied::Fresh { .. }) => Self::Applied,
                Ok(Applied::Duplicate) => Self::Duplicate,
                Ok(Applied::Waiting(rejection)) | Err(rejection) => Self::Retry(rejection),
                Ok(Applied::Rejected(rejection)) => Self::Dead(rejection),
            };
            if ending.weight() > worst.weight() { ending } else { worst }
        })
    }

    /// The least weight of what did not end well.
    const RETRY: u8 = 3;

    const fn weight(&self) -> u8 {
        match self {
            Self::Ignored => 0,
            Self::Duplicate => 1,
            Self::Applied => 2,
            Self::Retry(_) => Self::RETRY,
            Self::Dead(_) => 4,
        }
    }

    /// The outcome as the metrics name it.
    const fn code(&self, next: Option<Home>) -> &'static str {
        match (self, next) {
            (_, Some(Home::Dead)) => "dead_letter",
            (_, Some(Home::Retry(_))) => "retry",
            (Self::Applied, None) => "applied",
            (Self::Duplicate, None) => "duplicate",
            (Self::Ignored | Self::Retry(_) | Self::Dead(_), None) => "ignored",
        }
    }

    /// Where the message goes, its log brought up to date; `None` means it is done.
    pub(crate) fn next_home(
        &self,
        log: &mut Log,
        attempt: impl FnOnce(&Rejection) -> Attempt,
        settings: &Settings,
    ) -> Option<Home> {
        let rejection = match self {
            Self::Applied | Self::Duplicate | Self::Ignored => return None,
            Self::Retry(rejection) | Self::Dead(rejection) => rejection,
        };
        log.attempts = log.attempts.saturating_add(1);
        log.note(attempt(rejection));
        if matches!(self, Self::Retry(_)) && log.attempts < settings.max_attempts {
            let failed_before = usize::try_from(log.attempts - 1).unwrap_or(usize::MAX);
            return Some(Home::Retry(failed_before.min(settings.retry_tiers - 1)));
        }
        log.rejection = Some(rejection.clone());
        Some(Home::Dead)
    }
}

impl Worker {
    /// Settles a batch.
    pub(crate) async fn settle(&self, home: &dyn Settle, deliveries: Vec<Delivery>, endings: Vec<Ending>) {
        self.measure(&deliveries, &endings);
        let mut done = Vec::with_capacity(deliveries.len());
        let mut parked = Vec::new();
        for (mut delivery, ending) in deliveries.into_iter().zip(endings) {
            tracing::debug!(notification = %delivery.message.id, ?ending, "handled");
            match self.next_home(&mut delivery, &ending) {
                None => done.push(delivery.ticket),
                Some(next) => parked.push((delivery, next)),
            }
        }
        if !done.is_empty()
            && let Err(error) = home.ack(&done).await
        {
            tracing::warn!(%error, "could not ack; the deliveries will come again and have no effect");
        }
        // At the same time: a tier that does not answer must not hold up the others.
        join_all(parked.iter().map(|(delivery, next)| self.park(home, delivery, *next))).await;
    }

    /// How long the deliveries had waited since ingress accepted them. What could not be opened may claim any time.
    fn measure(&self, deliveries: &[Delivery], endings: &[Ending]) {
        let now = self.parts.clock.now();
        let age = |delivery: &Delivery| {
            let received_at = delivery.message.claimed_received_at()?;
            Duration::try_from(now.duration_since(received_at)).ok()
        };
        let mut oldest = None;
        for (delivery, ending) in deliveries.iter().zip(endings).filter(|(_, ending)| ending.weight() < Ending::RETRY) {
            let age = age(delivery);
            // What comes back from a retry tier did not wait for a worker all the time.
            oldest = oldest.max(age.filter(|_| delivery.message.log.attempts == 0));
            if let (Ending::Applied, Some(age)) = (ending, age) {
                metric::applied(age);
            }
        }
        metric::batch(deliveries.len(), oldest);
    }

    /// Where a message goes after this ending, its log brought up to date. Nothing is moved, counted or logged.
    pub(crate) fn home_after(&self, log: &mut Log, ending: &Ending) -> Option<Home> {
        let settings = &self.parts.settings;
        let attempt = |rejection: &Rejection| Attempt {
            at: self.parts.clock.now(),
            worker: settings.name.clone(),
            error: rejection.to_string(),
        };
        ending.next_home(log, attempt, settings)
    }

    /// The same for a delivery that goes there now.
    pub(crate) fn next_home(&self, delivery: &mut Delivery, ending: &Ending) -> Option<Home> {
        let next = self.home_after(&mut delivery.message.log, ending);
        let rejection = delivery.message.log.rejection.as_ref().filter(|_| next == Some(Home::Dead));
        let (outcome, reason) = (ending.code(next), rejection.map_or("", |rejection| rejection.reason.code()));
        metric::delivery(outcome, reason);
        trace::outcome(&delivery.message.id, outcome, reason);
        let (id, attempts) = (&delivery.message.id, delivery.message.log.attempts);
        match (&next, &delivery.message.log.rejection) {
            (Some(Home::Dead), Some(rejection)) => {
                tracing::warn!(notification = %id, reason = rejection.reason.code(), detail = rejection.detail, attempts, "dead letter");
            }
            (Some(Home::Retry(tier)), _) => {
                tracing::info!(notification = %id, attempts, tier, ?ending, "will try again")
            }
            (Some(Home::Dead), None) | (None, _) => {}
        }
        next
    }

    /// Lets deliveries go that nothing is to become of now. No attempt is used.
    pub(crate) async fn give_back(&self, home: &dyn Settle, deliveries: Vec<Delivery>) {
        let (often, seldom): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| delivery.returned >= topology::RETURNED_TOO_OFTEN);
        if let Err(error) = home.give_back(&seldom).await {
            tracing::warn!(%error, "could not give deliveries back; they come back with the connection's end");
        }
        // The broker counts what comes back, and would declare it dead one day. The shortest tier's copy counts anew.
        join_all(often.iter().map(|delivery| self.park(home, delivery, Home::Retry(0)))).await;
    }

    /// Parks a delivery; gives it back if its next home stays away. Where a tier takes nothing, its neighbour is as good.
    async fn park(&self, home: &dyn Settle, delivery: &Delivery, next: Home) {
        let mut homes = [next.neighbour(self.parts.settings.retry_tiers), next].into_iter().cycle();
        let mut next = next;
        let mut policy: ExponentialBackoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(Duration::from_millis(100))
            .with_max_interval(Duration::from_secs(10))
            .with_max_elapsed_time(Some(PARK_PATIENCE))
            .build();
        loop {
            let Err(error) = home.park(delivery, next).await else { return };
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(notification = %delivery.message.id, %error, cause, ?next, "could not park a delivery");
            if matches!(
                error,
                QueueError::Park(PublishError::Timeout | PublishError::Nacked | PublishError::Unroutable)
            ) {
                next = homes.next().unwrap_or(next);
            }
            match policy.next_backoff() {
                Some(pause) => sleep(pause).await,
                None => break,
            }
        }
        if let Err(error) = home.give_back(std::slice::from_ref(delivery)).await {
            tracing::warn!(%error, "could not give a delivery back; it comes back with the connection's end");
        }
    }
}

#[cfg(test)]
mod tests {
    use wxpay_shared::reason::Reason;

    use super::*;

    fn settings() -> Settings {
        Settings { name: "w".to_owned(), batch: 1, concurrency: 1, max_attempts: 4, retry_tiers: 2 }
    }

    fn rejection(reason: Reason) -> Rejection {
        Rejection::new(reason, "x")
    }

    #[test]
    fn a_retry_climbs_the_tiers_and_ends_as_a_dead_letter() {
        let ending = Ending::Retry(rejection(Reason::UnknownOrder));
        let mut log = Log::default();
        let attempt = |rejection: &Rejection| Attempt {
            at: jiff::Timestamp::UNIX_EPOCH,
            worker: "w".to_owned(),
            error: rejection.to_string(),
        };
        let homes: Vec<_> = (0..4).map(|_| ending.next_home(&mut log, attempt, &settings())).collect();
        assert_eq!(homes, [Some(Home::Retry(0)), Some(Home::Retry(1)), Some(Home::Retry(1)), Some(Home::Dead)]);
        assert_eq!((log.attempts, log.history.len()), (4, 4));
        assert_eq!(log.rejection, Some(rejection(Reason::UnknownOrder)));
    }

    #[test]
    fn a_rejection_is_a_dead_letter_at_once_and_success_is_done() {
        let mut log = Log::default();
        let attempt = |_: &Rejection| unreachable!("nothing failed");
        assert_eq!(Ending::Applied.next_home(&mut log, attempt, &settings()), None);
        assert_eq!(log, Log::default());
        let attempt =
            |_: &Rejection| Attempt { at: jiff::Timestamp::UNIX_EPOCH, worker: String::new(), error: String::new() };
        let dead = Ending::Dead(rejection(Reason::AmountMismatch));
        assert_eq!(dead.next_home(&mut log, attempt, &settings()), Some(Home::Dead));
        assert_eq!(log.attempts, 1);
    }

    #[test]
    fn several_answers_end_as_the_worst_of_them() {
        let fresh = || Ok(Applied::Fresh { points: 1 });
        assert_eq!(Ending::of(None, [].into_iter()), Ending::Ignored);
        assert_eq!(Ending::of(None, [Ok(Applied::Duplicate), fresh()].into_iter()), Ending::Applied);
        let dead = Applied::Rejected(rejection(Reason::AmountMismatch));
        let answers = [fresh(), Err(rejection(Reason::AttemptsExhausted)), Ok(dead)];
        let unread = Some(rejection(Reason::InvalidField));
        assert_eq!(Ending::of(unread, [fresh()].into_iter()), Ending::Dead(rejection(Reason::InvalidField)));
        assert_eq!(Ending::of(None, answers.into_iter()), Ending::Dead(rejection(Reason::AmountMismatch)));
    }
}
