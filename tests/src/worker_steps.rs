//! The worker's fence and gate, on the embedded queue with a store that fails to order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use wxpay_shared::{
    clock::{Clock, SystemClock},
    config::Config,
    disk::{Disk, Holds},
    envelope::{Api, Envelope, Message, SealKeys},
    event::Event,
    fen::Fen,
    ids::{AccountId, MerchantName, NotificationId, OrderId, OutRefundNo},
    merchant::{LiveMerchants, Merchants},
    order::{Order, OrderState, Registration},
    queue::{DeadLetters as _, Publisher as _, QueueSettings, embedded::EmbeddedQueue},
    reason::Reason,
    settled::Settled,
    store::{
        Account, Announced, Applied, Closed, LedgerEntry, Registered, Store, StoreError,
        audit::{AuditLine, AuditQuery},
        embedded::EmbeddedStore,
        seen::Seen,
    },
};
use wxpay_worker::{NotReady, Parts, Settings, Worker, deliver::GATHER};

use crate::{
    harness::{
        notice::Notice,
        pair::{DEADLINE, Pair},
        wait_until,
    },
    store_contract::samples::{fen, order_id, registration},
};

/// A store that panics over one order, and is away on demand: known as such, or not.
struct Moody {
    inner: EmbeddedStore,
    panics_over: &'static str,
    away: AtomicBool,
    unknown: AtomicBool,
    asked: AtomicUsize,
}

impl Moody {
    fn check(&self) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match (self.away.load(Ordering::SeqCst), self.unknown.load(Ordering::SeqCst)) {
            (false, _) => Ok(()),
            (true, false) => Err(StoreError::Unavailable("on holiday".into())),
            (true, true) => Err(StoreError::Transient("a code that nobody knows".into())),
        }
    }
}

#[async_trait]
impl Store for Moody {
    async fn apply(&self, events: &[Event]) -> Result<Vec<Applied>, StoreError> {
        self.check()?;
        assert!(events.iter().all(|event| event.fact.order().out_trade_no.as_str() != self.panics_over), "as told");
        self.inner.apply(events).await
    }

    async fn look(&self, events: &[Event]) -> Result<Seen, StoreError> {
        self.check()?;
        self.inner.look(events).await
    }

    async fn write_audit(&self, lines: &[AuditLine]) -> Result<(), StoreError> {
        self.check()?;
        self.inner.write_audit(lines).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditLine>, StoreError> {
        self.inner.audit(query).await
    }

    async fn register(&self, registration: &Registration) -> Result<Registered, StoreError> {
        self.inner.register(registration).await
    }

    async fn close(&self, id: &OrderId) -> Result<Closed, StoreError> {
        self.inner.close(id).await
    }

    async fn announce_refund(&self, id: &OrderId, number: &OutRefundNo, amount: Fen) -> Result<Announced, StoreError> {
        self.inner.announce_refund(id, number, amount).await
    }

    async fn order(&self, id: &OrderId) -> Result<Option<(Order, Vec<LedgerEntry>)>, StoreError> {
        self.inner.order(id).await
    }

    async fn account(&self, id: &AccountId, limit: usize) -> Result<Option<Account>, StoreError> {
        self.inner.account(id, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.check()
    }
}

struct Bench {
    queue: EmbeddedQueue,
    store: Arc<Moody>,
    worker: Arc<Worker>,
    seal: Arc<SealKeys>,
    _stop: DropGuard,
    _directory: TempDir,
}

impl Bench {
    async fn start(panics_over: &'static str) -> Self {
        Self::start_by(Arc::new(SystemClock), panics_over, |_| {}).await
    }

    /// The same by another clock and with other settings.
    async fn start_by(clock: Arc<dyn Clock>, panics_over: &'static str, change: impl FnOnce(&mut Config)) -> Self {
        let directory = TempDir::with_prefix("wxpay-worker-").unwrap();
        let mut config = Config::load(Some(&Pair::prepare("embedded").config_file()), []).unwrap();
        change(&mut config);
        let disk = Disk::open(directory.path(), Holds::Records).await.unwrap();
        let settings = QueueSettings { in_flight: 100, ..config.queue_settings() };
        let queue = EmbeddedQueue::open(disk.clone(), settings, Arc::clone(&clock)).await.unwrap();
        let inner = EmbeddedStore::open(disk.clone(), Arc::clone(&clock)).unwrap();
        let (away, unknown, asked) = (AtomicBool::default(), AtomicBool::default(), AtomicUsize::default());
        let store = Arc::new(Moody { inner, panics_over, away, unknown, asked });
        let seal = Arc::new(config.seal_keys().unwrap().unwrap());
        let worker = Worker::new(Parts {
            consumer: Arc::new(queue.consumer()),
            dead_letters: Arc::new(queue.clone()),
            store: Arc::clone(&store) as _,
            settled: Some(Settled::new(disk.clone())),
            disk,
            merchants: Arc::new(LiveMerchants::new(Merchants::open(&config).unwrap())),
            seal: Arc::clone(&seal),
            clock,
            settings: Settings::of(&config),
        });
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&worker).run(stop.clone()));
        Self { queue, store, worker, seal, _stop: stop.drop_guard(), _directory: directory }
    }

    async fn register(&self, order: &str) {
        let rate = "1/100".parse().unwrap();
        let registration = Registration { amount: fen(1_000), appid: None, rate, ..registration(order, None) };
        self.store.register(&registration).await.unwrap();
    }

    fn sealed(&self, order: &str) -> Message {
        let received_at = SystemClock.now();
        let envelope = Envelope {
            id: NotificationId::new(received_at),
            merchant: MerchantName::parse("shop").unwrap(),
            api: Api::V2,
            received_at,
            body: Notice::new(order, 1_000).xml("n").into(),
        };
        envelope.seal(&self.seal)
    }

