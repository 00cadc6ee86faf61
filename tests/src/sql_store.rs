//! What only a SQL store has: several workers at once, a server that dies, a schema, deadlocks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use wxpay_shared::{
    event::Event,
    order::Registration,
    store::{Applied, Store, StoreError, open},
};
use wxpay_worker::apply;

use crate::{
    harness::{
        database::{Database, Kind, Session, execute, fresh_schema, fresh_url},
        wait_until,
    },
    store_contract::{
        samples::{audit, outcome, paid, refunded, register, registration},
        sql::open_store,
    },
};

mod lasting;
mod read_only;
mod silence;

use read_only::a_server_that_takes_no_writes_is_away;
use silence::{a_call_over_a_silent_line_gives_its_connection_up, a_line_that_falls_silent_after_a_call_is_given_up};

const DEADLINE: Duration = Duration::from_secs(60);
const ORDERS: u64 = 200;
const USERS: u64 = 7;

macro_rules! on_each_server {
    ($($test:ident),+) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(super::Kind::Postgres).await; })+
        }
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(super::Kind::Mariadb).await; })+
        }
    };
}

on_each_server!(
    four_workers_end_like_one,
    one_transaction_on_two_orders_is_applied_once,
    a_server_that_is_killed_loses_and_doubles_nothing,
    a_wrong_schema_is_named,
    a_schema_that_several_make_at_once_is_made_once,
    a_server_that_comes_late_is_looked_at,
    a_server_that_takes_no_writes_is_away,
    a_call_over_a_silent_line_gives_its_connection_up,
    a_line_that_falls_silent_after_a_call_is_given_up,
    a_deadlock_is_tried_again
);

async fn four_workers_end_like_one(kind: Kind) {
    let events: Vec<Event> = (0..ORDERS)
        .flat_map(|n| {
            let (number, transaction, refund) = (format!("A{n}"), format!("T{n}"), format!("R{n}"));
            let part = i64::try_from(n).unwrap() + 1;
            [paid(&number, &transaction), refunded(&number, &transaction, &refund, part), paid(&number, &transaction)]
        })
        .collect();
    let one = fresh_schema(kind).await;
    let store = open_store(&one).await.unwrap();
    register_orders(&*store).await;
    let expected_fresh = work(&*store, &events).await;

    let four = fresh_schema(kind).await;
    let stores = join_all((0..4).map(|_| open_store(&four))).await.into_iter().map(Result::unwrap);
    let stores: Vec<_> = stores.collect();
    register_orders(&*stores[0]).await;
    let workers = stores.iter().zip(1..).map(|(store, seed)| {
        let (store, events) = (Arc::clone(store), shuffled(&events, seed));
        tokio::spawn(async move { work(&*store, &events).await })
    });
    let fresh: usize = join_all(workers).await.into_iter().map(Result::unwrap).sum();
    assert_eq!((fresh, expected_fresh), (400, 400));
    assert_eq!(tables(&four).await, tables(&one).await);
    for n in 0..USERS {
        audit(&*stores[0], &format!("user{n}")).await;
    }
}

async fn one_transaction_on_two_orders_is_applied_once(kind: Kind) {
    let url = fresh_schema(kind).await;
    let stores = [open_store(&url).await.unwrap(), open_store(&url).await.unwrap()];
    for n in 0..20 {
        let numbers = [format!("A{n}"), format!("B{n}")];
        register(&*stores[0], &[&numbers[0], &numbers[1]]).await;
        let told = numbers.map(|number| [paid(&number, &format!("T{n}"))]);
        let (one, other) = tokio::join!(apply::apply(&*stores[0], &told[0]), apply::apply(&*stores[1], &told[1]));
        let mut answers = [one, other].map(|answers| outcome(answers.unwrap()[0].as_ref().unwrap()));
        answers.sort();
        assert_eq!(answers, ["fresh +1999", "rejected conflicting_duplicate"]);
    }
    assert_eq!(audit(&*stores[0], "user").await.0, 20 * 1_999);
}

