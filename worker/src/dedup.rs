//! Step 3: answer repeats from sled.
//!
//! In front of a store on a server, sled holds the keys of events that took effect. It is a shortcut, not the truth: an
//! event that it does not know goes to the store, whose transaction decides. So it may be deleted at any time without
//! changing a result, and it is written only after the commit; written earlier, a crash in between would turn into a lost
//! payment. The embedded store is in sled itself and answers its repeats as fast.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use wxpay_shared::{
    event::Event,
    reason::{Reason, Rejection},
    store::{Applied, StoreError},
};

use crate::{Worker, apply};

/// How long a settled event is remembered. WeChat repeats for a day; what comes later costs a question to the store.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Entries that one sweep looks at, so that it stays short whatever the size.
const SWEEP_STEPS: usize = 1_000;
/// How often it sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

impl Worker {
    /// Forgets what is old, a little at a time. Never returns.
    pub(crate) async fn forget(self: Arc<Self>) {
        let mut tick = tokio::time::interval(SWEEP_EVERY);
        loop {
            tick.tick().await;
            let older_than = self.parts.clock.now().checked_sub(REMEMBERED).unwrap_or(Timestamp::MIN);
            let worker = Arc::clone(&self);
            let sweep =
                move || worker.parts.settled.as_ref().map_or(0, |settled| settled.sweep(older_than, SWEEP_STEPS));
            match tokio::task::spawn_blocking(sweep).await {
                Ok(0) => {}
                Ok(forgotten) => tracing::debug!(forgotten, "forgot settled events"),
                Err(error) => tracing::error!(%error, "could not sweep the settled events"),
            }
        }
    }

    /// What became of each event, in its place. An error only where the store is away.
    pub(crate) async fn dedup_and_apply(
        &self,
        events: Vec<Event>,
    ) -> Result<Vec<Result<Applied, Rejection>>, StoreError> {
        let settled = self.parts.settled.as_ref();
        // The same key with other money in it is a conflict, and that is for the store to say.
        let known =
            |event: &Event| settled.is_some_and(|settled| settled.knows(&event.fact.key(), &event.fact.fingerprint()));
        let repeats: Vec<bool> = events.iter().map(known).collect();
        let fresh: Vec<Event> =
            events.into_iter().zip(&repeats).filter(|(_, repeat)| !**repeat).map(|(event, _)| event).collect();

        let applied =
            if fresh.is_empty() { Vec::new() } else { apply::apply(self.parts.store.as_ref(), &fresh).await? };
        if let Some(settled) = settled {
            // Not a duplicate: it may be one of a fact that was recorded and rejected, and the notification that answers
            // for that one must be rejected each time it comes.
            let took_effect = |answer: &Result<Applied, StoreError>| matches!(answer, Ok(Applied::Fresh { .. }));
            let marks = fresh.iter().zip(&applied).filter(|(_, answer)| took_effect(answer));
            let marks = marks.map(|(event, _)| (event.fact.key(), event.fact.fingerprint()));
            settled.put_all(marks, self.parts.clock.now());
        }

        let mut applied = applied.into_iter();
        let answer = |repeat: bool| match repeat {
            true => Ok(Applied::Duplicate),
            false => applied.next().expect("one answer for each event").map_err(|error| failed(&error)),
        };
        Ok(repeats.into_iter().map(answer).collect())
    }
}

fn failed(error: &StoreError) -> Rejection {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Rejection::new(Reason::AttemptsExhausted, format!("{error}{source}"))
}