    /// The gate shuts before what is in hand goes back, so this may be a moment later.
    async fn back_where_it_was(&self) {
        wait_until("it waits where it was", DEADLINE, async || {
            let depths = self.queue.depths().await.unwrap();
            assert_eq!((depths.retry, depths.dead), (0, 0), "no attempt is used");
            depths.notify == 1
        })
        .await;
    }

    async fn paid(&self, order: &str) {
        wait_until("it is paid", DEADLINE, async || {
            self.store.order(&order_id(order)).await.unwrap().unwrap().0.state() == OrderState::Paid
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_its_own_message_attempts_and_its_neighbours_nothing() {
    let bench = Bench::start("BAD").await;
    let orders = ["G1", "G2", "BAD", "G3", "G4"];
    for order in orders {
        bench.register(order).await;
    }
    let publishes = orders.map(|order| bench.queue.publish(bench.sealed(order)));
    for published in futures_util::future::join_all(publishes).await {
        published.unwrap();
    }
    for order in ["G1", "G2", "G3", "G4"] {
        bench.paid(order).await;
    }
    wait_until("the bad one is dead", DEADLINE, async || bench.queue.depths().await.unwrap().dead == 1).await;
    let mut desk = bench.queue.open().await.unwrap();
    let letter = desk.next().await.unwrap().unwrap().message;
    let rejection = letter.log.rejection.unwrap();
    assert_eq!((rejection.reason, letter.log.attempts), (Reason::AttemptsExhausted, 4));
    assert_eq!(rejection.detail, "the handler panicked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_costs_no_attempt_and_is_asked_until_it_is_back() {
    let bench = Bench::start("").await;
    bench.register("W").await;
    bench.store.away.store(true, Ordering::SeqCst);
    bench.queue.publish(bench.sealed("W")).await.unwrap();
    wait_until("the worker is not ready", DEADLINE, async || bench.worker.ready() == Err(NotReady::Store)).await;
    let asked = bench.store.asked.load(Ordering::SeqCst);
    wait_until("the store is asked again", DEADLINE, async || bench.store.asked.load(Ordering::SeqCst) > asked + 3)
        .await;
    bench.back_where_it_was().await;
    bench.store.away.store(false, Ordering::SeqCst);
    bench.paid("W").await;
    assert_eq!(bench.worker.ready(), Ok(()));
}

/// Whatever it says of the event.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_nothing_is_away() {
    let bench = Bench::start("").await;
    bench.register("W").await;
    bench.store.unknown.store(true, Ordering::SeqCst);
    bench.store.away.store(true, Ordering::SeqCst);
    bench.queue.publish(bench.sealed("W")).await.unwrap();
    wait_until("the worker is not ready", DEADLINE, async || bench.worker.ready() == Err(NotReady::Store)).await;
    bench.back_where_it_was().await;
    bench.store.away.store(false, Ordering::SeqCst);
    bench.paid("W").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_trickles_in_is_applied_in_batches() {
    let bench = Bench::start("").await;
    let orders: Vec<_> = (0..30).map(|number| format!("T{number}")).collect();
    for order in &orders {
        bench.register(order).await;
    }
    let (asked, begun) = (bench.store.asked.load(Ordering::SeqCst), Instant::now());
    for order in &orders {
        bench.queue.publish(bench.sealed(order)).await.unwrap();
    }
    for order in &orders {
        bench.paid(order).await;
    }
    let batches = bench.store.asked.load(Ordering::SeqCst) - asked;
    assert!(batches as u128 <= 1 + begun.elapsed().as_nanos() / GATHER.as_nanos(), "{batches} batches");
}

/// The machine's clock, set forward or back by so many hours.
#[derive(Default)]
struct Jumping(AtomicI64);

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        SystemClock.now().saturating_add(SignedDuration::from_hours(self.0.load(Ordering::SeqCst))).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_by_hours_delays_nothing() {
    let clock = Arc::new(Jumping::default());
    let bench = Bench::start_by(Arc::<Jumping>::clone(&clock), "", |config| {
        config.queue.retry_delays = vec![Duration::from_secs(2)];
        config.worker.max_attempts = 100;
    });
    let bench = bench.await;
    for (order, hours) in [("J1", 6), ("J2", -12), ("J3", 24), ("J4", -48)] {
        bench.queue.publish(bench.sealed(order)).await.unwrap();
        wait_until("it waits for its order", DEADLINE, async || bench.queue.depths().await.unwrap().retry == 1).await;
        clock.0.fetch_add(hours, Ordering::SeqCst);
        bench.register(order).await;
        bench.paid(order).await;
    }
    assert_eq!(bench.queue.depths().await.unwrap().dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ingress_did_not_seal_is_a_dead_letter_at_once() {
    let bench = Bench::start("").await;
    bench.register("S").await;
    let mut forged = bench.sealed("S");
    forged.body = Notice::new("S", 999).xml("n").into();
    let foreign = Message::received(None, Default::default(), "garbage".into(), Default::default());
    let mut empty = bench.sealed("S");
    empty.body = Default::default();
    for message in [forged, foreign, empty, bench.sealed("S")] {
        bench.queue.publish(message).await.unwrap();
    }
    bench.paid("S").await;
    wait_until("three are dead", DEADLINE, async || bench.queue.depths().await.unwrap().dead == 3).await;
    let mut desk = bench.queue.open().await.unwrap();
    while let Some(letter) = desk.next().await.unwrap() {
        let log = letter.message.log;
        assert_eq!((log.rejection.unwrap().reason, log.attempts), (Reason::Unsealed, 1));
    }
}
