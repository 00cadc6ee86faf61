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
    queue::{Delivery, Home, PublishError, QueueError, topology},
    reason::{Reason, Rejection},
    store::Applied,
    trace,
};

use crate::{Settings, Worker};

/// How long parking is tried before the delivery is given back. It is held meanwhile, so this stays far below the
/// broker's acknowledgement timeout (30 minutes).
const PARK_PATIENCE: Duration = Duration::from_secs(300);

/// How long a dead letter whose confirm is late waits until it is parked again. By then a queue that is only slow has
/// answered, and one that does not answer is known. Only this letter waits; nothing else would tell it of a late confirm.
const DEAD_PATIENCE: Duration = Duration::from_secs(15);

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
    /// The ending of a delivery of which these parts were rejected before the store saw them, and the others got these
    /// answers. While one part may still succeed, all are tried again: the others get the answers that they had, and
    /// without effect. The rejection tells of every part that did not end well.
    pub(crate) fn of(unread: Vec<Rejection>, answers: impl Iterator<Item = Result<Applied, Rejection>>) -> Self {
        let mut well = Self::Ignored;
        // A merchant that this worker does not know may be configured already where others look, and will be here.
        let (mut waiting, mut rejected): (Vec<_>, Vec<_>) =
            unread.into_iter().partition(|rejection| rejection.reason == Reason::UnknownMerchant);
        for answer in answers {
            match answer {
                Ok(Applied::Fresh { .. }) => well = Self::Applied,
                Ok(Applied::Duplicate) if well == Self::Ignored => well = Self::Duplicate,
                Ok(Applied::Duplicate) => {}
                Ok(Applied::Waiting(rejection)) | Err(rejection) => waiting.push(rejection),
                Ok(Applied::Rejected(rejection)) => rejected.push(rejection),
            }
        }
        let ending = if waiting.is_empty() { Self::Dead } else { Self::Retry };
        Rejection::of_parts(waiting.into_iter().chain(rejected)).map_or(well, ending)
    }

    const fn is_well(&self) -> bool {
        matches!(self, Self::Applied | Self::Duplicate | Self::Ignored)
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
            return Some(Home::tier(log.attempts, settings.retry_tiers));
        }
        log.rejection = Some(rejection.clone());
        Some(Home::Dead)
    }
}

impl Worker {
    /// Acks what is done of a batch, and says what is to be parked, and where.
    pub(crate) async fn settle(&self, deliveries: Vec<Delivery>, endings: Vec<Ending>) -> Vec<(Delivery, Home)> {
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
            && let Err(error) = self.parts.consumer.ack(&done).await
        {
            tracing::warn!(%error, "could not ack; the deliveries will come again and have no effect");
        }
        parked
    }

    /// Parks deliveries, at the same time: a home that does not answer must not hold up the others.
    pub(crate) async fn park_all(&self, parked: Vec<(Delivery, Home)>) {
        join_all(parked.into_iter().map(|(delivery, next)| self.park(delivery, next))).await;
    }