async fn a_server_that_is_killed_loses_and_doubles_nothing(kind: Kind) {
    let mut server = tokio::task::spawn_blocking(move || Database::start(kind)).await.unwrap();
    server.ready().await;
    let url = server.fresh_url().await;
    open::migrate(&url.clone().into(), true).await.unwrap();
    let store = open_store(&url).await.unwrap();
    register_orders(&*store).await;
    let events: Vec<Event> = (0..ORDERS).map(|n| paid(&format!("A{n}"), &format!("T{n}"))).collect();

    let done = Arc::new(AtomicUsize::new(0));
    let worker = {
        let (store, events, done) = (Arc::clone(&store), events.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            for batch in events.chunks(2).cycle() {
                match store.apply(batch).await {
                    Ok(applied) => done.fetch_add(applied.len(), Ordering::SeqCst),
                    Err(error) => return error,
                };
            }
            unreachable!("it goes round until the server is away")
        })
    };
    wait_until("some are applied", DEADLINE, || async { done.load(Ordering::SeqCst) >= 50 }).await;
    server.kill();
    let error = worker.await.unwrap();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");

    server.run();
    wait_until("the store answers", DEADLINE, || async { store.ping().await.is_ok() }).await;
    let answers = store.apply(&events).await.unwrap();
    let confirmed = done.load(Ordering::SeqCst).min(events.len());
    assert!(answers[..confirmed].iter().all(|answer| *answer == Applied::Duplicate), "what was confirmed is there");
    assert!(store.apply(&events).await.unwrap().iter().all(|answer| *answer == Applied::Duplicate));
    let mut entries = 0;
    for n in 0..USERS {
        entries += audit(&*store, &format!("user{n}")).await.1.len();
    }
    assert_eq!(entries, events.len());
}

async fn a_wrong_schema_is_named(kind: Kind) {
    let url = fresh_url(kind).await;
    let refusal = async || format!("{:#}", open_store(&url).await.err().expect("the schema is wrong"));
    let missing = "store.url: the database has no tables of wxpay-notify, and this program needs schema version 2: run \
                   `wxpayctl migrate --apply`";
    assert_eq!(refusal().await, missing);
    let secret = url.clone().into();
    let shown = async |apply| {
        let steps = open::migrate(&secret, apply).await.unwrap();
        steps.iter().map(|step| (step.version, step.applied)).collect::<Vec<_>>()
    };
    assert_eq!(shown(false).await, [(1, false), (2, false)]);
    assert_eq!(refusal().await, missing, "to look changes nothing");
    assert_eq!(shown(true).await, [(1, true), (2, true)]);
    assert_eq!(shown(true).await, [(1, true), (2, true)]);
    open_store(&url).await.unwrap();

    execute(&url, "update wxpay_migrations set success = false").await;
    assert!(refusal().await.contains("the migration to schema version 1 did not finish"));
    let later = "insert into wxpay_migrations (version, description, success, checksum, execution_time)
        select 3, 'later', true, checksum, 0 from wxpay_migrations where version = 2";
    execute(&url, &format!("update wxpay_migrations set success = true; {later}")).await;
    let newer = "the database has schema version 3, and this program knows versions up to 2: update it";
    assert_eq!(refusal().await, format!("store.url: {newer}"));
    for apply in [false, true] {
        assert_eq!(format!("{:#}", open::migrate(&secret, apply).await.unwrap_err()), format!("store.url: {newer}"));
    }
    let other = "delete from wxpay_migrations where version = 3; update wxpay_migrations set checksum = 'x'";
    execute(&url, other).await;
    assert!(refusal().await.contains("schema version 1 is not the one that this program knows"));
}

async fn a_schema_that_several_make_at_once_is_made_once(kind: Kind) {
    for _ in 0..5 {
        let url = fresh_url(kind).await;
        let secret = url.clone().into();
        for steps in join_all((0..6).map(|_| open::migrate(&secret, true))).await {
            assert!(steps.unwrap().iter().all(|step| step.applied));
        }
        open_store(&url).await.unwrap();
    }
}

