//! The lock of a worker that must be the only one: an exclusive queue, which belongs to the connection it consumes on.
//!
//! So lock and subscription end together, whatever ends them, and two such workers never both consume. At its start a
//! worker is refused where another holds the lock. Later it had the lock itself, and whoever has it now came while the
//! connection was gone: then it waits, without consuming, until it can go on.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff as _};
use lapin::{Connection, options::QueueDeclareOptions, types::FieldTable};
use tokio::time::{Instant, sleep, timeout};

use super::{HANDSHAKE, RESOURCE_LOCKED, code, unavailable};
use crate::queue::{QueueError, topology};

/// How long a worker waits at its start for the lock of one before it. When a process dies, its machine closes the
/// connection at once and the broker needs a moment to notice; a machine that dies is noticed when two heartbeats, of 10 s
/// each, are missing.
const GRACE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Alone {
    /// Whether this worker had the lock on an earlier connection.
    had_it: bool,
}

impl Alone {
    /// Returns when the lock is this connection's.
    ///
    /// # Errors
    /// [`QueueError::NotAlone`] for a worker that never had the lock, after [`GRACE`]; otherwise the connection is lost.
    pub(super) async fn lock(&mut self, connection: &Connection) -> Result<(), QueueError> {
        let started = Instant::now();
        let mut pauses = ExponentialBackoff {
            initial_interval: LOOK_AGAIN,
            current_interval: LOOK_AGAIN,
            max_interval: LOOK_AGAIN_MAX,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        let mut told = false;
        while !timeout(HANDSHAKE, try_lock(connection)).await.map_err(unavailable)?? {
            if !self.had_it && started.elapsed() >= GRACE {
                return Err(QueueError::NotAlone);
            }
            if !std::mem::replace(&mut told, true) {
                let patience =
                    if self.had_it { "until it is gone".to_owned() } else { format!("{} s", GRACE.as_secs()) };
                tracing::warn!(
                    patience,
                    "another worker is connected, or RabbitMQ has not noticed yet that it died; waiting before taking anything"
                );
            }
            sleep(pauses.next_backoff().unwrap_or(LOOK_AGAIN_MAX)).await;
        }
        self.had_it = true;
        Ok(())
    }
}

/// Whether the lock is ours now.
async fn try_lock(connection: &Connection) -> Result<bool, QueueError> {
    // A refusal closes the channel.
    let channel = connection.create_channel().await.map_err(unavailable)?;
    let lock = QueueDeclareOptions::exclusive();
    match channel.queue_declare(topology::ONLY_WORKER.into(), lock, FieldTable::default()).await {
        Ok(_) => Ok(true),
        Err(error) if code(&error) == Some(RESOURCE_LOCKED) => Ok(false),
        Err(error) => Err(unavailable(error)),
    }
}
