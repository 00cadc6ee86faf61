//! A line to the server that falls silent in the middle of a call or just after it, as after a failover of the network: new
//! connections work.

use std::sync::Arc;

use wxpay_shared::store::{Store, StoreError};

use crate::{
    harness::{
        database::{self, Kind},
        pair::DEADLINE,
        proxy::{COMMIT, Proxy, Weather},
        wait_until,
    },
    store_contract::{samples::paid, sql::open_store},
};

/// What the drivers ask a connection that goes back to the pool: PostgreSQL's Sync, MySQL's `COM_PING`.
const fn question(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Postgres => b"S\0\0\0\x04",
        Kind::Mariadb => b"\x01\0\0\0\x0e",
    }
}

/// A store over a line whose weather can change.
async fn over_a_line(kind: Kind) -> (Proxy, Arc<dyn Store>) {
    let url = database::fresh_schema(kind).await;
    let server = database::port_of(&url);
    let proxy = Proxy::start(server).await;
    let store = open_store(&url.replace(&format!(":{server}/"), &format!(":{}/", proxy.port()))).await.unwrap();
    store.ping().await.unwrap();
    (proxy, store)
}

async fn given_up(proxy: &Proxy, store: &dyn Store) {
    wait_until("the connection was given up", DEADLINE, async || {
        // An idle one is given up by whoever wants it.
        drop(store.ping().await);
        proxy.old_connections() == 0
    })
    .await;
    store.ping().await.unwrap();
}

pub(super) async fn a_call_over_a_silent_line_gives_its_connection_up(kind: Kind) {
    let (proxy, store) = over_a_line(kind).await;
    proxy.set(Weather::HoldAnswerTo(COMMIT));
    let silent = async {
        proxy.holds("the answer to a commit").await;
        proxy.set(Weather::SilentForOld);
    };
    let events = [paid("A", "T1")];
    let (answer, ()) = tokio::join!(store.apply(&events), silent);
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    given_up(&proxy, store.as_ref()).await;
}

pub(super) async fn a_line_that_falls_silent_after_a_call_is_given_up(kind: Kind) {
    let (proxy, store) = over_a_line(kind).await;
    proxy.set(Weather::HoldAnswerTo(COMMIT));
    let silent = async {
        proxy.holds("the answer to a commit").await;
        proxy.set(Weather::HoldAnswerTo(question(kind)));
        proxy.holds("the answer to whether it lives").await;
        proxy.set(Weather::SilentForOld);
    };
    let events = [paid("A", "T1")];
    let (answer, ()) = tokio::join!(store.apply(&events), silent);
    assert!(answer.is_ok(), "{answer:?}");
    given_up(&proxy, store.as_ref()).await;
}
