//! The metrics page of the running pair, the list of metrics, the document about them, the alerts and the dashboard: all
//! five say the same names and labels.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use promql_parser::{
    label::{METRIC_NAME, Matcher},
    parser::{self, Expr, VectorSelector},
    util::{ExprVisitor, walk_expr},
};
use serde_json::Value;
use wxpay_shared::metric::list::{self, Kind, Metric};

use crate::{
    deploy::{read, root},
    front,
    harness::{
        notice::Notice,
        pair::{API_V3_KEY, DEADLINE, MCH_ID, Pair, V2_KEY},
        rabbitmq, wait_until, wechat,
    },
};

/// The series of a page: the names with their labels' names, without what a histogram adds.
type Series = BTreeMap<String, BTreeSet<String>>;

fn series(page: &str) -> Series {
    let mut series = Series::new();
    for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = &line[..line.find(['{', ' ']).unwrap()];
        let labels = line.find('{').map_or("", |open| &line[open + 1..line.rfind('}').unwrap()]);
        let labels = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        series.entry(metric_of(name).to_owned()).or_default().extend(labels.filter(|name| name != "le"));
    }
    series
}

/// The metric of a series.
fn metric_of(series: &str) -> &str {
    let histogram = |suffix: &str| {
        let name = series.strip_suffix(suffix)?;
        let is_it = |metric: &&Metric| metric.name == name && matches!(metric.kind, Kind::Histogram(_));
        list::ALL.into_iter().find(is_it).map(|metric| metric.name)
    };
    ["_bucket", "_sum", "_count"].into_iter().find_map(histogram).unwrap_or(series)
}

/// What both programs show after a little of everything.
async fn pages() -> (Series, Series) {
    let (node, host) = rabbitmq::fresh_host().await;
    let mut pair = Pair::start(&node.url(&host)).await;

    pair.register("shop", "M1", 1_000, "alice").await;
    for (order, amount) in [("M1", 1_000), ("M1", 1_000), ("M1", 999), ("M2", 1_000)] {
        assert_eq!(pair.post("shop", Notice::new(order, amount).xml("n")).await.0, 200);
    }
    let refund = wechat::v2_refund(V2_KEY, MCH_ID, &wechat::refund("M1", 1_000, 1, 400, "SUCCESS"));
    assert!(pair.post("shop", refund).await.1.contains("SUCCESS"));
    assert!(pair.post("shop", Notice::new("M1", 1_000).xml("n").replace("1000", "1")).await.1.contains("FAIL"));
    let key = wechat::platform_key("platform_cert_a", wechat::CERT_A);
    let coupon = wechat::v3(&key, API_V3_KEY, "COUPON.USE", 1, &serde_json::json!({}));
    let request = pair.client.post(pair.notify_url("shop").replace("/v2/", "/v3/")).body(coupon.body.clone());
    let request = coupon.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
    assert_eq!(request.send().await.unwrap().status(), 204);
    pair.settled(node, &host).await;
    wait_until("there is a dead letter", DEADLINE, async || {
        pair.dead_letters().await.by_reason.contains_key("conflicting_duplicate")
    })
    .await;
    let select = serde_json::json!({ "reason": "conflicting_duplicate" });
    for (action, body) in [
        ("replay", serde_json::json!({ "select": select })),
        ("discard", serde_json::json!({ "select": select, "reason": "a test" })),
    ] {
        let request = pair.client.post(pair.admin_url(&format!("/dead-letters/{action}")));
        assert_eq!(request.json(&body).send().await.unwrap().status(), 200);
    }
    let page = async |url: String| series(&pair.client.get(url).send().await.unwrap().text().await.unwrap());
    let (ingress, worker) = (pair.ops_url("/metrics"), pair.admin_url("/metrics"));
    // Read once a second and every five seconds.
    wait_until("everything was looked at", DEADLINE, async || {
        let worker = page(worker.clone()).await;
        worker.contains_key("wxpay_queue_messages") && worker.contains_key("wxpay_data_dir_bytes")
    })
    .await;
    let (mut ingress, worker) = (page(ingress).await, page(worker).await);
    ingress.extend(page_over_tls(&mut pair).await);
    (ingress, worker)
}

