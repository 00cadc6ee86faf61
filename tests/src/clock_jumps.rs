//! A clock that jumps by hours and years, forwards and back, under a pair on RabbitMQ and PostgreSQL: money moves once
//! each, whatever day it is thought to be; only v3's proofs depend on the hour, and wait until it is right.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use wxpay_ingress::Ingress;
use wxpay_shared::{
    clock::{Clock, SystemClock},
    config::Config,
    disk::{Disk, Holds},
    http,
    merchant::{LiveMerchants, Merchants},
    order::Registration,
    queue::{
        DeadLetters as _, Publisher as _,
        rabbit::{RabbitConsumer, RabbitDeadLetters, RabbitPublisher},
    },
    settled::Settled,
    store::{self, Store},
};
use wxpay_worker::{Parts, Settings, Worker};

use crate::{
    harness::{
        database::{self, Kind},
        notice::Notice,
        pair::{API_V3_KEY, DEADLINE, Pair},
        rabbitmq, wait_until,
        wechat::{self, Signed},
    },
    store_contract::samples::{account_id, fen, order_id, registration},
};

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;
/// How far the clock is off, one after the other.
const JUMPS: [i64; 7] = [0, 2 * HOUR, -2 * HOUR, 10 * YEAR, -10 * YEAR, 301, 0];

/// The machine's clock, so many seconds off.
#[derive(Default)]
struct Jumping(AtomicI64);

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        SystemClock.now() + SignedDuration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

struct Bench {
    clock: Arc<Jumping>,
    store: Arc<dyn Store>,
    dead_letters: Arc<RabbitDeadLetters>,
    address: String,
    client: reqwest::Client,
    _stop: DropGuard,
    _directory: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let directory = TempDir::with_prefix("wxpay-clock-").unwrap();
        let config = Config::load(Some(&Pair::prepare("embedded").config_file()), []).unwrap();
        let clock = Arc::new(Jumping::default());
        let url = SecretString::from(rabbitmq::fresh_url().await);
        let store_url = database::fresh_url(Kind::Postgres).await;
        database::migrate(&store_url).await;
        let disk = Disk::open(directory.path(), Holds::Shortcut).await.unwrap();
        let store = store::open::open(&store_url.into(), 4, &disk, Arc::clone(&clock) as _).await.unwrap();
        let merchants = Arc::new(LiveMerchants::new(Merchants::open(&config).unwrap()));
        let seal = Arc::new(config.seal_keys().unwrap().unwrap());
        let dead_letters = Arc::new(RabbitDeadLetters::new(url.clone(), config.queue_settings()));
        let worker = Worker::new(Parts {
            consumer: Arc::new(RabbitConsumer::start(url.clone(), config.queue_settings())),
            dead_letters: Arc::clone(&dead_letters) as _,
            store: Arc::clone(&store),
            settled: Some(Settled::new(disk.clone())),
            disk,
            merchants: Arc::clone(&merchants),
            seal: Arc::clone(&seal),
            clock: Arc::clone(&clock) as _,
            settings: Settings::of(&config),
        });
        let publisher = Arc::new(RabbitPublisher::start(url, config.queue_settings()));
        wait_until("the publisher is connected", DEADLINE, async || publisher.ready().is_ok()).await;
        let ingress = Arc::new(Ingress::new(merchants, seal, publisher, Arc::clone(&clock) as _));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(worker.run(stop.clone()));
        tokio::spawn(http::serve(listener, wxpay_ingress::router(ingress), Duration::ZERO, stop.clone()));
        let (_stop, client) = (stop.drop_guard(), reqwest::Client::new());
        Self { clock, store, dead_letters, address, client, _stop, _directory: directory }
    }

    async fn register(&self, order: &str) {
        let rate = "1/100".parse().unwrap();
        let registration = Registration { amount: fen(1_000), appid: None, rate, ..registration(order, Some("u")) };
        self.store.register(&registration).await.unwrap();
    }

    async fn tell_v2(&self, order: &str, nonce: &str) {
        let url = format!("{}/v2/shop", self.address);
        let answer = self.client.post(url).body(Notice::new(order, 1_000).xml(nonce)).send().await.unwrap();
        assert!(answer.text().await.unwrap().contains("SUCCESS"));
    }

    /// Whether it was taken.
    async fn tell_v3(&self, order: &str, number: usize) -> bool {
        let content = wechat::transaction(order, 1_000);
        let Signed { headers, body } =
            wechat::v3(&wechat::public_key(), API_V3_KEY, "TRANSACTION.SUCCESS", number, &content);
        let request = self.client.post(format!("{}/v3/shop", self.address)).body(body);
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        request.send().await.unwrap().status().is_success()
    }

    async fn is_paid(&self, order: &str) -> bool {
        let (order, _) = self.store.order(&order_id(order)).await.unwrap().expect("it is registered");
        order.payments().next().is_some()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_moves_no_money_twice_and_loses_none() {
    let bench = Bench::start().await;
    for (number, jump) in JUMPS.into_iter().enumerate() {
        bench.clock.0.store(jump, Ordering::SeqCst);
        let [early, late, v3] = ["EARLY", "LATE", "V3"].map(|name| format!("{name}{number}"));
        bench.register(&early).await;
        bench.register(&v3).await;
        bench.tell_v2(&early, "n").await;
        // Goes through a retry tier, and may come back on another day.
        bench.tell_v2(&late, "n").await;
        bench.register(&late).await;
        assert_eq!(bench.tell_v3(&v3, number).await, jump.abs() <= 300, "off by {jump} s");
        let before = number.saturating_sub(1);
        bench.tell_v2(&format!("EARLY{before}"), "again").await;
    }
    let orders = (0..JUMPS.len()).flat_map(|number| ["EARLY", "LATE", "V3"].map(|name| format!("{name}{number}")));
    let orders: Vec<_> = orders.collect();
    for (number, order) in orders.iter().enumerate() {
        if order.starts_with("V3") {
            assert!(bench.tell_v3(order, 100 + number).await, "the clock is right again");
        }
        wait_until("it is paid", DEADLINE, async || bench.is_paid(order).await).await;
    }
    wait_until("nothing is on its way", DEADLINE, async || {
        let depths = bench.dead_letters.depths().await.unwrap();
        depths.notify + depths.retry == 0
    })
    .await;
    for order in &orders {
        let (found, ledger) = bench.store.order(&order_id(order)).await.unwrap().unwrap();
        assert_eq!((found.payments().count(), ledger.len()), (1, 1), "{order}");
    }
    let balance = bench.store.account(&account_id("u"), 1).await.unwrap().unwrap().balance;
    assert_eq!(balance.to_string(), (orders.len() * 10).to_string());
    assert_eq!(bench.dead_letters.depths().await.unwrap().dead, 0);
}
