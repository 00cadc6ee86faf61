//! A line to the server that falls silent in the middle of a call, as after a failover of the network: new connections work.

use wxpay_shared::store::StoreError;

use crate::{
    harness::{
        database::{self, Kind},
        pair::DEADLINE,
        proxy::{COMMIT, Proxy, Weather},
        wait_until,
    },
    store_contract::{samples::paid, sql::open_store},
};

pub(super) async fn a_call_over_a_silent_line_gives_its_connection_up(kind: Kind) {
    let url = database::fresh_schema(kind).await;
    let server = database::port_of(&url);
    let proxy = Proxy::start(server).await;
    let store = open_store(&url.replace(&format!(":{server}/"), &format!(":{}/", proxy.port()))).await.unwrap();
    store.ping().await.unwrap();
    proxy.set(Weather::HoldAnswerTo(COMMIT));
    let silent = async {
        proxy.holds("the answer to a commit").await;
        proxy.set(Weather::SilentForOld);
    };
    let events = [paid("A", "T1")];
    let (answer, ()) = tokio::join!(store.apply(&events), silent);
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    wait_until("the connection was given up", DEADLINE, async || {
        // An idle one is given up by whoever wants it.
        drop(store.ping().await);
        proxy.old_connections() == 0
    })
    .await;
    store.ping().await.unwrap();
}
