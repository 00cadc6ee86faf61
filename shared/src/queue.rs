//! The queue's contract, which every home keeps: [`rabbit`] on RabbitMQ and [`embedded`] on sled.
//!
//! A message has one home at a time: waiting for a worker, waiting in a retry tier, or dead. It leaves a home only after
//! the next one has it for certain, so a crash between the two steps makes a copy and never a loss. What is promised
//! here is checked for both homes by one suite (`tests/src/queue_contract.rs`).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::envelope::Message;

pub mod embedded;
pub mod rabbit;
mod record;
pub mod topology;

/// The time that one publish has from the call to the confirm. WeChat waits 5 s in all, so this leaves two for the rest.
pub const PUBLISH_BUDGET: Duration = Duration::from_secs(3);

/// How a queue is used; the same for both homes.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Messages that a consumer may hold without having settled them. On RabbitMQ one may have up to sixteen notifications
    /// in it, each of which is a delivery.
    pub prefetch: u16,
    /// Publishes that may wait for their confirm; one more is refused with [`PublishError::Busy`].
    pub in_flight: usize,
    /// The delays of the retry tiers, shortest first. A delay is part of its queue's name.
    pub retry_delays: Vec<Duration>,
    /// Queues over which publishers spread; the embedded home has one, whatever stands here.
    pub shards: u16,
    /// The shards from which a consumer takes, by their numbers; where empty, from all, also those that another number
    /// of shards left behind. What comes back from the retry tiers comes to every consumer.
    pub taken_shards: Vec<u16>,
}

/// The ingress side: makes a message durable.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Returns once the queue has the message on disk and has said so. May be dropped at any time; the message may then
    /// be in the queue or not.
    ///
    /// # Errors
    /// Within [`PUBLISH_BUDGET`], and at once where waiting is of no use. After an error the message may be in the queue
    /// all the same: the caller reports failure, and the worker's dedup absorbs the copy.
    async fn publish(&self, message: Message) -> Result<(), PublishError>;

    /// Whether a publish would be tried now.
    ///
    /// # Errors
    /// Why not: what `publish` would answer at once.
    fn ready(&self) -> Result<(), PublishError>;
}

/// Why a message cannot be called durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection to the queue; it is being re-established.
    #[error("the queue is not connected")]
    NotConnected,
    /// The broker asked publishers to pause (memory or disk alarm).
    #[error("the broker blocks publishers")]
    Blocked,
    /// The bound on publishes in flight is reached.
    #[error("too many publishes in flight")]
    Busy,
    /// The disk has less room than must stay free.
    #[error("the disk is nearly full")]
    Full,
    /// The broker took the message and found no queue for it.
    #[error("the message could not be routed to a queue")]
    Unroutable,
    /// The broker refused the message, or its disk did.
    #[error("the queue refused the message")]
    Nacked,
    /// The confirm did not come within the budget.
    #[error("no confirm within {} s", PUBLISH_BUDGET.as_secs())]
    Timeout,
    /// The program is shutting down.
    #[error("the queue is closed")]
    Closed,
}

/// The worker side: takes messages and says what became of them.
#[async_trait]
pub trait Consumer: Settle {
    /// Up to `max` messages that are ready, in no promised order; waits for the first one and never for a fuller batch.
    /// May be dropped at any time without losing a message. [`QueueSettings::prefetch`] bounds what is out at a time.
    ///
    /// # Errors
    /// [`QueueError`]; while the home is away it waits instead, and goes on by itself.
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError>;

    /// Returns once `count` messages are ready to be received, or as many as come before others are settled. Takes none
    /// of them, and waits for ever where no more come.
    async fn filled(&self, count: usize);

    /// Gives back what was prefetched but not received, and takes nothing until the next `receive`. Received messages
    /// are the caller's to give back.
    async fn pause(&self);

    /// Whether messages would come at present.
    fn connected(&self) -> bool;

    /// Moves those messages of the retry tiers that are wanted back to the workers, before their time; how many. The
    /// others keep their time. A crash meanwhile may leave a copy. On one broker one release runs at a time.
    ///
    /// # Errors
    /// [`QueueError`]: some may have been moved, and the others come at their time.
    async fn release(&self, wanted: Wanted) -> Result<usize, QueueError>;
}

/// Says which messages are wanted. Must not panic.
pub type Wanted = Arc<dyn Fn(&Message) -> bool + Send + Sync>;

/// What can become of a message.
#[async_trait]
pub trait Settle: Send + Sync {
    /// These are done. An ack is not confirmed: a crash right after it may bring the messages again. A ticket from before
    /// a reconnect is dropped silently, here and in the other methods: its message comes again.
    ///
    /// # Errors
    /// [`QueueError`]: the messages may come again.
    async fn ack(&self, tickets: &[Ticket]) -> Result<(), QueueError>;

    /// These go back untouched, to be delivered again soon. No attempt is used.
    ///
    /// # Errors
    /// [`QueueError`]: the messages come back all the same once the connection is gone.
    async fn give_back(&self, deliveries: &[Delivery]) -> Result<(), QueueError>;

