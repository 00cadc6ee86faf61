//! The alerts in a real Prometheus: silent while all is well, firing while the broker is away, silent again afterwards;
//! and each fires in a test of Prometheus' own, with the series that the programs show from their start.

use std::{fs, path::Path, process::Command, time::Duration};

use jiff::Timestamp;
use promql_parser::label::{MatchOp, Matcher};
use serde_json::Value;
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    config::Config,
    queue::topology,
    reason::Reason,
};

use crate::{
    deploy::{read, root},
    harness::{
        pair::{DEADLINE, Pair},
        process::{Plan, Server, free_port},
        rabbitmq::{self, Node},
        wait_until,
    },
    metrics::{alerts, asked},
};

const INSTALL: &str = "promtool is missing: apt-get install --no-install-recommends prometheus";

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
    let ask = async |path: &str| -> Option<Value> {
        let answer = pair.client.get(format!("http://127.0.0.1:{port}/api/v1/{path}")).send().await.ok()?;
        let answer: Value = answer.json().await.ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    };
    // What fires by the first look at all rules that began after this; nothing else tells silence from a Prometheus that
    // does not answer or does not look.
    let firing = async |after: Timestamp| -> Option<Vec<String>> {
        let group = ask("rules").await?["groups"][0].clone();
        let healthy = |rule: &Value| rule["health"] == "ok";
        if group["lastEvaluation"].as_str()?.parse::<Timestamp>().ok()? <= after
            || !group["rules"].as_array()?.iter().all(healthy)
        {
            return None;
        }
        let alerts = ask("alerts").await?["alerts"].as_array()?.clone();
        let name = |alert: &Value| alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned();
        Some(alerts.iter().filter(|alert| alert["state"] == "firing").map(name).collect())
    };
    let ready = async |metric: &str, value: &str| {
        ask(&format!("query?query={metric}")).await.is_some_and(|data| data["result"][0]["value"][1] == value)
    };

    wait_until("Prometheus sees both programs", DEADLINE, async || {
        ready("wxpay_ingress_ready", "1").await && ready("wxpay_worker_ready", "1").await
    })
    .await;
    let seen = SystemClock.now();
    wait_until("nothing fires", DEADLINE, async || firing(seen).await == Some(Vec::new())).await;
    node.kill();
    let killed = SystemClock.now();
    for alert in ["WxpayIngressNotReady", "WxpayWorkerNotReady"] {
        let fires = async || firing(killed).await.is_some_and(|firing| firing.iter().any(|firing| firing == alert));
        wait_until(alert, DEADLINE, fires).await;
    }
    node.run();
    node.ready().await;
    let back = SystemClock.now();
    wait_until("nothing fires any more", DEADLINE * 2, async || firing(back).await == Some(Vec::new())).await;
}

/// Runs Prometheus' own tool, which must be content.
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(root()).output().expect(INSTALL);
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn each_alert_fires_though_all_was_well_before() {
    promtool(&["test", "rules", "ops/prometheus/alerts.test.yml"]);
    let tests = read("ops/prometheus/alerts.test.yml");
    let expected: String = tests.lines().filter(|line| line.contains("labels: ")).collect();
    for rule in alerts() {
        let name = format!("alertname={}", rule["alert"]);
        assert!(expected.contains(&name), "no test expects that it fires: {name}");
    }
}

/// A series that begins with an event shows no increase, and the alert would tell of the second one at the earliest.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_alert_sees_increase_is_on_the_page_from_the_start() {
    let pair = Pair::start(&rabbitmq::fresh_url().await).await;
    let page = async |url: String| pair.client.get(url).send().await.unwrap().text().await.unwrap();
    let (ingress, worker) = (page(pair.ops_url("/metrics")).await, page(pair.admin_url("/metrics")).await);
    assert!(!worker.contains("wxpay_ingress_") && !ingress.contains("wxpay_worker_"), "each program shows its own");
    let page = [ingress, worker].concat();
    let expressions = alerts().into_iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    let mut looked_at = 0;
    for (name, matchers) in expressions.filter(|expression| expression.contains("increase(")).flat_map(|it| asked(&it))
    {
        let series: Vec<_> = page.lines().filter(|line| line.starts_with(&format!("{name}{{"))).collect();
        for matcher in matchers.iter().filter(|matcher| !["merchant", "tier"].contains(&matcher.name.as_str())) {
            for value in values(matcher) {
                let label = format!("{}=\"{value}\"", matcher.name);
                assert!(series.iter().any(|line| line.contains(&label) && line.ends_with(" 0")), "{name}: no {label}");
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 30);
}

/// The values that a matcher takes.
fn values(matcher: &Matcher) -> Vec<String> {
    let reasons = Reason::ALL.iter().map(|reason| reason.code().to_owned());
    match matcher.name.as_str() {
        "reason" => reasons.filter(|reason| matcher.is_match(reason)).collect(),
        _ => matcher.value.split('|').map(str::to_owned).collect(),
    }
}

#[test]
fn a_tier_counts_as_stuck_where_its_delay_is_short() {
    let stuck = alerts().into_iter().find(|rule| rule["alert"] == "WxpayRetriesStuck").unwrap();
    let asked = asked(stuck["expr"].as_str().unwrap());
    let tier = asked.iter().flat_map(|(_, matchers)| matchers).find(|matcher| matcher.name == "tier").unwrap();
    assert!(matches!(tier.op, MatchOp::Re(_)));
    let short = |seconds: u64| tier.is_match(&topology::delay(Duration::from_secs(seconds)));
    assert_eq!([1, 30, 60, 120, 3_600].map(short), [true, true, true, false, false]);
    let default = Config::default().queue.retry_delays;
    assert!(default.iter().any(|delay| tier.is_match(&topology::delay(*delay))), "a default tier is watched");
}

#[test]
fn the_pods_are_found_under_the_names_that_alerts_look_for() {
    let text = read("ops/prometheus/kubernetes.yml");
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    let relabel = file["scrape_configs"][0]["relabel_configs"].as_array().unwrap();
    assert_eq!(relabel[2]["target_label"], "job");
    for (program, port) in [("ingress", "ops"), ("worker", "admin")] {
        let manifests: Vec<Value> =
            serde_saphyr::from_multiple(&read(&format!("ops/kubernetes/{program}.yaml"))).unwrap();
        let pod = &manifests.iter().find(|manifest| manifest["kind"] == "Deployment").unwrap()["spec"]["template"];
        let app = pod["metadata"]["labels"]["app"].as_str().unwrap();
        let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
        assert!(ports.iter().any(|named| named["name"] == port), "{program}: {port}");
        let kept = relabel[0]["regex"].as_str().unwrap().split('|').any(|kept| kept == format!("{app};{port}"));
        assert!(kept, "{program}");
        let down = alerts().into_iter().find(|rule| rule["alert"] == "WxpayProgramDown").unwrap();
        let job = asked(down["expr"].as_str().unwrap()).remove(0).1.remove(0);
        assert!(job.name == "job" && job.is_match(app), "{app}");
    }
    // Debian's Prometheus is built without Kubernetes, so the rest is held against it with another discovery.
    let directory = tempfile::tempdir().unwrap();
    let local = directory.path().join("prometheus.yml").display().to_string();
    fs::write(&local, text.replace("kubernetes_sd_configs: [{ role: pod }]", "static_configs: []")).unwrap();
    promtool(&["check", "config", &local]);
    promtool(&["check", "config", "ops/prometheus/prometheus.yml"]);
}
