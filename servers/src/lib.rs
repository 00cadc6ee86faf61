//! Private servers for tests and benchmarks, and waiting without sleeping.
//!
//! Each server is private: a data directory of its own, free ports on the loopback, and gone when its user is, however
//! that ends. What goes wrong here is the machine's fault and no result, so it is a panic that says what to install.

use std::time::{Duration, Instant};

pub mod database;
pub mod process;
pub mod rabbitmq;

/// Waits for a condition, looking again every few milliseconds.
///
/// # Panics
/// At the deadline, naming what was waited for.
pub async fn wait_until<F>(what: &str, deadline: Duration, mut condition: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
