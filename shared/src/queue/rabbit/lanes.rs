//! A channel with confirms for each queue that is published to, so that one that does not answer holds up itself alone.
//!
//! A quorum queue without a leader answers nothing, and the broker's channel that first asks it for something does nothing
//! else for 65 s. A queue whose answer is late gets nothing more until it comes, or until a new channel asks anew, with one
//! message: each that waits there holds the channel up for another 65 s.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use lapin::{Channel, Connection, options::ConfirmSelectOptions, types::ShortString};
use tokio::time::{Instant, timeout};

use super::{
    HANDSHAKE,
    confirms::{Confirms, Job, Wave},
    unavailable,
};
use crate::queue::{PUBLISH_BUDGET, PublishError, QueueError};

/// How old the oldest message of a channel may be before a new channel takes its place.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// Where every answer of a queue was a refusal for so long, a new channel asks it anew: RabbitMQ 3.10 does not tell the one
/// that was refused when a limit (`max-length`) is lifted while nothing is consumed.
const REFUSED_LONG: Duration = Duration::from_secs(10);
/// As many messages as the broker's channel sends to a quorum queue before it waits for an answer.
const CROWDED: usize = 32;
/// So many messages in a row may lack an answer. The broker reads 400 or so of a channel that does nothing, and then no more
/// from the whole connection.
const FULL: u64 = 300;

/// So many at a time a channel takes for certain.
pub(super) const ROOM: usize = 200;

struct Lane {
    queue: ShortString,
    channel: Channel,
    confirms: Confirms,
    /// The one before it was given up, so it takes a single message until the queue has answered.
    on_trial: bool,
    /// It takes no more, and goes when everything on it has its answer.
    retired: bool,
}

/// The channels of one connection.
pub(super) struct Lanes<'c> {
    connection: &'c Connection,
    role: &'static str,
    lanes: Vec<Lane>,
    /// Queues whose last channel was given up and that have not answered since.
    given_up: Vec<ShortString>,
    /// When the broker was last seen to block the connection. What waits for that is not late.
    blocked: Option<Instant>,
}

impl<'c> Lanes<'c> {
    pub(super) fn new(connection: &'c Connection, role: &'static str) -> Self {
        Self { connection, role, lanes: Vec::new(), given_up: Vec::new(), blocked: None }
    }

    /// How many wait for their answer.
    pub(super) fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.confirms.waiting()).sum()
    }

    pub(super) fn connected(&self) -> bool {
        self.lanes.iter().all(|lane| lane.channel.status().connected())
    }

    /// How good a queue is for the next message: the less the better.
    pub(super) fn rank(&self, queue: &ShortString, now: Instant) -> usize {
        match self.lane(queue) {
            Some(lane) if self.refuses(lane, now).is_some() => usize::MAX,
            Some(lane) => lane.confirms.on_their_way() / CROWDED,
            None => 0,
        }
    }

    /// Opens the channel of a queue that has none.
    pub(super) async fn open(&mut self, queue: &ShortString) -> Result<(), QueueError> {
        if self.lane(queue).is_none() {
            let channel = timeout(HANDSHAKE, confirming(self.connection)).await.map_err(unavailable)?;
            let (channel, confirms) = (channel.map_err(unavailable)?, Confirms::default());
            let on_trial = self.given_up.contains(queue);
            self.lanes.push(Lane { queue: queue.clone(), channel, confirms, on_trial, retired: false });
        }
        Ok(())
    }

    /// Sends these jobs to a queue as one message. Where it takes nothing at present, they are told so at once.
    pub(super) async fn publish(&mut self, queue: ShortString, jobs: Vec<Job>, now: Instant) -> Result<(), QueueError> {
        let opened = self.open(&queue).await;
        if opened.is_err() && self.connection.status().blocked() {
            jobs.into_iter().for_each(|job| job.answer.send(Err(PublishError::Blocked)).unwrap_or_default());
            return Ok(());
        }
        opened?;
        let open = self.lanes.iter().position(|lane| !lane.retired && lane.queue == queue).expect("it was opened");
        if let Some(why) = self.refuses(&self.lanes[open], now) {
            jobs.into_iter().for_each(|job| job.answer.send(Err(why)).unwrap_or_default());
        } else {
            let Lane { channel, confirms, .. } = &mut self.lanes[open];
            confirms.publish(channel, queue, jobs, now);
        }
        Ok(())
    }

    /// Waits for the next confirms and answers those who wait for them. Waits for ever when nothing is on its way.
    pub(super) async fn wave(&mut self) -> Wave {
        poll_fn(|context| self.poll_wave(context)).await
    }

    fn poll_wave(&mut self, context: &mut Context<'_>) -> Poll<Wave> {
        let mut seen = None::<Wave>;
        for lane in &mut self.lanes {
            if let Poll::Ready(wave) = lane.confirms.poll_wave(context) {
                seen.get_or_insert_default().add(wave);
            }
        }
        seen.map_or(Poll::Pending, Poll::Ready)
    }

    /// Waits until nothing is on its way any more, or a channel is gone.
    pub(super) async fn all_answered(&mut self) {
        while self.waiting() > 0 && self.wave().await.lost.is_none() {}
    }

    /// Looks after the channels, now and then: who waits for a late answer waits no more, and what is of no use goes.
    pub(super) fn tend(&mut self, now: Instant) {
        if self.connection.status().blocked() {
            self.blocked = Some(now);
        }
        let blocked = self.blocked;
        for lane in &mut self.lanes {
            let (role, queue) = (self.role, lane.queue.as_str());
            if lane.lateness(blocked, now) >= PUBLISH_BUDGET && lane.confirms.give_up(now, PUBLISH_BUDGET) > 0 {
                tracing::warn!(role, queue, "a queue does not answer; it gets nothing more until it does");
            }
            if !lane.retired && lane.confirms.refused_since().is_some_and(|since| now - since >= REFUSED_LONG) {
                tracing::warn!(role, queue, "a queue refuses everything; asking it again over a new channel");
                lane.retired = true;
            }
        }
        self.given_up
            .retain(|queue| !self.lanes.iter().any(|lane| lane.queue == *queue && lane.confirms.has_answered()));
        self.lanes.retain(|lane| !lane.retired || lane.confirms.on_their_way() > 0);
        // Not while the broker blocks: what is sent then waits in the client, and the end of its channel would overtake it.
        let old = self.lanes.extract_if(.., |lane| lane.lateness(blocked, now) >= GIVEN_UP);
        self.given_up.extend(old.map(|lane| lane.queue));
    }

    /// Why a queue takes nothing at present.
    fn refuses(&self, lane: &Lane, now: Instant) -> Option<PublishError> {
        let tried = lane.on_trial && !lane.confirms.has_answered() && lane.confirms.on_their_way() > 0;
        if tried || lane.lateness(self.blocked, now) >= PUBLISH_BUDGET {
            Some(PublishError::Timeout)
        } else {
            (lane.confirms.unanswered() >= FULL).then_some(PublishError::Busy)
        }
    }

    fn lane(&self, queue: &ShortString) -> Option<&Lane> {
        self.lanes.iter().find(|lane| !lane.retired && lane.queue == *queue)
    }
}

impl Lane {
    /// How long the broker has owed an answer, not counting the time for which it blocked.
    fn lateness(&self, blocked: Option<Instant>, now: Instant) -> Duration {
        self.confirms
            .oldest()
            .map_or(Duration::ZERO, |oldest| now - blocked.map_or(oldest, |blocked| blocked.max(oldest)))
    }
}

async fn confirming(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}
