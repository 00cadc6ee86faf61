//! `wxpayctl config check --servers`: broker and database are asked whether what they have fits.

use std::process::Command;

use lapin::{options::QueueDeclareOptions, types::FieldTable};
use wxpay_shared::queue::topology::DEAD;

use crate::harness::{
    database::{Kind, fresh_url, migrate},
    pair::{Pair, binary},
    rabbitmq,
};

/// The exit code and what was said.
fn check(pair: &Pair, store: &str) -> (Option<i32>, String) {
    let mut command = Command::new(binary("wxpayctl"));
    command.args(["config", "check", "--servers", "--config"]).arg(pair.config_file()).env("WXPAY__STORE__URL", store);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_asks_broker_and_database_whether_they_fit() {
    let (node, host) = rabbitmq::fresh_host().await;
    let (pair, store) = (Pair::prepare(&node.url(&host)), fresh_url(Kind::Postgres).await);
    let (code, said) = check(&pair, &store);
    assert!(code == Some(64) && said.contains("store.url: the database lacks 2 of 2 migrations"), "{code:?} {said}");
    migrate(&store).await;
    let (code, said) = check(&pair, &store);
    assert_eq!(code, Some(0), "{said}");
    for line in ["broker: its exchange and queues are as they must be", "database: its schema is this program's"] {
        assert!(said.contains(line), "{said}");
    }

    let (node, host) = rabbitmq::fresh_host().await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    node.stranger(&host).await.queue_declare(DEAD.into(), durable, FieldTable::default()).await.unwrap();
    let (code, said) = check(&Pair::prepare(&node.url(&host)), &store);
    assert!(
        code == Some(64) && said.contains(&format!("queue.url: {DEAD} exists with other arguments")),
        "{code:?} {said}"
    );
}
