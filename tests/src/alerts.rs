//! The alerts in a real Prometheus: silent while all is well, firing while the broker is away, silent again afterwards.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    deploy::read,
    harness::{
        pair::{DEADLINE, Pair},
        process::{Plan, Server, free_port},
        rabbitmq::Node,
        wait_until,
    },
};

/// The rules as they are, but for their patience.
fn rules() -> String {
    let patient = read("ops/prometheus/alerts.yml");
    let patience = |line: &str| {
        if line.trim_start().starts_with("for: ") { "        for: 0s".to_owned() } else { line.to_owned() }
    };
    patient.lines().map(|line| patience(line) + "\n").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_fires_while_the_broker_is_stopped() {
    let mut node = Node::start();
    node.ready().await;
    let pair = Pair::start(&node.url("%2f")).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("alerts.yml"), rules()).unwrap();
    let scrape = |job: &str, port: u16| {
        format!("  - {{ job_name: {job}, static_configs: [{{ targets: [\"127.0.0.1:{port}\"] }}] }}\n")
    };
    let config = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [alerts.yml]\nscrape_configs:\n{}{}",
        scrape("wxpay-ingress", pair.ops_port),
        scrape("wxpay-worker", pair.admin_port)
    );
    fs::write(path("prometheus.yml"), config).unwrap();
    let port = free_port();
    let arguments = [
        format!("--config.file={}", path("prometheus.yml")),
        format!("--storage.tsdb.path={}", path("data")),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let _prometheus = Server::start(&Plan {
        program: Path::new("prometheus"),
        arguments: &arguments.each_ref().map(String::as_str),
        environment: &[],
        directory: directory.path(),
        log: Path::new(&path("prometheus.log")),
        goodbye: "TERM",
        after: "",
    });
    let ask = async |path: String| -> Value {
        let answer = pair.client.get(format!("http://127.0.0.1:{port}/api/v1/{path}")).send().await.ok();
        match answer {
            Some(answer) => answer.json().await.unwrap_or_default(),
            None => Value::Null,
        }
    };
    let firing = async || {
        let alerts = ask("alerts".to_owned()).await["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let name = |alert: &Value| alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned();
        alerts.iter().filter(|alert| alert["state"] == "firing").map(name).collect::<Vec<_>>()
    };
    let ready = async |metric: &str, value: &str| {
        ask(format!("query?query={metric}")).await["data"]["result"][0]["value"][1] == value
    };

    wait_until("Prometheus sees both programs", DEADLINE, async || {
        ready("wxpay_ingress_ready", "1").await && ready("wxpay_worker_ready", "1").await
    })
    .await;
    wait_until("nothing fires", DEADLINE, async || firing().await.is_empty()).await;
    node.kill();
    for alert in ["WxpayIngressNotReady", "WxpayWorkerNotReady"] {
        wait_until(alert, DEADLINE, async || firing().await.iter().any(|firing| firing == alert)).await;
    }
    node.run();
    node.ready().await;
    wait_until("nothing fires any more", DEADLINE * 2, async || firing().await.is_empty()).await;
}