async fn a_server_that_comes_late_is_looked_at(kind: Kind) {
    let mut server = tokio::task::spawn_blocking(move || Database::start(kind)).await.unwrap();
    server.ready().await;
    let url = server.fresh_url().await;
    server.kill();
    let store = open_store(&url).await.unwrap();
    let error = store.apply(&[paid("A", "T1")]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    server.run();
    server.ready().await;
    let (error, fatal) = tokio::join!(store.ping(), store.fatal());
    assert!(matches!(error, Err(StoreError::Unavailable(_))), "{error:?}");
    assert!(fatal.to_string().contains("has no tables of wxpay-notify"), "{fatal}");
    open::migrate(&url.into(), true).await.unwrap();
    store.ping().await.unwrap();
}

/// Of one event: a batch that failed is tried one by one, which would hide that nothing is tried again.
async fn a_deadlock_is_tried_again(kind: Kind) {
    let url = fresh_schema(kind).await;
    let store = open_store(&url).await.unwrap();
    register(&*store, &["A"]).await;
    let mut other = Session::connect(&url).await.unwrap();
    if kind == Kind::Postgres {
        // PostgreSQL gives up who looks for the deadlock first; the store's session looks after a second.
        other.run("set deadlock_timeout = '60s'").await.unwrap();
    }
    // MariaDB gives up who has written less.
    let accounts =
        "insert into wxpay_points_accounts values ('shop', 'user', 0, 0), ('shop', 'x', 0, 0), ('shop', 'y', 0, 0)";
    other.run(&format!("begin; {accounts}")).await.unwrap();

    let worker = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { apply::apply(&*store, &[paid("A", "T1")]).await })
    };
    waits_for_a_lock(kind, &url).await;
    let lock = "select merchant from wxpay_orders where out_trade_no = 'A' for update";
    other.run(lock).await.expect("it is the store's session that is given up");
    other.run("rollback").await.unwrap();
    let answers = worker.await.unwrap().unwrap();
    assert_eq!(answers.iter().map(|answer| outcome(answer.as_ref().unwrap())).collect::<Vec<_>>(), ["fresh +1999"]);
    assert_eq!(audit(&*store, "user").await.0, 1_999);
}

/// Waits until some session of this database waits for a row.
async fn waits_for_a_lock(kind: Kind, url: &str) {
    let query = match kind {
        Kind::Postgres => {
            "select 'waits' from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        }
        Kind::Mariadb => {
            "select 'waits' from information_schema.innodb_trx t join information_schema.processlist p
                on p.id = t.trx_mysql_thread_id where t.trx_state = 'LOCK WAIT' and p.db = database()"
        }
    };
    wait_until("a session waits for a lock", DEADLINE, || async {
        let mut session = Session::connect(url).await.unwrap();
        if kind == Kind::Mariadb {
            // InnoDB renews what it says about transactions only when nobody has asked for 100 ms.
            session.run("do sleep(0.2)").await.unwrap();
        }
        !session.texts(query).await.unwrap().is_empty()
    })
    .await;
}

async fn register_orders(store: &dyn Store) {
    for n in 0..ORDERS {
        let registration = Registration { ..registration(&format!("A{n}"), Some(&format!("user{}", n % USERS))) };
        store.register(&registration).await.unwrap();
    }
}

/// Applies events as a worker does, what failed again later. How many took effect.
async fn work(store: &dyn Store, events: &[Event]) -> usize {
    let mut fresh = 0;
    let mut open: Vec<Event> = events.to_vec();
    while !open.is_empty() {
        let mut again = Vec::new();
        for batch in open.chunks(17) {
            for (event, answer) in batch.iter().zip(apply::apply(store, batch).await.unwrap()) {
                match answer {
                    Ok(Applied::Fresh { .. }) => fresh += 1,
                    Ok(Applied::Duplicate) => {}
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => again.push(event.clone()),
                }
            }
        }
        open = again;
    }
    fresh
}

/// The same events in another order, the same for the same seed.
fn shuffled(events: &[Event], seed: u64) -> Vec<Event> {
    let mut numbers = seed;
    let mut keyed: BTreeMap<(u64, usize), Event> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        numbers = numbers.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        keyed.insert((numbers >> 33, index), event.clone());
    }
    keyed.into_values().collect()
}

/// All that must not depend on the order of arrival.
async fn tables(url: &str) -> Vec<Vec<String>> {
    let mut session = Session::connect(url).await.unwrap();
    let queries = [
        "select concat(out_trade_no, ' ', state, ' ', received, ' ', kept, ' ', credited) from wxpay_orders order by 1",
        "select concat(event_key, ' ', fingerprint, ' ', kind, ' ', amount) from wxpay_events order by 1",
        "select concat(user_id, ' ', balance) from wxpay_points_accounts order by 1",
        "select concat(out_trade_no, ' ', user_id, ' ', sum(points)) from wxpay_points_ledger
            group by out_trade_no, user_id order by 1",
        "select concat(user_id, ' ', sum(points)) from wxpay_points_ledger group by user_id order by 1",
    ];
    let mut tables = Vec::new();
    for query in queries {
        tables.push(session.texts(query).await.unwrap());
    }
    assert_eq!(tables[0].len(), 200);
    assert_eq!(tables[2], tables[4], "each balance is the sum of its ledger");
    tables
}
