//! Reading the dead letters: a subscription that holds all of them until the reader closes it, behind a lock.
//!
//! They come in windows, a consumer each. Without a limit the broker would push all of them into this process's memory as
//! fast as it can; with the limit of one consumer the reading would end at it, since what was read stays unanswered. So a
//! consumer whose window is full is cancelled, which leaves its letters in the reader's hands, and another one goes on.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{future::FutureExt, stream::StreamExt};
use lapin::{
    Channel, Connection, message as letter,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{FieldTable, FrameSize},
};
use secrecy::SecretString;
use tokio::{sync::Mutex, time::timeout};

use super::{
    Broker, NOT_FOUND, RESOURCE_LOCKED, RabbitPublisher, bundle, code, inspect, part, ready, settle::Hands,
    shards::Shards, unavailable, wire,
};
use crate::{
    envelope::Message,
    queue::{
        DeadLetters, Delivery, Depths, Desk, Home, QueueError, QueueSettings, Settle, ShardDepth, Ticket, TierDepth,
        topology,
    },
};

/// A letter that was counted but does not come within this time will not come.
const LETTER: Duration = Duration::from_secs(10);
/// How long the opening waits for the broker.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the closing waits until the broker has taken everything back; 100,000 letters take it a few seconds.
const CLOSING: Duration = Duration::from_secs(30);
/// Letters that are on their way or unanswered at one consumer, at most: some megabytes.
const WINDOW: u16 = 1_000;
/// The largest frame where nothing but counts of messages come: lapin keeps buffers for 32 of them each way. It is the least that
/// every RabbitMQ takes.
const COUNTS_FRAME_MAX: FrameSize = 8 * 1024;

/// The dead letters on RabbitMQ. Connects when it is asked for something, and keeps its connections: one to look, and from the
/// first desk on one to publish.
pub struct RabbitDeadLetters {
    broker: Broker,
    counter: Broker,
    parking: std::sync::Mutex<Option<Arc<RabbitPublisher>>>,
    connection: Mutex<Option<Arc<Connection>>>,
    shards: Mutex<Shards>,
}

impl RabbitDeadLetters {
    /// Nothing is connected or read yet.
    #[must_use]
    pub fn new(url: SecretString, settings: QueueSettings) -> Self {
        let shards = Mutex::new(Shards::all(settings.shards));
        let counter =
            Broker { url: url.clone(), settings: settings.clone(), role: "depths", frame_max: Some(COUNTS_FRAME_MAX) };
        let broker = Broker { url, settings, role: "desk", frame_max: None };
        Self { broker, counter, parking: std::sync::Mutex::default(), connection: Mutex::default(), shards }
    }

    /// Closes the connections; a few seconds at most. A desk that is still open gives everything back.
    pub async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            part(&connection).await;
        }
        let parking = self.parking.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(parking) = parking {
            parking.close().await;
        }
    }

    /// What replays are published with. One that found a queue which contradicts ours is of no use any more, but the queue
    /// may have been put right since.
    fn parking(&self) -> Arc<RabbitPublisher> {
        let mut kept = self.parking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parking) = kept.as_ref().filter(|parking| !parking.is_over()) {
            return Arc::clone(parking);
        }
        let Broker { url, settings, .. } = &self.broker;
        let parking = RabbitPublisher::start_as(url.clone(), settings.clone(), "desk parking", None);
        Arc::clone(kept.insert(Arc::new(parking)))
    }

    /// A connection that lives, with the topology on it.
    async fn connection(&self) -> Result<Arc<Connection>, QueueError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| connection.status().connected()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(self.counter.connect().await?);
        *kept = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Does it once more with a new connection, which declares the topology, where a queue has vanished.
    async fn forget(&self, error: lapin::Error) -> Result<(), QueueError> {
        if code(&error) == Some(NOT_FOUND) {
            *self.connection.lock().await = None;
            self.shards.lock().await.look_afresh();
            return Ok(());
        }
        Err(unavailable(error))
    }

    async fn count(&self) -> Result<lapin::Result<Depths>, QueueError> {
        let connection = self.connection().await?;
        let counting = async {
            let mut shards = self.shards.lock().await;
            shards.look(&connection).await?;
            let channel = connection.create_channel().await?;
            let mut depths = Depths { dead: ready(&channel, topology::DEAD).await?, ..Depths::default() };
            for name in shards.names() {
                let queue = inspect(&channel, name).await?;
                let (waiting, workers) = (queue.message_count().into(), queue.consumer_count().into());
                depths.notify += waiting;
                depths.shards.push(ShardDepth { queue: name.to_owned(), waiting, workers });
            }
            for delay in &self.broker.settings.retry_delays {
                let waiting = ready(&channel, &topology::retry(*delay)).await?;
                depths.retry += waiting;
                depths.tiers.push(TierDepth { delay: topology::delay(*delay), waiting });
            }
            Ok(depths)
        };
        timeout(PATIENCE, counting).await.map_err(unavailable)
    }
}

