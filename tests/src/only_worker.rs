//! With the embedded store there is one worker on a broker: a second one is refused, a successor is not.

use std::{process::Command, time::Duration};

use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use tokio::time::{sleep, timeout};
use wxpay_shared::{
    order::OrderState,
    queue::{Consumer, QueueError, rabbit::RabbitConsumer, topology},
};

use crate::{
    harness::{
        notice::Notice,
        pair::{DEADLINE, Pair, binary},
        rabbitmq::{self, Node},
        wait_until,
    },
    queue_contract::{PATIENCE, SHORT, message, settings, take},
};

async fn pays(pair: &Pair, order: &str) {
    pair.register("shop", order, 1_000, "u").await;
    wait_until("ingress accepts", DEADLINE, async || {
        pair.post("shop", Notice::new(order, 1_000).xml("n")).await.1.contains("SUCCESS")
    })
    .await;
    wait_until("it is paid", DEADLINE, async || pair.order("shop", order).await.state == OrderState::Paid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_is_refused_until_the_first_is_gone() {
    let (node, host) = rabbitmq::fresh_host().await;
    let mut first = Pair::start(&node.url(&host)).await;
    let mut second = Pair::prepare(&node.url(&host));

    let config = second.config_file();
    let refused = tokio::task::spawn_blocking(move || {
        Command::new(binary("wxpay-worker")).arg("--config").arg(config).output().unwrap()
    });
    let refused = refused.await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{said}");
    let last = said.lines().last().unwrap_or_default();
    let expected =
        "store.url: the embedded store serves one worker, and another one is connected to this RabbitMQ: stop the";
    assert!(last.starts_with(expected), "{said}");
    assert!(said.contains("waiting before taking anything") && !said.contains("guest:guest"), "{said}");
    pays(&first, "FIRST").await;

    // Without a pause: the broker may not have noticed yet.
    first.kill_worker();
    first.start_worker();
    first.worker_ready().await;
    pays(&first, "AGAIN").await;
    first.kill_worker();
    second.start_worker();
    second.worker_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_worker_survives_a_restart_of_its_broker() {
    let mut node = Node::start();
    node.ready().await;
    let pair = Pair::start(&node.url("%2f")).await;
    pays(&pair, "BEFORE").await;
    node.restart().await;
    pair.ready().await;
    pays(&pair, "AFTER").await;
}

/// Whoever comes while the connection is gone has the lock; the worker waits without taking a message, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lost_the_lock_takes_nothing_until_it_has_it_again() {
    let node = Node::start();
    node.ready().await;
    let url = node.url("%2f");
    let worker = RabbitConsumer::start_alone(url.clone().into(), settings());
    wait_until("it is connected", PATIENCE, async || worker.connected()).await;
    let other = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let taking = tokio::spawn(async move {
        loop {
            let channel = other.create_channel().await.unwrap();
            let lock = QueueDeclareOptions::exclusive();
            match channel.queue_declare(topology::ONLY_WORKER.into(), lock, FieldTable::default()).await {
                Ok(_) => return other,
                Err(_) => sleep(Duration::from_millis(2)).await,
            }
        }
    });
    let connection_name = r#"lists:keyfind(<<"connection_name">>, 1, proplists:get_value(client_properties, rabbit_reader:info(P, [client_properties])))"#;
    node.eval(&format!(
        r#"[rabbit_networking:close_connection(P, "test") || P <- rabbit_networking:connections(), {connection_name} =:= {{<<"connection_name">>, longstr, <<"wxpay consumer">>}}]."#
    ));
    let other = timeout(PATIENCE, taking).await.expect("the lock was free for a moment").unwrap();

    let publisher = wxpay_shared::queue::rabbit::RabbitPublisher::start(url.into(), settings());
    wait_until("a publish succeeds", PATIENCE, async || {
        wxpay_shared::queue::Publisher::publish(&publisher, message(1)).await.is_ok()
    })
    .await;
    // What must not happen has no event to wait for.
    assert!(timeout(SHORT, worker.receive(1)).await.is_err() && !worker.connected());
    other.close(200, "OK".into()).await.unwrap();
    assert_eq!(take(&worker, 1).await[0].message, message(1));
    worker.close().await;
    assert!(matches!(worker.receive(1).await, Err(QueueError::Closed)));
}
