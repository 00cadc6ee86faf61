//! Step 1: take deliveries while the gate is open, and fence what handles them.
//!
//! The fence: a panic in a handler is contained, costs the delivery that caused it one attempt, and its neighbours
//! nothing. It does not help against an abort of the process; the queues do.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use wxpay_shared::{
    queue::Delivery,
    reason::{Reason, Rejection},
    store::StoreError,
};

use crate::{Worker, settle::Ending};

/// The time for one batch. Far below the broker's acknowledgement timeout (30 minutes), after which it would close the
/// channel and deliver everything again.
pub const HANDLER_BUDGET: Duration = Duration::from_secs(60);
/// After a batch was taken, the next one gathers for so long, unless it is half full before. A transaction costs the store
/// nearly as much for one event as for ten, and nobody notices such a delay.
pub const GATHER: Duration = Duration::from_millis(10);
/// Pause after a failed receive, so that the loop does not spin.
const RECEIVE_PAUSE: Duration = Duration::from_millis(200);

impl Worker {
    /// The next deliveries, `max` at most: once half as many are there, or from `gathered` on, once any are. Waits as long
    /// as the store or the queue is away.
    pub(crate) async fn deliver(&self, max: usize, gathered: Instant) -> Vec<Delivery> {
        let consumer = &self.parts.consumer;
        let receive = async || {
            // Both ends of the wait mean the same. Half, since the store would be idle while a full queue fills the rest.
            drop(timeout_at(gathered, consumer.filled(max.div_ceil(2))).await);
            consumer.receive(max).await
        };
        loop {
            if !self.gate.is_open() {
                consumer.pause().await;
                self.gate.wait_until_open(self.parts.store.as_ref()).await;
                if let Some(settled) = &self.parts.settled {
                    settled.forget_all();
                }
            }
            tokio::select! {
                received = receive() => match received {
                    Ok(deliveries) => return deliveries,
                    Err(error) => {
                        tracing::warn!(%error, "could not receive");
                        sleep(RECEIVE_PAUSE).await;
                    }
                },
                () = self.gate.closed() => {}
            }
        }
    }

    /// Handles a batch behind the fence; one by one where the batch as a whole panicked or took too long.
    pub(crate) async fn fenced(&self, deliveries: &[Delivery]) -> Result<Vec<Ending>, StoreError> {
        let fault = match self.attempt(deliveries).await {
            Ok(endings) => return endings,
            Err(fault) => fault,
        };
        if deliveries.len() == 1 {
            return Ok(vec![Ending::Retry(Rejection::new(Reason::AttemptsExhausted, fault))]);
        }
        let mut endings = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            endings.push(match self.attempt(std::slice::from_ref(delivery)).await {
                Ok(ending) => ending?.pop().expect("one ending for one delivery"),
                Err(fault) => Ending::Retry(Rejection::new(Reason::AttemptsExhausted, fault)),
            });
        }
        Ok(endings)
    }

    async fn attempt(&self, deliveries: &[Delivery]) -> Result<Result<Vec<Ending>, StoreError>, &'static str> {
        let handled = timeout(HANDLER_BUDGET, AssertUnwindSafe(self.handle(deliveries)).catch_unwind());
        handled.await.map_err(|_| "the handler took too long")?.map_err(|_| "the handler panicked")
    }
}
