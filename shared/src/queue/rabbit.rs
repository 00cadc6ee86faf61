//! The queue on RabbitMQ: what publisher, consumer and dead letters share, which is getting a connection and keeping one.
//!
//! lapin can recover connections by itself; this does not use it. A connection that is lost is dropped with its channels
//! and everything in flight fails at once, and `supervise` makes a new one, declares the topology again, and starts a
//! new session. So there is one way to come up, at the start and at any time after, and the process outlives any outage.
//! Only a topology that contradicts ours is final ([`QueueError::Mismatch`]).

mod alone;
mod bundle;
mod confirms;
mod consumer;
mod consuming;
mod desk;
mod lanes;
mod packet;
mod publisher;
mod release;
mod settle;
mod shards;
mod silent;
mod wire;

use std::{future::Future, time::Duration};

use backoff::{ExponentialBackoff, backoff::Backoff};
use futures_util::stream::{BoxStream, StreamExt};
use lapin::{
    Channel, Connection, ConnectionProperties, ErrorKind, Event, Queue,
    options::QueueDeclareOptions,
    types::{FieldTable, FrameSize},
    uri::AMQPUri,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use self::{consumer::RabbitConsumer, desk::RabbitDeadLetters, publisher::RabbitPublisher};
use super::{QueueError, QueueSettings, topology};

/// Two missed beats and the connection is dead: a broker that vanished without a word is noticed in 20 s.
const HEARTBEAT_SECONDS: u16 = 10;
/// TCP, TLS and AMQP handshakes each have this long. Afterwards the attempt is given up and made anew.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A friendly goodbye takes no longer; without one the broker finds out by itself.
const GOODBYE: Duration = Duration::from_secs(2);
/// How often a session looks whether its connection and channel still live, besides being told.
const PULSE: Duration = Duration::from_millis(500);

/// How to reach the broker, and in whose name.
struct Broker {
    url: SecretString,
    settings: QueueSettings,
    role: &'static str,
    /// The largest frame, in bytes; as the broker says where `None`.
    frame_max: Option<FrameSize>,
}

impl Broker {
    /// A connection on which the topology is declared.
    async fn connect(&self) -> Result<Connection, QueueError> {
        // The parser's error repeats the URL and the password in it.
        let mut uri: AMQPUri = self.url.expose_secret().parse().map_err(|_| QueueError::BadUrl)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        uri.query.connection_timeout.get_or_insert(u64::try_from(HANDSHAKE.as_millis()).unwrap_or(u64::MAX));
        uri.query.frame_max = uri.query.frame_max.or(self.frame_max);
        let properties =
            ConnectionProperties::default().with_connection_name(format!("wxpay {}", self.role).as_str().into());
        let connecting = timeout(HANDSHAKE, Connection::connect_uri(uri, properties)).await;
        let connection = connecting.map_err(unavailable)?.map_err(unavailable)?;
        timeout(HANDSHAKE, topology::declare(&connection, &self.settings)).await.map_err(unavailable)??;
        Ok(connection)
    }
}

/// A session that lasted so long was a good one: after it, connecting anew begins with the shortest pause.
const LASTED: Duration = Duration::from_secs(5);

/// What is done with a connection while it lives.
trait Session: Send {
    /// Returns when the connection is of no use any more, or when the program stops; with an end where no further
    /// connection is of use.
    fn run(&mut self, connection: Connection) -> impl Future<Output = Option<End>> + Send;
}

/// Runs a session on one connection after another until `stop`, or until trying again is of no use.
async fn supervise(broker: &Broker, stop: &CancellationToken, session: &mut impl Session) -> End {
    let mut delays = ExponentialBackoff {
        initial_interval: Duration::from_millis(200),
        current_interval: Duration::from_millis(200),
        max_interval: Duration::from_secs(2),
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    // What was said of the broker that is away, so that it is said once.
    let mut said: Option<String> = None;
    loop {
        let connected = tokio::select! {
            connected = broker.connect() => connected,
            () = stop.cancelled() => return End::Closed,
        };
        match connected {
            Ok(connection) => {
                tracing::info!(role = broker.role, "connected to RabbitMQ");
                said = None;
                let began = Instant::now();
                if let Some(end) = session.run(connection).await {
                    return end;
                }
                // One that never lasts must not connect without a pause.
                if began.elapsed() >= LASTED {
                    delays.reset();
                }
                if !stop.is_cancelled() {
                    tracing::warn!(role = broker.role, "lost the connection to RabbitMQ, connecting again");
                }
            }
            Err(QueueError::Mismatch { queue, detail }) => {
                tracing::error!(role = broker.role, %queue, %detail, "a queue exists with other arguments");
                return End::Mismatch { queue, detail };
            }
            Err(QueueError::BadUrl) => return End::BadUrl,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                if said.as_ref() != Some(&cause) {
                    tracing::warn!(role = broker.role, cause, "cannot connect to RabbitMQ, trying again");
                    said = Some(cause);
                }
            }
        }
        let pause = delays.next_backoff().unwrap_or(delays.max_interval);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return End::Closed,
        }
    }
}

/// Why there will be no further session.
#[derive(Clone, Debug)]
enum End {
    Closed,
    BadUrl,
    NotAlone,
    Mismatch { queue: String, detail: String },
}

impl End {
    /// Whether it came by itself, and whoever started this must know.
    fn is_fatal(&self) -> bool {
        !matches!(self, Self::Closed)
    }

    fn error(&self) -> QueueError {
        match self {
            Self::Closed => QueueError::Closed,
            Self::BadUrl => QueueError::BadUrl,
            Self::NotAlone => QueueError::NotAlone,
            Self::Mismatch { queue, detail } => QueueError::Mismatch { queue: queue.clone(), detail: detail.clone() },
        }
    }
}

/// The broker's news about a connection. Boxed because lapin's stream has no name.
fn news(connection: &Connection) -> BoxStream<'static, Event> {
    connection.events_listener().boxed()
}

/// Ends a connection, politely if the other side listens. Its channels must live until then: lapin logs an error where one
/// of them has only begun to close.
async fn part(connection: &Connection) {
    if connection.status().connected() && !connection.status().blocked() {
        // Whatever comes of it, the connection is dropped.
        drop(timeout(GOODBYE, connection.close(200, "OK".into())).await);
    }
}

/// Returns when a channel is gone.
async fn disconnected(channel: &Channel) {
    let mut pulse = tokio::time::interval(PULSE);
    while channel.status().connected() {
        pulse.tick().await;
    }
}

const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;

/// How many messages in the queue nobody holds.
async fn ready(channel: &Channel, queue: &str) -> lapin::Result<u64> {
    Ok(inspect(channel, queue).await?.message_count().into())
}

async fn inspect(channel: &Channel, queue: &str) -> lapin::Result<Queue> {
    let passive = QueueDeclareOptions::durable().passive();
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await
}

/// The AMQP reply code that the broker gave.
fn code(error: &lapin::Error) -> Option<u16> {
    if let ErrorKind::ProtocolError(amqp) = error.kind() { Some(amqp.get_id()) } else { None }
}

fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> QueueError {
    QueueError::Unavailable(error.into())
}
