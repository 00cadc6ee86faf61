//! The real pair with its store on a SQL server.

use std::{fs, process::Command};

use serde_json::json;
use wxpay_shared::{
    admin::{ReplayOutcome, Replayed},
    order::OrderState,
    reason::Reason,
};

use crate::harness::{
    database::{Database, Kind, execute, fresh_schema, fresh_url},
    notice::Notice,
    pair::{DEADLINE, Pair, binary},
    rabbitmq, wait_until,
};

pub(crate) fn with_store(pair: &Pair, url: &str) {
    let config = fs::read_to_string(pair.config_file()).unwrap();
    fs::write(pair.config_file(), format!("{config}[store]\nurl = \"{url}\"\n")).unwrap();
}

async fn the_shortcut_may_vanish(kind: Kind) {
    let (node, host) = rabbitmq::fresh_host().await;
    let mut pair = Pair::prepare(&node.url(&host));
    with_store(&pair, &fresh_schema(kind).await);
    pair.start_ingress();
    pair.start_worker();
    pair.ready().await;
    for round in ["first", "second"] {
        for n in 0..20 {
            let number = format!("SQL{n}");
            pair.register("shop", &number, 1_000, "alice").await;
            assert_eq!(pair.post("shop", Notice::new(&number, 1_000).xml(round)).await.0, 200);
        }
        pair.settled(node, &host).await;
        for n in 0..20 {
            let order = pair.order("shop", &format!("SQL{n}")).await;
            assert_eq!((order.state, order.points, order.ledger.len()), (OrderState::Paid, 10, 1));
        }
        assert!(pair.dead_letters().await.dead_letters.is_empty());
        pair.kill_worker();
        fs::remove_dir_all(pair.config_file().with_file_name("data")).unwrap();
        pair.start_worker();
        pair.ready().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_the_truth_and_the_shortcut_may_vanish() {
    the_shortcut_may_vanish(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_is_the_truth_and_the_shortcut_may_vanish() {
    the_shortcut_may_vanish(Kind::Mariadb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_a_database_that_is_away() {
    let mut server = tokio::task::spawn_blocking(|| Database::start(Kind::Postgres)).await.unwrap();
    server.ready().await;
    let url = server.fresh_url().await;
    wxpay_shared::store::open::migrate(&url.clone().into(), true).await.unwrap();
    server.kill();

    let (node, host) = rabbitmq::fresh_host().await;
    let mut pair = Pair::prepare(&node.url(&host));
    with_store(&pair, &url);
    pair.start_ingress();
    pair.start_worker();
    wait_until("the worker says that it is not ready", DEADLINE, async || {
        let answer = pair.client.get(pair.admin_url("/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status().is_server_error())
    })
    .await;
    wait_until("ingress accepts", DEADLINE, async || {
        let answer = pair.client.post(pair.notify_url("shop")).body(Notice::new("AWAY1", 1_000).xml("n")).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    })
    .await;
    server.run();
    pair.ready().await;
    pair.register("shop", "AWAY1", 1_000, "alice").await;
    wait_until("the payment is applied", DEADLINE, async || {
        pair.order("shop", "AWAY1").await.state == OrderState::Paid
    })
    .await;
    assert!(pair.dead_letters().await.dead_letters.is_empty());
}

/// A shop may write orders into the database itself, and one of them in a way that nobody can read.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_order_is_told_by_its_name_and_hides_no_other() {
    for kind in [Kind::Postgres, Kind::Mariadb] {
        let (node, host) = rabbitmq::fresh_host().await;
        let mut pair = Pair::prepare(&node.url(&host));
        pair.set_retries("\"200ms\"", 1);
        let url = fresh_schema(kind).await;
        with_store(&pair, &url);
        pair.start_ingress();
        pair.start_worker();
        pair.ready().await;
        for order in ["BAD", "WRONG"] {
            pair.register("shop", order, 999, "alice").await;
        }
        execute(&url, "update wxpay_orders set points_rate = 'many' where out_trade_no = 'BAD'").await;
        for order in ["BAD", "WRONG"] {
            assert_eq!(pair.post("shop", Notice::new(order, 1_000).xml("n")).await.0, 200);
        }
        pair.settled(node, &host).await;
        let request = pair.client.post(pair.admin_url("/dead-letters/replay"));
        let request = request.json(&json!({ "select": { "all": true }, "dry_run": true }));
        let told: Replayed = request.send().await.unwrap().json().await.unwrap();
        let mut told: Vec<_> =
            told.results.into_iter().map(|result| (result.outcome, result.reason, result.detail)).collect();
        told.sort_by_key(|(_, reason, _)| *reason);
        let [wrong, bad] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((wrong.0, wrong.1), (ReplayOutcome::DeadAgain, Some(Reason::AmountMismatch)));
        assert_eq!((bad.0, bad.1), (ReplayOutcome::DeadAgain, Some(Reason::AttemptsExhausted)));
        assert!(bad.2.contains("order shop/BAD: "), "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_made_by_hand_and_a_worker_says_so() {
    for kind in [Kind::Postgres, Kind::Mariadb] {
        let url = fresh_url(kind).await;
        let pair = Pair::prepare("amqp://127.0.0.1:1");
        with_store(&pair, &url);
        let config = pair.config_file();
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(binary(program)).args(arguments).arg("--config").arg(&config).output().unwrap();
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        let (code, _, said) = run("wxpay-worker", &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("needs schema version 2: run `wxpayctl migrate --apply`"), "{said}");
        assert!(!said.contains(&url), "{said}");
        let (code, shown, said) = run("wxpayctl", &["migrate"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(shown.contains("lacks it"), "{shown}");
        let (code, shown, said) = run("wxpayctl", &["migrate", "--apply"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(shown.contains("has it"), "{shown}");
    }
}
