//! Messages that ingress did not make: garbage, nothing, another seal, a later version.

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Consumer,
    options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::task::JoinHandle;
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    envelope::{Api, Envelope, SealKeys},
    ids::{MerchantName, NotificationId},
    queue::topology,
};

use crate::harness::{
    notice::Notice,
    proxy::{Cut, Proxy, Weather},
    rig::{RECOVERY, Rig},
    wait_until,
};

/// The number of an order whose notification no worker survives.
const DEADLY: &[u8] = b"DEADLY";

impl Rig {
    /// A worker dies each time it is given one message, which is a single notification. That one must become a dead
    /// letter, and none of those that the worker held beside it. A worker that dies of receiving bytes cannot look at them
    /// first, so this holds where the broker knows of each death before the next worker asks for messages.
    pub(super) async fn message_that_kills(&mut self) {
        let weather = Weather::HoldAnswer(DEADLY);
        let dead = tokio::spawn(until_deadly(self.copies_of_dead_letters().await));
        self.consuming.set(weather);
        self.publish_as_strangers(vec![(BasicProperties::default(), DEADLY.to_vec())]).await;
        self.dies_each_time(|rig| &rig.consuming, weather, dead, true).await;
    }

    /// A worker dies each time it asks the store about one notification. That one must become a dead letter, and none of
    /// those that the worker held beside it, in the same message or in others.
    pub(super) async fn notification_that_kills(&mut self) {
        let weather = Weather::HoldRequest(DEADLY);
        let dead = tokio::spawn(until_deadly(self.copies_of_dead_letters().await));
        self.storing.set(weather);
        self.strangers += 1;
        self.pair.post("shop", Notice::new("DEADLY", 100).xml("deadly")).await;
        self.dies_each_time(|rig| &rig.storing, weather, dead, false).await;
    }

    async fn dies_each_time(
        &mut self,
        line: fn(&Self) -> &Proxy,
        weather: Weather,
        dead: JoinHandle<()>,
        deaths_are_known: bool,
    ) {
        let mut kills = 0;
        loop {
            wait_until("a worker has it, or it is a dead letter", RECOVERY, async || {
                dead.is_finished() || line(self).is_holding()
            })
            .await;
            if dead.is_finished() {
                break;
            }
            kills += 1;
            self.kill_worker(0);
            line(self).cut(Cut::Reset);
            line(self).set(weather);
            if deaths_are_known {
                wait_until("the broker knows of the death", RECOVERY, async || {
                    self.node().in_hands(&self.virtual_host, topology::NOTIFY) == 0
                })
                .await;
            }
            self.start_worker(0);
            self.ready().await;
        }
        dead.await.expect("copies of dead letters come until then");
        // A message that goes back unread was delivered as well: once a death, at most.
        assert!(2 * kills >= topology::DELIVERY_LIMIT, "dead after {kills} deaths");
        line(self).set(Weather::Fair);
    }

    /// A copy of each dead letter from now on. To look through those that there are takes minutes where they are many.
    async fn copies_of_dead_letters(&self) -> Consumer {
        let channel = self.node().stranger(self.virtual_host_url()).await;
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await.expect("a queue");
        let (exchange, key, bind) = (topology::EXCHANGE, topology::DEAD, QueueBindOptions::default());
        let bound = channel.queue_bind(queue.name().clone(), exchange.into(), key.into(), bind, FieldTable::default());
        bound.await.expect("the queue can be bound");
        let unanswered = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(queue.name().clone(), "".into(), unanswered, FieldTable::default());
        consumer.await.expect("the queue can be read")
    }

    /// Each must become a dead letter at once, and its neighbours must not suffer.
    pub(super) async fn strangers_publish(&mut self) {
        let sealed = Envelope {
            id: NotificationId::new(SystemClock.now()),
            merchant: MerchantName::parse("shop").expect("a name"),
            api: Api::V2,
            received_at: SystemClock.now(),
            body: Notice::new("STRANGE", 100).xml("stranger").into(),
        };
        let mut later = sealed.clone();
        later.id = NotificationId::new(SystemClock.now());
        let sealed = sealed.seal(&SealKeys::new(b"a key that ingress does not have", None));
        let mut later = later.seal(&SealKeys::new(b"a key that ingress does not have", None));
        later.headers.insert("wxpay-version".to_owned(), "2".to_owned());
        let foreign = |bytes: Vec<u8>| {
            (BasicProperties::default().with_message_id(NotificationId::new(SystemClock.now()).as_str().into()), bytes)
        };
        let mut messages = vec![foreign(Vec::new()), foreign(b"\xff\0garbage".to_vec())];
        for message in [sealed, later] {
            let mut table = FieldTable::default();
            for (name, value) in &message.headers {
                table.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
            }
            let properties = BasicProperties::default().with_message_id(message.id.as_str().into());
            messages.push((properties.with_headers(table), message.body.to_vec()));
        }
        self.publish_as_strangers(messages).await;
    }

    async fn publish_as_strangers(&mut self, messages: Vec<(BasicProperties, Vec<u8>)>) {
        let channel = self.node().stranger(self.virtual_host_url()).await;
        self.strangers += messages.len();
        for (properties, body) in messages {
            let (exchange, key) = (topology::EXCHANGE.into(), topology::NOTIFY.into());
            let published =
                channel.basic_publish(exchange, key, BasicPublishOptions::default(), &body, properties).await;
            published.expect("the broker takes what anyone publishes");
        }
    }
}

/// Returns when the deadly notification is among these dead letters: given up by the broker at its limit, and not before.
async fn until_deadly(mut letters: Consumer) {
    while let Some(letter) = letters.next().await {
        let letter = letter.expect("the broker goes on sending");
        if letter.data.windows(DEADLY.len()).any(|part| part == DEADLY) {
            let headers = letter.properties.headers().as_ref().expect("the broker says why");
            let reason = headers.inner().get("x-first-death-reason").and_then(AMQPValue::as_long_string);
            assert_eq!(reason.map(ToString::to_string).as_deref(), Some("delivery_limit"));
            return;
        }
    }
    panic!("the broker sends no more");
}
