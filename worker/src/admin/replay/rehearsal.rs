//! The dry run: what a replay would do, by the same decisions over a copy of the records.

use std::sync::Arc;

use wxpay_shared::{admin::ReplayResult, queue::Delivery, reason::Rejection, store::StoreError};

use super::{Run, Stop, told};
use crate::{dedup::failed, open::Opened, settle::Ending};

impl Run {
    /// What a replay would do, after the replays before it.
    pub(super) async fn rehearse(&mut self, letters: &[Delivery]) -> Result<Vec<ReplayResult>, Stop> {
        let worker = Arc::clone(&self.worker);
        let opened: Vec<_> = letters.iter().map(|it| worker.open(&it.message, &self.merchants)).collect();
        let unreadable = self.look(&opened).await?;
        let results = letters.iter().zip(opened).zip(unreadable).map(|((letter, opened), unreadable)| {
            let answers = opened.events.iter().map(|event| match &unreadable {
                None => Ok(self.seen.answer(event).0),
                Some(rejection) => Err(rejection.clone()),
            });
            let ending = Ending::of(opened.rejections, answers);
            let next = worker.home_after(&mut letter.message.log.clone().replayed(), &ending);
            told(letter.message.id.clone(), ending, next)
        });
        Ok(results.collect())
    }

    /// Reads the records that letters are about, and says of each letter why that cannot be done, where it cannot.
    async fn look(&mut self, letters: &[Opened]) -> Result<Vec<Option<Rejection>>, StoreError> {
        let store = Arc::clone(&self.worker.parts.store);
        let all: Vec<_> = letters.iter().flat_map(|letter| letter.events.iter().cloned()).collect();
        match store.look(&all).await {
            Ok(seen) => {
                self.seen.add(seen);
                return Ok(vec![None; letters.len()]);
            }
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
            // One of them; the others must not go untold, as in the flow.
            Err(StoreError::Transient(_) | StoreError::Corrupt(_)) => {}
        }
        let mut unreadable = Vec::with_capacity(letters.len());
        for letter in letters {
            unreadable.push(match store.look(&letter.events).await {
                Ok(seen) => {
                    self.seen.add(seen);
                    None
                }
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                Err(error) => Some(failed(&error)),
            });
        }
        Ok(unreadable)
    }
}
