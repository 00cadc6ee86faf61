//! What the metrics tell of things outside the flow: how many messages are where, and how full the disk is.

use std::{sync::Arc, time::Duration};

use wxpay_shared::metric;

use crate::Worker;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Worker {
    /// Keeps the metrics of the queue and of the disk current. Never returns.
    pub(crate) async fn observe(self: Arc<Self>) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            // Without a connection the consumer's own log says so.
            if self.parts.consumer.connected() {
                match self.parts.dead_letters.depths().await {
                    Ok(depths) => metric::depths(&depths),
                    Err(error) => tracing::debug!(%error, "could not count the messages"),
                }
            }
            match self.parts.disk.space().await {
                Ok((size, free)) => metric::data_dir(size, free),
                Err(error) => tracing::debug!(%error, "could not measure the data directory"),
            }
        }
    }

    /// The metrics page.
    pub(crate) fn metrics(&self) -> String {
        metric::worker_ready(self.ready().is_ok());
        metric::key_expiries(&self.parts.merchants.now());
        metric::page()
    }
}