/// What an ingress shows beside that when it speaks TLS and asks where notifications come from.
async fn page_over_tls(pair: &mut Pair) -> Series {
    drop(pair.take_ingress());
    let directory = pair.config_file().with_file_name("tls");
    fs::create_dir(&directory).unwrap();
    front::install(&directory, "platform_cert_a");
    let tls = "[ingress]\ntls_certificate = \"tls/certificate.pem\"\ntls_key_file = \"tls/key.pem\"\n\
               source_networks = \"report\"\n";
    pair.change("[ingress]\n", tls);
    pair.start_ingress();
    pair.ingress_ready().await;
    front::over_tls(pair).await;
    series(&pair.client.get(pair.ops_url("/metrics")).send().await.unwrap().text().await.unwrap())
}

struct Names<'a>(&'a mut Vec<(String, Vec<Matcher>)>);

impl Names<'_> {
    fn note(&mut self, selector: &VectorSelector) {
        let labels = selector.matchers.matchers.iter().filter(|matcher| matcher.name != METRIC_NAME).cloned().collect();
        self.0.push((selector.name.clone().expect("a selector names its metric"), labels));
    }
}

impl ExprVisitor for Names<'_> {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        if let Expr::VectorSelector(selector) = expr {
            self.note(selector);
        }
        if let Expr::MatrixSelector(selector) = expr {
            self.note(&selector.vs);
        }
        Ok(true)
    }
}

/// The metrics that an expression asks for, with the labels by which it selects.
pub(crate) fn asked(expression: &str) -> Vec<(String, Vec<Matcher>)> {
    let expression = expression.replace("$__rate_interval", "5m").replace("$merchant", ".*");
    let parsed = parser::parse(&expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut names = Vec::new();
    walk_expr(&mut Names(&mut names), &parsed).unwrap();
    assert!(!names.is_empty(), "{expression} asks for nothing");
    names
}

pub(crate) fn alerts() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&read("ops/prometheus/alerts.yml")).unwrap();
    file["groups"][0]["rules"].as_array().unwrap().clone()
}