    /// Moves a message, with its log as it is now, to another home; only when that home has confirmed it does it leave
    /// the old one.
    ///
    /// # Errors
    /// [`QueueError`]: the message is still in its old home and comes again.
    async fn park(&self, delivery: &Delivery, home: Home) -> Result<(), QueueError>;
}

/// The developer's side: the dead letters.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Opens the dead letters for one reader at a time.
    ///
    /// # Errors
    /// [`QueueError::Busy`] while another reader has them, in whichever process.
    async fn open(&self) -> Result<Box<dyn Desk>, QueueError>;

    /// How many messages are where.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn depths(&self) -> Result<Depths, QueueError>;
}

/// One reading of the dead letters, about in the order in which they died: what an earlier reader left may have changed
/// places. Whatever was not settled when it is dropped stays a dead letter.
#[async_trait]
pub trait Desk: Settle {
    /// The next dead letter of those that were there at the opening; `None` after the last.
    ///
    /// # Errors
    /// [`QueueError`].
    async fn next(&mut self) -> Result<Option<Delivery>, QueueError>;

    /// Adds a dead letter; when this returns, it is durable. It is no part of this reading.
    ///
    /// # Errors
    /// [`QueueError`]: the letter may be there or not.
    async fn add(&self, message: Message) -> Result<(), QueueError>;

    /// Ends the reading: when this returns, what was not settled is a dead letter that another reader finds.
    async fn close(self: Box<Self>);
}

/// A message in a worker's hands.
#[derive(Debug)]
pub struct Delivery {
    /// What was published.
    pub message: Message,
    /// How often it was delivered before without an answer, as far as the home knows.
    pub returned: u32,
    /// By what it is settled.
    pub ticket: Ticket,
}

/// Names a delivery to the queue that made it. Means nothing to anyone else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The connection (RabbitMQ: the channel) it came over.
    pub(crate) epoch: u64,
    /// Its number there.
    pub(crate) tag: u64,
    /// Which of the notifications that came in one message.
    pub(crate) part: u8,
}

/// Where a message can be parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Back to the workers after the delay with this index into the configured list.
    Retry(usize),
    /// Among the dead letters.
    Dead,
}

impl Home {
    /// Where a message that failed so many times may wait as well: the tier before this one, or after the first. A dead
    /// letter waits in a tier, later each time, and ends here when it comes back.
    #[must_use]
    pub fn neighbour(self, attempts: u32, tiers: usize) -> Self {
        match self {
            Self::Retry(0) if tiers > 1 => Self::Retry(1),
            Self::Retry(tier) => Self::Retry(tier.saturating_sub(1)),
            Self::Dead => Self::tier(attempts, tiers),
        }
    }

    /// The tier of a message that failed so many times.
    #[must_use]
    pub fn tier(attempts: u32, tiers: usize) -> Self {
        let failed_before = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        Self::Retry(failed_before.min(tiers - 1))
    }
}

/// How many messages are where.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Depths {
    /// Waiting for a worker, in all shards together. On RabbitMQ notifications that came in one moment share a message,
    /// sixteen at most, and count as one; it counts those that a worker holds apart and does not tell a consumer of them.
    pub notify: u64,
    /// Waiting in the retry tiers. On RabbitMQ a release takes them out for its duration, and then they are not counted.
    pub retry: u64,
    /// Dead letters.
    pub dead: u64,
    /// The retry tiers, shortest first. Empty for the embedded home, which has one shelf for all of them.
    #[serde(default)]
    pub tiers: Vec<TierDepth>,
    /// Every queue in which messages wait for a worker, also those that another number of shards left behind. Empty for
    /// the embedded home.
    #[serde(default)]
    pub shards: Vec<ShardDepth>,
}

/// One retry tier.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TierDepth {
    /// Its delay, as it stands in the queue's name.
    pub delay: String,
    /// Messages that wait in it.
    pub waiting: u64,
}

/// One queue in which messages wait for a worker.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ShardDepth {
    /// Its name on the broker.
    pub queue: String,
    /// Messages that nobody holds.
    pub waiting: u64,
    /// Workers that take from it. With none, what is in it stays there.
    pub workers: u64,
}

/// Why the queue could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The dead letters are being read by someone else.
    #[error("another reader has the dead letters at present: a list, a replay or an export; try again in a moment")]
    Busy,
    /// The home is away, or went away meanwhile.
    #[error("the queue is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A message could not be made durable in its next home.
    #[error("could not park a message")]
    Park(#[from] PublishError),
    /// A queue (or exchange) exists on the broker with other arguments than ours. Trying again does not help: delete it,
    /// or configure what it has.
    #[error("{queue} exists with other arguments: {detail}")]
    Mismatch {
        /// Its name.
        queue: String,
        /// What the broker says about it.
        detail: String,
    },
    /// Another worker consumes, and this one may not do so beside it.
    #[error(
        "the embedded store serves one worker, and another one is connected to this RabbitMQ: stop the other worker, or \
         give all of them one SQL store (postgres://… or mysql://…)"
    )]
    NotAlone,
    /// The queue's URL cannot be read. It is not shown, for a password may be in it.
    #[error("the queue's url is not an amqp:// or amqps:// url")]
    BadUrl,
    /// The queue was closed; nothing comes any more.
    #[error("the queue is closed")]
    Closed,
}
