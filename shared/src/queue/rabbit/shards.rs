//! The queues in which notifications wait: those of the setting, and those that another number of shards left behind,
//! which are found by looking.
//!
//! Shards are numbered without gaps, so the first number that is missing ends the search. The broker has no way to ask
//! whether a queue is there but to fail, which closes the channel and stands in its log; so nobody looks often.

use std::time::Duration;

use lapin::{Channel, Connection};
use tokio::time::Instant;

use super::{NOT_FOUND, code, inspect, silent::Silent};
use crate::queue::{QueueSettings, topology};

/// How old an answer may be. So long does a worker not know of shards that another program has just made.
const LOOK_EVERY: Duration = Duration::from_secs(30);

pub(super) struct Shards {
    names: Vec<String>,
    /// How many of the names are of the setting; the others were found.
    set: usize,
    /// The number from which on there may be others; `None` for whoever does not care about others.
    beyond: Option<u16>,
    looked: Option<Instant>,
    silent: Silent,
}

impl Shards {
    /// Every queue in which notifications wait.
    pub(super) fn all(shards: u16) -> Self {
        let mut names = topology::notify(shards);
        let split = shards > 1;
        if split {
            names.insert(0, topology::NOTIFY.to_owned());
        }
        let set = names.len();
        Self { names, set, beyond: Some(if split { shards } else { 0 }), looked: None, silent: Silent::default() }
    }

    /// Those from which a worker takes.
    pub(super) fn taken(settings: &QueueSettings) -> Self {
        let mut all = Self::all(settings.shards);
        if !settings.taken_shards.is_empty() {
            let shards = topology::notify(settings.shards).into_iter().zip(0..);
            let taken = shards.filter(|(_, number)| settings.taken_shards.contains(number)).map(|(name, _)| name);
            all.names.truncate(1);
            all.names.extend(taken.filter(|name| name != topology::NOTIFY));
            (all.set, all.beyond) = (all.names.len(), None);
        }
        all
    }

    /// What is known, without those that are left out. Where nothing is left, the one that was left out first.
    pub(super) fn names(&self) -> Vec<&str> {
        let answering: Vec<_> = self.names.iter().map(String::as_str).filter(|name| !self.silent.has(name)).collect();
        if answering.is_empty() { self.silent.first().into_iter().collect() } else { answering }
    }

    /// Leaves a queue out until it can be read.
    pub(super) fn leave_out(&mut self, queue: &str) {
        self.silent.leave_out(queue, Instant::now());
    }

    /// One that is left out and is to be asked again.
    pub(super) fn to_ask(&self) -> Option<&str> {
        self.silent.due(Instant::now())
    }

    /// It was asked.
    pub(super) fn answered(&mut self, queue: &str, answered: bool) {
        if !answered {
            self.leave_out(queue);
        } else if self.silent.has(queue) {
            tracing::info!(queue, "can be taken from again");
            self.silent.take_back(queue);
        }
    }

    /// The next look is not spared: what was found may be gone.
    pub(super) fn look_afresh(&mut self) {
        self.looked = None;
    }

    /// Looks for others, unless it did so a moment ago; whether that changed the names.
    pub(super) async fn look(&mut self, connection: &Connection) -> lapin::Result<bool> {
        let Some(beyond) = self.beyond else { return Ok(false) };
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(false);
        }
        let channel = connection.create_channel().await?;
        let mut found = Vec::new();
        for number in beyond..topology::SHARDS_MAX {
            let name = topology::shard(number);
            if !exists(&channel, &name).await? {
                break;
            }
            found.push(name);
        }
        self.looked = Some(Instant::now());
        let changed = self.names[self.set..] != found;
        self.names.truncate(self.set);
        self.names.extend(found);
        self.silent.keep(&self.names);
        Ok(changed)
    }
}

/// Whether there is such a queue. Where there is none, the channel is closed afterwards.
async fn exists(channel: &Channel, queue: &str) -> lapin::Result<bool> {
    match inspect(channel, queue).await {
        Ok(_) => Ok(true),
        Err(error) if code(&error) == Some(NOT_FOUND) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_worker_takes_what_comes_back_and_its_own_shards() {
        let taken = |shards, taken_shards: &[u16]| {
            let retry_delays = vec![Duration::from_secs(5)];
            let taken_shards = taken_shards.to_vec();
            let settings = QueueSettings { prefetch: 1, in_flight: 1, retry_delays, shards, taken_shards };
            let Shards { names, beyond, .. } = Shards::taken(&settings);
            (names.join(" "), beyond)
        };
        assert_eq!(taken(1, &[]), ("wxpay.notify".to_owned(), Some(0)));
        assert_eq!(taken(1, &[0]), ("wxpay.notify".to_owned(), None));
        assert_eq!(taken(2, &[]), ("wxpay.notify wxpay.notify.0 wxpay.notify.1".to_owned(), Some(2)));
        assert_eq!(taken(3, &[2, 0]), ("wxpay.notify wxpay.notify.0 wxpay.notify.2".to_owned(), None));
    }
}
