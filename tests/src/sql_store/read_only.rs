//! A server that answers and takes no writes, such as a replica after a failover.

use wxpay_shared::store::{StoreError, open};

use crate::{
    harness::database::{Database, Kind, Session},
    store_contract::{samples::paid, sql::open_store},
};

pub(super) async fn a_server_that_takes_no_writes_is_away(kind: Kind) {
    let server = tokio::task::spawn_blocking(move || Database::start(kind)).await.unwrap();
    server.ready().await;
    let url = server.fresh_url().await;
    open::migrate(&url.clone().into(), true).await.unwrap();
    let mut administrator = Session::connect(&url).await.unwrap();
    let read_only = |on: bool| match kind {
        Kind::Postgres => format!("alter database {} set default_transaction_read_only = {on}", database_of(&url)),
        Kind::Mariadb => format!("set global tx_read_only = {on}"),
    };
    administrator.run(&read_only(true)).await.unwrap();
    let store = open_store(&url).await.unwrap();
    for answer in [store.ping().await, store.apply(&[paid("A", "T1")]).await.map(drop)] {
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
    administrator.run(&read_only(false)).await.unwrap();
    let store = open_store(&url).await.unwrap();
    store.ping().await.unwrap();
    assert!(administrator.texts("select user_id from wxpay_points_accounts").await.unwrap().is_empty());
}

fn database_of(url: &str) -> &str {
    url.rsplit_once('/').expect("an address names a database").1
}
