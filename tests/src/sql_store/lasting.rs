//! What the store confirmed lasts, whatever the server's own settings; and a server that lets nobody in is away.

use wxpay_shared::store::{Applied, StoreError, open};

use super::DEADLINE;
use crate::{
    harness::{
        database::{Database, Kind, Session, fresh_schema},
        wait_until,
    },
    store_contract::{
        samples::{paid, register},
        sql::open_store,
    },
};

/// A server that tells a commit ten seconds before it writes it, unless a session asks for more.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_hasty_postgres_confirmed_survives_its_crash() {
    let mut server = tokio::task::spawn_blocking(|| Database::start(Kind::Postgres)).await.unwrap();
    server.ready().await;
    let url = server.fresh_url().await;
    open::migrate(&url.clone().into(), true).await.unwrap();
    let mut administrator = Session::connect(&url).await.unwrap();
    for hasty in ["synchronous_commit = off", "wal_writer_delay = '10s'", "wal_writer_flush_after = '1GB'"] {
        administrator.run(&format!("alter system set {hasty}")).await.unwrap();
    }
    administrator.run("select pg_reload_conf()").await.unwrap();
    wait_until("the setting is in force", DEADLINE, async || {
        let mut fresh = Session::connect(&url).await.unwrap();
        fresh.texts("select current_setting('synchronous_commit')").await.unwrap() == ["off"]
    })
    .await;
    let store = open_store(&url).await.unwrap();
    register(&*store, &["A"]).await;
    assert_eq!(store.apply(&[paid("A", "T1")]).await.unwrap(), [Applied::Fresh { points: 1_999 }]);
    server.kill();
    server.run();
    server.ready().await;
    wait_until("it answers again", DEADLINE, async || store.ping().await.is_ok()).await;
    assert_eq!(store.apply(&[paid("A", "T1")]).await.unwrap(), [Applied::Duplicate]);
}

/// As for maintenance.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lets_nobody_in_is_away() {
    let url = fresh_schema(Kind::Postgres).await;
    let store = open_store(&url).await.unwrap();
    store.ping().await.unwrap();
    let (server, name) = url.rsplit_once('/').unwrap();
    let mut administrator = Session::connect(&format!("{server}/postgres")).await.unwrap();
    administrator.run(&format!("alter database {name} with allow_connections false")).await.unwrap();
    let end = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
    administrator.run(&end).await.unwrap();
    // The first call may meet the end of a connection that it had.
    for _ in 0..3 {
        let answer = store.apply(&[paid("A", "T1")]).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
    administrator.run(&format!("alter database {name} with allow_connections true")).await.unwrap();
    wait_until("it answers again", DEADLINE, async || store.ping().await.is_ok()).await;
}
