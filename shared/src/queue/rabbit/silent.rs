//! Queues that could not be read, and are left out until they can.
//!
//! A quorum queue without a leader answers nothing, and the broker's channel that first asks it for something does nothing
//! else for 65 s, and then the connection ends. So a worker with other queues goes on without it, and asks it now and then
//! over a connection of its own.

use std::{sync::Arc, time::Duration};

use lapin::{
    Channel, Connection,
    message::Delivery as Arrival,
    options::{BasicGetOptions, BasicNackOptions},
};
use tokio::time::{Instant, timeout};

use super::{Broker, HANDSHAKE, part, unavailable};
use crate::queue::QueueError;

/// How long it takes until a queue is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The queues that are left out, and when each is to be asked again.
#[derive(Default)]
pub(super) struct Silent(Vec<(String, Instant)>);

impl Silent {
    /// Leaves a queue out, and has it asked again later.
    pub(super) fn leave_out(&mut self, queue: &str, now: Instant) {
        self.take_back(queue);
        self.0.push((queue.to_owned(), now + ASK_AGAIN));
    }

    /// It can be read.
    pub(super) fn take_back(&mut self, queue: &str) {
        self.0.retain(|(known, _)| known != queue);
    }

    /// Whether a queue is left out.
    pub(super) fn has(&self, queue: &str) -> bool {
        self.0.iter().any(|(known, _)| known == queue)
    }

    /// The queue that was left out first.
    pub(super) fn first(&self) -> Option<&str> {
        self.0.first().map(|(queue, _)| queue.as_str())
    }

    /// Forgets queues that are not among these any more.
    pub(super) fn keep(&mut self, names: &[String]) {
        self.0.retain(|(queue, _)| names.contains(queue));
    }

    /// A queue that is to be asked again.
    pub(super) fn due(&self, now: Instant) -> Option<&str> {
        self.0.iter().find(|(_, next)| *next <= now).map(|(queue, _)| queue.as_str())
    }
}

/// Whether a queue can be read.
pub(super) async fn asked(broker: Arc<Broker>, queue: String) -> (String, bool) {
    let answered = match broker.connect().await {
        Ok(connection) => {
            let answered = can_be_read(&connection, &queue).await.is_ok();
            part(&connection).await;
            answered
        }
        Err(_) => false,
    };
    (queue, answered)
}

async fn can_be_read(connection: &Connection, queue: &str) -> Result<(), QueueError> {
    let channel = connection.create_channel().await.map_err(unavailable)?;
    if let Some(delivery) = get(&channel, queue).await? {
        let back = BasicNackOptions { multiple: false, requeue: true };
        channel.basic_nack(delivery.delivery_tag, back).await.map_err(unavailable)?;
    }
    Ok(())
}

/// The message in front of a queue.
pub(super) async fn get(channel: &Channel, queue: &str) -> Result<Option<Arrival>, QueueError> {
    let got = channel.basic_get(queue.into(), BasicGetOptions::default());
    let got = timeout(HANDSHAKE, got).await.map_err(unavailable)?.map_err(unavailable)?;
    Ok(got.map(|message| message.delivery))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_left_out_until_it_was_asked_and_answered() {
        let (mut silent, now) = (Silent::default(), Instant::now());
        silent.leave_out("a", now);
        assert!(silent.has("a") && !silent.has("b"));
        assert_eq!((silent.due(now), silent.due(now + ASK_AGAIN)), (None, Some("a")));
        silent.leave_out("a", now + ASK_AGAIN);
        assert_eq!(silent.due(now + ASK_AGAIN), None);
        silent.leave_out("b", now);
        assert_eq!(silent.first(), Some("a"));
        silent.keep(&["a".to_owned()]);
        assert!(!silent.has("b"));
        silent.take_back("a");
        assert!(!silent.has("a") && silent.due(now + ASK_AGAIN * 3).is_none());
    }
}
