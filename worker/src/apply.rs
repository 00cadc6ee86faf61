//! Step 4: one transaction for all events that are ready.
//!
//! A transaction that failed for a reason of the moment is tried again here for a short while. A batch that keeps
//! failing is tried one by one, so that one bad event harms no neighbour.

use std::time::{Duration, Instant};

use backoff::{Error as Backoff, ExponentialBackoff, ExponentialBackoffBuilder};
use wxpay_shared::{
    event::Event,
    metric,
    store::{Applied, Store, StoreError},
    trace::Transaction,
};

/// How long a transaction is tried again in process. The deliveries are held meanwhile, so it is short; longer waits
/// are the retry tiers'.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of each event, in its place. Where the store takes nothing from anybody, whatever it says of the events, it
/// is away.
///
/// # Errors
/// [`StoreError::Unavailable`] only: nothing can be applied at present.
pub async fn apply(store: &dyn Store, events: &[Event]) -> Result<Vec<Result<Applied, StoreError>>, StoreError> {
    match patiently(store, events).await {
        Ok(applied) => Ok(applied.into_iter().map(Ok).collect()),
        Err(error @ StoreError::Unavailable(_)) => Err(error),
        Err(error) if events.len() == 1 => Ok(vec![Err(error)]),
        Err(_) => {
            let mut answers = Vec::with_capacity(events.len());
            for event in events {
                answers.push(match patiently(store, std::slice::from_ref(event)).await {
                    Ok(mut applied) => Ok(applied.pop().expect("one answer for one event")),
                    Err(error @ StoreError::Unavailable(_)) => return Err(error),
                    Err(error) => Err(error),
                });
            }
            Ok(answers)
        }
    }
}

async fn patiently(store: &dyn Store, events: &[Event]) -> Result<Vec<Applied>, StoreError> {
    let policy: ExponentialBackoff = ExponentialBackoffBuilder::new()
        .with_initial_interval(Duration::from_millis(10))
        .with_max_interval(Duration::from_millis(500))
        .with_max_elapsed_time(Some(PATIENCE))
        .build();
    let applied = backoff::future::retry(policy, async || {
        let (began, transaction) = (Instant::now(), Transaction::of(events));
        let applied = store.apply(events).await.inspect_err(|_| transaction.failed());
        metric::transaction(applied.is_ok(), began.elapsed());
        applied.map_err(|error| match error {
            StoreError::Transient(_) => Backoff::transient(error),
            StoreError::Unavailable(_) | StoreError::Corrupt(_) => Backoff::permanent(error),
        })
    })
    .await;
    match applied {
        Err(StoreError::Transient(cause)) => match store.ping().await {
            Ok(()) => Err(StoreError::Transient(cause)),
            Err(error) => Err(StoreError::Unavailable(Box::new(error))),
        },
        applied => applied,
    }
}
