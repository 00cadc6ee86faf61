//! Step 3: answer repeats from sled.
//!
//! In front of a store on a server, sled holds the keys of events that took effect. It is a shortcut, not the truth: an
//! event that it does not know goes to the store, whose transaction decides. So it may be deleted at any time without
//! changing a result, and it is written only after the commit; written earlier, a crash in between would turn into a lost
//! payment. It is forgotten when the store was away, which may have come back without its last commits. The embedded store
//! is in sled itself and answers its repeats as fast.

use wxpay_shared::{
    event::Event,
    reason::{Reason, Rejection},
    settled::Settled,
    store::{Applied, StoreError},
};

use crate::{Worker, apply};

impl Worker {
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

        let sight = settled.map(Settled::sight);
        let applied =
            if fresh.is_empty() { Vec::new() } else { apply::apply(self.parts.store.as_ref(), &fresh).await? };
        if let Some((settled, sight)) = settled.zip(sight) {
            // Not a duplicate: it may be one of a fact that was recorded and rejected, and the notification that answers
            // for that one must be rejected each time it comes.
            let took_effect = |answer: &Result<Applied, StoreError>| matches!(answer, Ok(Applied::Fresh { .. }));
            let marks = fresh.iter().zip(&applied).filter(|(_, answer)| took_effect(answer));
            let marks: Vec<_> = marks.map(|(event, _)| (event.fact.key(), event.fact.fingerprint())).collect();
            settled.put_all(sight, marks);
        }

        let mut applied = applied.into_iter();
        let answer = |repeat: bool| match repeat {
            true => Ok(Applied::Duplicate),
            false => applied.next().expect("one answer for each event").map_err(|error| failed(&error)),
        };
        Ok(repeats.into_iter().map(answer).collect())
    }
}

/// What is told of an event that the store could not apply.
pub(crate) fn failed(error: &StoreError) -> Rejection {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Rejection::new(Reason::AttemptsExhausted, format!("{error}{source}"))
}
