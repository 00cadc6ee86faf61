//! Beside the flow: when an order is registered, what waits for it in the retry tiers is called back at once.
//!
//! The admin API only notes the order here. One task looks through the tiers, for all orders noted meanwhile together,
//! and rests in proportion to how long that took. It looks twice for each order: a delivery that another worker found
//! unregistered a moment ago may reach its tier only after the first look. Orders that come into the store by another way
//! are found when the tier's time is over, as ever.

use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use wxpay_shared::{ids::OrderId, queue::Wanted, wechat::v3_event::Outcome};

use crate::Worker;

/// When the second look comes after the registration. A delivery is parked far sooner than this after its store was asked.
const SECOND_LOOK: Duration = Duration::from_secs(3);
/// After a look it rests four times as long as that took, within these limits, and never shorter than the look.
const REST: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(5);
/// Orders that are noted at the same time, at most; what is registered beyond that is left to the tiers.
const NOTED_MAX: usize = 100_000;

/// The orders that were registered lately, and when.
#[derive(Default)]
pub(crate) struct Registrations {
    noted: Mutex<HashMap<OrderId, Instant>>,
    changed: Notify,
}

impl Registrations {
    /// What waits for this order is to be called back.
    pub(crate) fn note(&self, order: OrderId) {
        let mut noted = self.noted();
        if noted.len() < NOTED_MAX {
            noted.insert(order, Instant::now());
            self.changed.notify_one();
        }
    }

    /// Returns when a look is due: for an order that was noted after the last one began, or for the second time.
    async fn due(&self, last: Option<Instant>) {
        loop {
            let due =
                |noted: &Instant| if last.is_some_and(|last| *noted <= last) { *noted + SECOND_LOOK } else { *noted };
            let next = self.noted().values().map(due).min();
            match next {
                Some(next) if next <= Instant::now() => return,
                Some(next) => tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<OrderId, Instant>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    /// Looks through the tiers whenever that is due. Never returns.
    pub(crate) async fn release(self: Arc<Self>) {
        let mut last = None;
        loop {
            self.registrations.due(last).await;
            let began = Instant::now();
            let orders = self.registrations.noted().keys().cloned().collect();
            match self.parts.consumer.release(self.wanted(orders)).await {
                Ok(released) => {
                    tracing::debug!(released, took = ?began.elapsed(), "looked through the retry tiers");
                    if released > 0 {
                        tracing::info!(released, "called notifications back whose order was registered");
                    }
                    self.registrations.noted().retain(|_, noted| *noted + SECOND_LOOK > began);
                    last = Some(began);
                }
                // They come by themselves at their time; meanwhile it is tried again.
                Err(error) => tracing::debug!(%error, "could not look through the retry tiers"),
            }
            let took = began.elapsed();
            sleep((took * 4).clamp(*REST.start(), *REST.end()).max(took)).await;
        }
    }

    /// The messages that are about one of these orders.
    fn wanted(self: &Arc<Self>, orders: HashSet<OrderId>) -> Wanted {
        let (worker, merchants) = (Arc::clone(self), self.parts.merchants.now());
        Arc::new(move |message| {
            let about = |outcome: &Outcome| matches!(outcome, Outcome::Fact(fact) if orders.contains(fact.order()));
            // The flow has a fence against panics, and meets the message at its time.
            let read = catch_unwind(AssertUnwindSafe(|| worker.read(message, &merchants)));
            read.is_ok_and(|outcomes| outcomes.iter().any(about))
        })
    }
}
