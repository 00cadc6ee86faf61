//! Where a desk test plays: both programs on RabbitMQ and a SQL server, or `wxpayctl serve`.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};
use wxpay_shared::{admin::Replayed, order::OrderState, queue::Depths};

use super::letters::Letter;
use crate::{
    harness::{
        database::{Kind, fresh_schema},
        notice::Notice,
        pair::{DEADLINE, Pair, binary},
        rabbitmq, wait_until,
    },
    sql_workers::with_store,
};

pub(super) struct Stage {
    pub(super) pair: Pair,
    /// The broker's address, where there is one.
    pub(super) broker: Option<String>,
}

impl Stage {
    pub(super) async fn rabbit_and_sql(kind: Kind) -> Self {
        let broker = rabbitmq::fresh_url().await;
        let mut pair = Pair::prepare(&broker);
        with_store(&pair, &fresh_schema(kind).await);
        pair.start_ingress();
        let mut stage = Self { pair, broker: Some(broker) };
        stage.start_worker().await;
        stage.pair.ready().await;
        stage
    }

    pub(super) async fn embedded() -> Self {
        let mut stage = Self { pair: Pair::prepare("embedded"), broker: None };
        stage.start_worker().await;
        stage
    }

    /// Starts a worker that does not run.
    pub(super) async fn start_worker(&mut self) {
        if self.broker.is_some() {
            self.pair.start_worker()
        } else {
            self.pair.start_serve()
        }
        self.pair.worker_ready().await;
    }

    pub(super) async fn register(&self, merchant: &str, order: &str, amount: i64) {
        self.pair.register(merchant, order, amount, "alice").await;
    }

    /// Pays an order by its usual transaction.
    pub(super) async fn paid(&self, order: &str, amount: i64) {
        assert_eq!(self.pair.post("shop", Notice::new(order, amount).xml("paid")).await.0, 200);
        wait_until("it is paid", DEADLINE, async || self.pair.order("shop", order).await.state == OrderState::Paid)
            .await;
    }

    pub(super) async fn depths(&self) -> Depths {
        self.pair.get("/queue").await
    }

    /// Waits until the worker has counted so many deliveries with this outcome.
    pub(super) async fn counted(&self, outcome: &str, times: u64) {
        wait_until(&format!("{times} times {outcome}"), DEADLINE, async || {
            let answer = self.pair.client.get(self.pair.admin_url("/metrics")).send().await.unwrap();
            let page = answer.text().await.unwrap();
            let label = format!("outcome=\"{outcome}\"");
            let lines =
                page.lines().filter(|line| line.starts_with("wxpay_worker_deliveries_total") && line.contains(&label));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>() >= times
        })
        .await;
    }

    pub(super) async fn import(&self, letters: &[Letter]) {
        let letters: Vec<_> = letters.iter().map(Letter::file).collect();
        let count = letters.len();
        let answer = self.ask("/dead-letters/import", json!({ "letters": letters, "by": "tests" })).await;
        assert_eq!(answer["imported"].as_array().map(Vec::len), Some(count), "{answer}");
    }

    pub(super) async fn replay(&self, request: Value) -> Replayed {
        serde_json::from_value(self.ask("/dead-letters/replay", request).await).unwrap()
    }

    pub(super) async fn ask(&self, path: &str, body: Value) -> Value {
        let request = self.pair.client.post(self.pair.admin_url(path)).timeout(Duration::from_secs(120));
        let answer = request.json(&body).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Every dead letter as an export tells it, in the order of their ids.
    pub(super) async fn exported(&self) -> Vec<String> {
        let request = self.pair.client.post(self.pair.admin_url("/dead-letters/export"));
        let answer = request.json(&json!({ "all": true })).send().await.unwrap().text().await.unwrap();
        let mut lines: Vec<String> = answer.lines().map(str::to_owned).collect();
        assert!(lines.pop().is_some_and(|end| end.contains("\"end\"")), "the export is whole");
        lines.sort();
        lines
    }

    /// All that a desk could change, as text.
    pub(super) async fn everything(&self, orders: &[&str]) -> String {
        let mut all = self.exported().await;
        for order in orders {
            all.push(serde_json::to_string(&self.pair.order("shop", order).await).unwrap());
        }
        all.push(self.pair.get::<Value>("/points/shop/alice").await.to_string());
        all.push(self.pair.get::<Value>("/dead-letters/audit").await.to_string());
        all.push(format!("{:?}", self.depths().await));
        all.join("\n")
    }

    pub(super) fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("wxpayctl"));
        command.args(arguments).args(["--admin", &self.pair.admin_url("")]);
        command
    }

    /// Runs `wxpayctl`; its exit code and what it said.
    pub(super) fn ctl(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.ctl_command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    }
}
