//! The gate before the flow: shut while the store is away.
//!
//! A store that is away is no fault of any notification. So no attempt is used and nothing dies: deliveries go back, no
//! more are taken, and the store is asked with growing pauses until it answers.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use tokio::sync::watch;
use wxpay_shared::{
    metric,
    store::{Store, StoreError},
};

/// The longest pause between two questions to the store.
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        metric::gate_open(true);
        Self(watch::Sender::new(true))
    }
}

impl Gate {
    pub(crate) fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// Shuts the gate.
    pub(crate) fn close(&self, error: &StoreError) {
        metric::gate_open(false);
        if self.0.send_replace(false) {
            let source = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(%error, source, "the store is away: no more deliveries are taken until it is back");
        }
    }

    /// Returns when the gate is shut.
    pub(crate) async fn closed(&self) {
        let mut state = self.0.subscribe();
        state.wait_for(|open| !open).await.expect("the gate holds the sender");
    }

    /// Asks the store until it answers, and opens the gate.
    pub(crate) async fn wait_until_open(&self, store: &dyn Store) {
        let policy: ExponentialBackoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(Duration::from_millis(100))
            .with_max_interval(PROBE_PAUSE_MAX)
            .with_max_elapsed_time(None)
            .build();
        let answered =
            backoff::future::retry(policy, async || store.ping().await.map_err(backoff::Error::transient)).await;
        if let Err(error) = answered {
            tracing::error!(%error, "gave up asking the store; the next delivery will tell");
        }
        self.0.send_replace(true);
        metric::gate_open(true);
        tracing::info!("the store answers: deliveries are taken");
    }
}