    /// How long the deliveries had waited since ingress accepted them. What could not be opened may claim any time.
    fn measure(&self, deliveries: &[Delivery], endings: &[Ending]) {
        let now = self.parts.clock.now();
        let age = |delivery: &Delivery| {
            let received_at = delivery.message.claimed_received_at()?;
            Duration::try_from(now.duration_since(received_at)).ok()
        };
        let mut oldest = None;
        for (delivery, ending) in deliveries.iter().zip(endings).filter(|(_, ending)| ending.is_well()) {
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

    /// Lets deliveries go that nothing is to become of now. No attempt is used. Says what is to be parked instead.
    pub(crate) async fn give_back(&self, deliveries: Vec<Delivery>) -> Vec<(Delivery, Home)> {
        let (often, seldom): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| delivery.returned >= topology::RETURNED_TOO_OFTEN);
        if let Err(error) = self.parts.consumer.give_back(&seldom).await {
            tracing::warn!(%error, "could not give deliveries back; they come back with the connection's end");
        }
        // The broker counts what comes back, and would declare it dead one day. The shortest tier's copy counts anew.
        often.into_iter().map(|delivery| (delivery, Home::Retry(0))).collect()
    }

    /// Parks a delivery; gives it back if its next home stays away. Where a home takes nothing, its neighbour is as good.
    async fn park(&self, mut delivery: Delivery, next: Home) {
        let neighbour = next.neighbour(delivery.message.log.attempts, self.parts.settings.retry_tiers);
        let (mut others, mut next) = ([neighbour, next].into_iter().cycle(), next);
        let mut only_late = next == Home::Dead;
        let rejection = delivery.message.log.rejection.take();
        let mut policy: ExponentialBackoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(Duration::from_millis(100))
            .with_max_interval(Duration::from_secs(10))
            .with_max_elapsed_time(Some(PARK_PATIENCE))
            .build();
        loop {
            delivery.message.log.rejection = rejection.clone().filter(|_| next == Home::Dead);
            let Err(error) = self.parts.consumer.park(&delivery, next).await else { return };
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(notification = %delivery.message.id, %error, cause, ?next, "could not park a delivery");
            // A dead letter whose confirm was only late is better there twice than there and in a tier.
            if matches!(error, QueueError::Park(PublishError::Timeout)) && std::mem::take(&mut only_late) {
                sleep(DEAD_PATIENCE).await;
            } else if matches!(
                error,
                QueueError::Park(PublishError::Timeout | PublishError::Nacked | PublishError::Unroutable)
            ) {
                next = others.next().unwrap_or(next);
            }
            match policy.next_backoff() {
                Some(pause) => sleep(pause).await,
                None => break,
            }
        }
        if let Err(error) = self.parts.consumer.give_back(std::slice::from_ref(&delivery)).await {
            tracing::warn!(%error, "could not give a delivery back; it comes back with the connection's end");
        }
    }
}

#[cfg(test)]
mod tests {
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

    /// Configurations reach the programs one after another.
    #[test]
    fn a_merchant_that_is_not_known_here_may_be_known_later() {
        let ending = |reason| Ending::of(vec![rejection(reason)], std::iter::empty());
        assert_eq!(ending(Reason::UnknownMerchant), Ending::Retry(rejection(Reason::UnknownMerchant)));
        assert_eq!(ending(Reason::Unsealed), Ending::Dead(rejection(Reason::Unsealed)));
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
    fn what_may_still_succeed_is_tried_again_and_every_bad_part_is_told() {
        let fresh = || Ok(Applied::Fresh { points: 1 });
        let dead = |reason| Ok(Applied::Rejected(rejection(reason)));
        let of = |unread: &[Reason], answers: &[Result<Applied, Rejection>]| {
            Ending::of(unread.iter().copied().map(rejection).collect(), answers.iter().cloned())
        };
        assert_eq!(of(&[], &[]), Ending::Ignored);
        assert_eq!(of(&[], &[Ok(Applied::Duplicate), fresh(), Ok(Applied::Duplicate)]), Ending::Applied);
        assert_eq!(of(&[], &[Ok(Applied::Duplicate)]), Ending::Duplicate);
        assert_eq!(of(&[Reason::InvalidField], &[fresh()]), Ending::Dead(rejection(Reason::InvalidField)));
        let both = Rejection::new(Reason::InvalidField, "x; surplus_payment: x");
        assert_eq!(of(&[Reason::InvalidField], &[fresh(), dead(Reason::SurplusPayment)]), Ending::Dead(both));
        let waits = Ok(Applied::Waiting(rejection(Reason::UnknownOrder)));
        let both = Rejection::new(Reason::UnknownOrder, "x; amount_mismatch: x");
        assert_eq!(of(&[], &[dead(Reason::AmountMismatch), fresh(), waits]), Ending::Retry(both));
        let both = Rejection::new(Reason::AttemptsExhausted, "x; amount_mismatch: x");
        let failed = Err(rejection(Reason::AttemptsExhausted));
        assert_eq!(of(&[], &[dead(Reason::AmountMismatch), failed]), Ending::Retry(both));
    }
}
