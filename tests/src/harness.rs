//! The servers that tests run against, and waiting without sleeping.
//!
//! Each server is private: a data directory of its own, free ports on the loopback, and gone when the tests are, however
//! they end.

use std::time::{Duration, Instant};

pub(crate) mod database;
pub(crate) mod notice;
pub(crate) mod pair;
pub(crate) mod process;
pub(crate) mod rabbitmq;
pub(crate) mod wechat;

/// Waits for a condition, looking again every few milliseconds.
///
/// # Panics
/// At the deadline, naming what was waited for.
pub(crate) async fn wait_until<F>(what: &str, deadline: Duration, mut condition: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