fn dashboard() -> Vec<String> {
    let file: Value = serde_json::from_str(&read("ops/grafana/wxpay-notify.json")).unwrap();
    let targets = |panel: &Value| panel["targets"].as_array().cloned().unwrap_or_default();
    let targets = file["panels"].as_array().unwrap().iter().flat_map(targets);
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_asks_for_what_the_programs_show() {
    let (ingress, worker) = pages().await;
    let mut live = ingress.clone();
    for (name, labels) in worker.clone() {
        live.entry(name).or_default().extend(labels);
    }
    let listed: Series = list::ALL
        .into_iter()
        .map(|metric| (metric.name.to_owned(), metric.labels.iter().map(|label| (*label).to_owned()).collect()))
        .collect();
    assert_eq!(live, listed, "what the programs show is what the list says");
    for both in ["wxpay_build_info", "wxpay_key_reloads_total", "wxpay_platform_key_expiry_timestamp_seconds"] {
        assert!(ingress.contains_key(both) && worker.contains_key(both), "{both}");
    }

    let mut used = BTreeSet::new();
    for expression in expressions() {
        for (name, labels) in asked(&expression) {
            // Prometheus' own, about the scrape.
            if name == "up" {
                continue;
            }
            let metric = metric_of(&name);
            let known = live.get(metric).unwrap_or_else(|| panic!("nothing shows {name}: {expression}"));
            for label in labels {
                assert!(known.contains(&label.name), "{name} has no label {}: {expression}", label.name);
            }
            used.insert(metric.to_owned());
        }
    }
    assert_eq!(used, listed.into_keys().collect(), "every metric is on the dashboard or in an alert");
}

/// Everything that the alerts and the dashboard ask.
fn expressions() -> Vec<String> {
    let alerts = alerts().into_iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    alerts.chain(dashboard()).collect()
}

/// Where the code says the values of each label. Those of `merchant`, `job` and `tier` are configured.
const VALUES: [(&str, &[&str]); 5] = [
    ("result", &["ingress/src/lib.rs", "ingress/src/reply.rs", "shared/src/wechat/v3_sign.rs", "shared/src/metric.rs"]),
    ("outcome", &["worker/src/settle.rs", "shared/src/admin/replay.rs"]),
    ("reason", &["shared/src/reason.rs"]),
    ("queue", &["shared/src/metric.rs"]),
    ("api", &["shared/src/envelope.rs"]),
];

/// A value that is renamed in the code and not in an expression would leave an alert that never fires.
#[test]
fn every_value_that_is_asked_for_is_said_by_the_code() {
    let mut asked_for = 0;
    for expression in expressions() {
        for matcher in asked(&expression).into_iter().flat_map(|(_, matchers)| matchers) {
            let Some((_, files)) = VALUES.iter().find(|(label, _)| *label == matcher.name) else {
                assert!(["merchant", "job", "tier"].contains(&matcher.name.as_str()), "{}: {expression}", matcher.name);
                continue;
            };
            let code: String = files.iter().map(|file| code_of(file)).collect();
            for value in matcher.value.split('|') {
                // `queue_.*`, say: some value of the code begins like this, or ends.
                let literal = match (value.strip_suffix(".*"), value.strip_prefix(".*")) {
                    (Some(start), _) => format!("\"{start}"),
                    (None, Some(end)) => format!("{end}\""),
                    (None, None) => format!("\"{value}\""),
                };
                assert!(code.contains(&literal), "{}: nothing says {value}: {expression}", matcher.name);
                asked_for += 1;
            }
        }
    }
    assert!(asked_for > 20);
}

/// A file without its tests and its comments.
fn code_of(file: &str) -> String {
    let text = read(file);
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect()
}

#[test]
fn an_alert_says_what_to_do() {
    let alerts = alerts();
    assert!(alerts.len() >= 10);
    for rule in alerts {
        assert!(rule["alert"].as_str().unwrap().starts_with("Wxpay"), "{rule}");
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")), "{rule}");
        for text in ["summary", "action"] {
            assert!(rule["annotations"][text].as_str().is_some_and(|text| text.len() > 10), "{rule}");
        }
    }
}

#[test]
fn prometheus_finds_the_programs_where_compose_starts_them() {
    let file: Value = serde_saphyr::from_str(&read("ops/prometheus/prometheus.yml")).unwrap();
    let default = wxpay_shared::config::Config::default();
    let jobs = &file["scrape_configs"];
    let ingress = format!("ingress:{}", default.ingress.ops_listen.port());
    assert_eq!(jobs[0]["static_configs"][0]["targets"], serde_json::json!([ingress]));
    assert_eq!(jobs[1]["dns_sd_configs"][0]["names"], serde_json::json!(["worker"]));
    assert_eq!(jobs[1]["dns_sd_configs"][0]["port"], default.worker.admin_listen.port());
    assert_eq!(file["rule_files"], serde_json::json!(["alerts.yml"]));
}

/// With `UPDATE_DOCS` set, the document is written anew.
#[test]
fn the_document_is_the_list() {
    let mut document = "# Metrics\n\nBoth programs show theirs at `/metrics`: ingress at `ingress.ops_listen`, the worker at \
        `worker.admin_listen`.\nPrometheus' rules are in `ops/prometheus`, with what finds the pods of `ops/kubernetes`; a \
        Grafana dashboard is in `ops/grafana`.\nThis page is made from the code.\n\n| metric | kind | labels | what it says |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for metric in list::ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let Metric { name, labels, help, .. } = metric;
        document += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join("docs/metrics.md"), &document).unwrap();
    }
    assert_eq!(read("docs/metrics.md"), document, "UPDATE_DOCS=1 cargo test -p wxpay-tests -- the_document");
}