#[async_trait]
impl DeadLetters for RabbitDeadLetters {
    async fn open(&self) -> Result<Box<dyn Desk>, QueueError> {
        let parking = self.parking();
        parking.connected_within(PATIENCE).await?;
        // A connection for each reader, because the lock belongs to a connection.
        let connection = self.broker.connect().await?;
        let hands = Hands::new(parking, self.broker.settings.clone());
        let opening = RabbitDesk::open(connection, hands);
        match timeout(PATIENCE, opening).await.map_err(unavailable)? {
            Ok(desk) => Ok(Box::new(desk)),
            Err(error) if code(&error) == Some(RESOURCE_LOCKED) => Err(QueueError::Busy),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn depths(&self) -> Result<Depths, QueueError> {
        match self.count().await? {
            Ok(depths) => Ok(depths),
            Err(error) => {
                self.forget(error).await?;
                self.count().await?.map_err(unavailable)
            }
        }
    }
}

struct RabbitDesk {
    connection: Connection,
    channel: Channel,
    stream: lapin::Consumer,
    /// The number of the consumer's first letter on this channel; 0 before it came.
    window: u64,
    hands: Hands,
    first: Option<letter::Delivery>,
    left: u64,
}

impl RabbitDesk {
    async fn open(connection: Connection, hands: Hands) -> lapin::Result<Self> {
        let channel = connection.create_channel().await?;
        let lock = QueueDeclareOptions::exclusive();
        channel.queue_declare(topology::READER.into(), lock, FieldTable::default()).await?;
        hands.open(channel.clone());
        // A passive declare would count too, but says 0 for a queue that is still choosing its leader after a restart.
        // A get waits for the leader, and says how many are behind the one that it took.
        let first = channel.basic_get(topology::DEAD.into(), BasicGetOptions::default()).await?;
        let left = first.as_ref().map_or(0, |first| first.message_count.into());
        let first = first.map(|first| {
            hands.hold_one(first.delivery.delivery_tag);
            first.delivery
        });
        channel.basic_qos(WINDOW, BasicQosOptions::default()).await?;
        let stream = consume(&channel).await?;
        Ok(Self { connection, channel, stream, window: 0, hands, first, left })
    }

    /// Opens the next window once nothing of this one can come any more.
    async fn turn_page(&mut self) -> lapin::Result<()> {
        if self.window == 0 || self.hands.held_since(self.window) < usize::from(WINDOW) {
            return Ok(());
        }
        self.channel.basic_cancel(self.stream.tag(), BasicCancelOptions::default()).await?;
        self.stream = consume(&self.channel).await?;
        self.window = 0;
        Ok(())
    }

    /// The next letter of those that are left, as the broker has it.
    async fn letter(&mut self) -> Result<Option<letter::Delivery>, QueueError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.left == 0 {
            return Ok(None);
        }
        self.turn_page().await.map_err(unavailable)?;
        let letter = timeout(LETTER, self.stream.next()).await.map_err(unavailable)?;
        let letter = letter.ok_or_else(|| unavailable("the reading was cut off"))?.map_err(unavailable)?;
        self.left -= 1;
        if self.window == 0 {
            self.window = letter.delivery_tag;
        }
        Ok(Some(letter))
    }

    /// A bundle that the broker gave up, or that a worker did not know, becomes letters of its notifications; they come at
    /// the end of this reading.
    async fn take_apart(&mut self, letter: &letter::Delivery, notifications: Vec<Message>) -> Result<(), QueueError> {
        let ticket = self.hands.hold_one(letter.delivery_tag);
        let log = wire::dead_letter(&letter.properties, Vec::new()).log;
        for message in notifications {
            self.hands.publish(topology::DEAD, Message { log: log.clone(), ..message }).await?;
            self.left += 1;
        }
        self.hands.ack(&[ticket]).await
    }

    fn read(&self, letter: letter::Delivery) -> Delivery {
        let ticket = self.hands.hold_one(letter.delivery_tag);
        let message = wire::dead_letter(&letter.properties, letter.data);
        Delivery { message, returned: 0, ticket }
    }

    /// The broker takes back what a closed channel held only after it has said that the channel is closed. So everything
    /// is given back by name, and seen in the queue, before the closing returns.
    async fn give_back_rest(&mut self) -> Result<(), QueueError> {
        let tag = self.stream.tag();
        self.channel.basic_cancel(tag, BasicCancelOptions::default()).await.map_err(unavailable)?;
        while let Some(Some(Ok(delivery))) = self.stream.next().now_or_never() {
            self.hands.hold_one(delivery.delivery_tag);
        }
        let rest = self.hands.give_all_back().await?;
        let mut look = tokio::time::interval(Duration::from_millis(20));
        loop {
            look.tick().await;
            let found = ready(&self.channel, topology::DEAD).await.map_err(unavailable)?;
            if usize::try_from(found).is_ok_and(|found| found >= rest) {
                break;
            }
        }
        let unlock = QueueDeleteOptions::default();
        self.channel.queue_delete(topology::READER.into(), unlock).await.map(drop).map_err(unavailable)
    }
}

#[async_trait]
impl Desk for RabbitDesk {
    async fn next(&mut self) -> Result<Option<Delivery>, QueueError> {
        while let Some(letter) = self.letter().await? {
            match bundle::unpack(&letter.properties, &letter.data) {
                None => return Ok(Some(self.read(letter))),
                Some(notifications) => self.take_apart(&letter, notifications).await?,
            }
        }
        Ok(None)
    }

