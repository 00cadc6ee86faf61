//! What lies in tables and queues, read past the programs under test: from the database by SQL, from the broker by AMQP,
//! from sled's own trees.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, de::DeserializeOwned};
use wxpay_shared::{
    disk::{Disk, Holds},
    event::Fact,
    order::Order as StoredOrder,
    queue::{DeadLetters as _, QueueSettings, embedded::EmbeddedQueue},
    store::LedgerEntry,
};

use super::{
    audit::{Account, Dead, Entry, Event, Evidence, Order},
    database::Session,
    rabbitmq::Node,
    story::{MERCHANT, tag_of},
};

impl Evidence {
    /// Reads the tables at this address.
    pub(crate) async fn read_sql(&mut self, url: &str) {
        let mut session = Session::connect(url).await.expect("the database can be reached");
        self.orders =
            rows(&mut session, "wxpay_orders", "out_trade_no, state, received, kept, credited", |[a, b, c, d, e]| {
                Order { number: a, state: b, received: number(&c), kept: number(&d), points: number(&e) }
            })
            .await;
        let columns = "event_key, out_trade_no, amount, notification, coalesce(reason, '')";
        self.events = rows(&mut session, "wxpay_events", columns, |[key, order, amount, notification, reason]| Event {
            amount: number(&amount),
            reason: (!reason.is_empty()).then(|| reason.parse().expect("a reason")),
            key,
            order,
            notification,
        })
        .await;
        let columns = "user_id, seq, out_trade_no, event_key, points, balance";
        self.ledger =
            rows(&mut session, "wxpay_points_ledger", columns, |[user, seq, order, event, points, balance]| {
                let [seq, points, balance] = [seq, points, balance].map(|text| number(&text));
                Entry { user, seq, order, event, points, balance }
            })
            .await;
        self.accounts =
            rows(&mut session, "wxpay_points_accounts", "user_id, balance, entries", |[user, balance, entries]| {
                Account { user, balance: number(&balance), entries: number(&entries) }
            })
            .await;
    }

    /// Reads what is on this broker, and leaves it there.
    pub(crate) async fn read_broker(&mut self, node: &Node, virtual_host: &str) {
        self.between = node.queues(virtual_host).into_iter().filter(|(name, _)| !name.starts_with(DEAD)).collect();
        for letter in node.dead_letters(virtual_host).await {
            let header = |name: &str| {
                let headers = letter.properties.headers().as_ref()?;
                headers.inner().get(name)?.as_long_string().map(|text| text.to_string())
            };
            self.dead.push(Dead {
                id: letter.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default(),
                reason: header("wxpay-reason").and_then(|code| code.parse().ok()),
                tag: tag_of(&String::from_utf8_lossy(&letter.data)),
            });
        }
    }

    /// Reads the store in a directory that no process has open, and the queue where it lies there too.
    pub(crate) async fn read_directory(&mut self, directory: &Path, queue: bool) {
        let disk = Disk::open(directory, Holds::Records).await.expect("the directory is free and sound");
        for (_, order) in tree::<StoredOrder>(&disk, "store.orders") {
            self.events.extend(order.facts.values().map(|recorded| Event {
                key: recorded.fact.key().to_string(),
                order: recorded.fact.order().out_trade_no.to_string(),
                amount: match &recorded.fact {
                    Fact::Payment(payment) => payment.amount.get(),
                    Fact::Refund(refund) => refund.amount.get(),
                },
                notification: recorded.notification.to_string(),
                reason: recorded.rejection.as_ref().map(|rejection| rejection.reason),
            }));
            let state = serde_json::to_value(order.state()).expect("a state is a text");
            self.orders.push(Order {
                number: order.registration.id.out_trade_no.to_string(),
                state: state.as_str().unwrap_or_default().to_owned(),
                received: order.received().get(),
                kept: order.kept().get(),
                points: order.credited,
            });
        }
        let mut ledger: BTreeMap<_, Linked> = tree(&disk, "store.ledger").collect();
        for (key, account) in tree::<serde_json::Value>(&disk, "store.accounts") {
            let key = String::from_utf8(key).expect("names are text");
            let count = |name: &str| account[name].as_i64().expect("a number");
            let user = key.split('\0').nth(1).expect("merchant and user").to_owned();
            let (entries, mut last) = (count("entries"), account["last"].as_u64());
            let mut seq = entries;
            while let Some(linked) = last.and_then(|number| ledger.remove(&number.to_be_bytes()[..])) {
                self.ledger.push(numbered(linked.entry, seq));
                (last, seq) = (linked.before, seq - 1);
            }
            self.accounts.push(Account { user, balance: count("balance"), entries });
        }
        // Those that no account leads to.
        self.ledger.extend(ledger.into_values().map(|linked| numbered(linked.entry, 0)));
        if queue {
            self.read_queue(disk.clone()).await;
        }
        disk.close().await.expect("nobody else has it");
    }

    async fn read_queue(&mut self, disk: Disk) {
        let settings =
            QueueSettings { prefetch: 1, in_flight: 1, retry_delays: Vec::new(), shards: 1, taken_shards: Vec::new() };
        let clock = std::sync::Arc::new(wxpay_shared::clock::SystemClock);
        let queue = EmbeddedQueue::open(disk, settings, clock).await.expect("the queue opens");
        let depths = queue.depths().await.expect("the queue answers");
        self.between =
            [("ready", depths.notify), ("retry", depths.retry)].map(|(name, count)| (name.to_owned(), count)).into();
        let mut desk = queue.open().await.expect("nobody reads");
        while let Some(letter) = desk.next().await.expect("the queue answers") {
            self.dead.push(Dead {
                id: letter.message.id.to_string(),
                reason: letter.message.log.rejection.as_ref().map(|rejection| rejection.reason),
                tag: tag_of(&String::from_utf8_lossy(&letter.message.body)),
            });
        }
        desk.close().await;
    }
}

/// How the names of the dead letters' queue, and of the lock beside it, begin.
const DEAD: &str = "wxpay.notify.dead";
const SEPARATOR: char = '|';

async fn rows<T, const N: usize>(
    session: &mut Session,
    table: &str,
    columns: &str,
    read: impl Fn([String; N]) -> T,
) -> Vec<T> {
    let query = format!("select concat_ws('{SEPARATOR}', {columns}) from {table} where merchant = '{MERCHANT}'");
    let found = session.texts(&query).await.expect("the tables can be read");
    let split = |row: String| row.split(SEPARATOR).map(str::to_owned).collect::<Vec<_>>();
    found.into_iter().map(|row| read(split(row).try_into().expect("a value for each column"))).collect()
}

fn tree<T: DeserializeOwned>(disk: &Disk, name: &str) -> impl Iterator<Item = (Vec<u8>, T)> + use<T> {
    let entries = disk.tree(name).expect("the database can be read");
    entries.iter().map(|entry| {
        let (key, value) = entry.expect("the database can be read");
        (key.to_vec(), serde_json::from_slice(&value).expect("a record of the store"))
    })
}

/// An entry of sled's ledger, and the number of its account's entry before.
#[derive(Deserialize)]
struct Linked {
    entry: LedgerEntry,
    before: Option<u64>,
}

fn numbered(entry: LedgerEntry, seq: i64) -> Entry {
    Entry {
        user: entry.account.user.into(),
        seq,
        order: entry.order.out_trade_no.to_string(),
        event: entry.event.to_string(),
        points: entry.points,
        balance: entry.balance,
    }
}

fn number(text: &str) -> i64 {
    text.parse().expect("a number")
}