    async fn add(&self, message: Message) -> Result<(), QueueError> {
        self.hands.publish(topology::DEAD, message).await
    }

    async fn close(mut self: Box<Self>) {
        let given_back = timeout(CLOSING, self.give_back_rest()).await;
        if !matches!(given_back, Ok(Ok(()))) {
            tracing::warn!("the broker did not confirm that the dead letters are back; it takes them back by itself");
        }
        self.hands.close();
        part(&self.connection).await;
    }
}

#[async_trait]
impl Settle for RabbitDesk {
    /// A person is told that the letter is gone, so the broker must have read the ack: it reads a channel in order, and
    /// answers a question behind it.
    async fn ack(&self, tickets: &[Ticket]) -> Result<(), QueueError> {
        self.hands.ack(tickets).await?;
        let heard = timeout(LETTER, ready(&self.channel, topology::READER)).await.map_err(unavailable)?;
        heard.map(drop).map_err(unavailable)
    }

    /// It stays in the reader's hands until the closing: given back at once, it would come again in this reading.
    async fn give_back(&self, _: &[Delivery]) -> Result<(), QueueError> {
        Ok(())
    }

    async fn park(&self, delivery: &Delivery, home: Home) -> Result<(), QueueError> {
        self.hands.park(delivery, home).await
    }
}

async fn consume(channel: &Channel) -> lapin::Result<lapin::Consumer> {
    let options = BasicConsumeOptions::default();
    channel.basic_consume(topology::DEAD.into(), "".into(), options, FieldTable::default()).await
}
