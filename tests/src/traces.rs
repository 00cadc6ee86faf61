//! Traces: the spans that a collector gets of one notification, from the request to the store, through a retry, a dead
//! letter and its replay.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wxpay_shared::{http, order::OrderState};

use crate::harness::{
    notice::Notice,
    pair::{API_V3_KEY, DEADLINE, MCH_ID, Pair, SEAL_KEY, V2_KEY},
    rabbitmq, wait_until,
};

/// A span, and the program that sent it.
#[derive(Clone, Debug)]
struct Sent {
    service: String,
    span: Span,
}

impl Sent {
    fn says(&self, key: &str) -> String {
        value(&self.span.attributes, key)
    }
}

fn value(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()).and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => other.map(|other| format!("{other:?}")).unwrap_or_default(),
    }
}

/// A collector that keeps what it gets.
struct Collector {
    posts: Arc<Mutex<Vec<Bytes>>>,
    port: u16,
    stop: CancellationToken,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, stop) = (listener.local_addr().unwrap().port(), CancellationToken::new());
        let posts = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&posts);
        let router = Router::new().route("/v1/traces", post(async move |body: Bytes| keep.lock().unwrap().push(body)));
        tokio::spawn(http::serve(listener, router, DEADLINE, stop.clone()));
        Self { posts, port, stop }
    }

    fn spans(&self) -> Vec<Sent> {
        let mut sent = Vec::new();
        for post in self.posts.lock().unwrap().iter() {
            for of_program in ExportTraceServiceRequest::decode(post.clone()).unwrap().resource_spans {
                let service = value(&of_program.resource.unwrap().attributes, "service.name");
                let spans = of_program.scope_spans.into_iter().flat_map(|scope| scope.spans);
                sent.extend(spans.map(|span| Sent { service: service.clone(), span }));
            }
        }
        sent
    }

    fn of(&self, trace: &[u8]) -> Vec<Sent> {
        self.spans().into_iter().filter(|sent| sent.span.trace_id == trace).collect()
    }

    /// What became of a notification at each attempt, sorted.
    fn outcomes(&self, trace: &[u8]) -> Vec<String> {
        let spans = self.of(trace);
        let mut outcomes: Vec<_> = named(&spans, "process").iter().map(|sent| sent.says("wxpay.outcome")).collect();
        outcomes.sort();
        outcomes
    }

    /// The trace of the request that ended like this and is none of those known.
    fn request(&self, result: &str, known: &[Vec<u8>]) -> Option<Vec<u8>> {
        let ended = |sent: &Sent| sent.says("wxpay.result") == result && !known.contains(&sent.span.trace_id);
        self.spans().into_iter().find(ended).map(|sent| sent.span.trace_id)
    }

    async fn wait_for_request(&self, result: &str, known: &[Vec<u8>]) -> Vec<u8> {
        wait_until("the request is sent", DEADLINE, async || self.request(result, known).is_some()).await;
        self.request(result, known).unwrap()
    }
}

fn named<'a>(spans: &'a [Sent], name: &str) -> Vec<&'a Sent> {
    spans.iter().filter(|sent| sent.span.name == name).collect()
}

/// The pair with a collector.
async fn prepare(url: &str) -> (Collector, Pair) {
    let collector = Collector::start().await;
    let mut pair = Pair::prepare(url);
    let telemetry = format!("[telemetry]\notlp_endpoint = \"http://127.0.0.1:{}\"\n[seal]", collector.port);
    pair.change("[seal]", &telemetry);
    pair.environment.push(("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "50".to_owned()));
    pair.set_retries("\"1s\", \"2s\"", 10);
    (collector, pair)
}

/// A trace that whoever sends a notification claims to be in.
const OF_THE_SENDER: [u8; 16] = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();

/// A notification, with the sender's trace in a header.
async fn traced_by_its_sender(pair: &Pair, notice: String) -> String {
    let trace = u128::from_be_bytes(OF_THE_SENDER);
    let request = pair.client.post(pair.notify_url("shop"));
    let request = request.header("traceparent", format!("00-{trace:032x}-b7ad6b7169203331-01"));
    request.body(notice).send().await.unwrap().text().await.unwrap()
}

/// The services are those of ingress and of the worker.
async fn story(collector: &Collector, pair: &Pair, services: [&str; 2]) {
    // Nobody has registered the order, so the worker tries again, and applies it when it is there.
    assert!(traced_by_its_sender(pair, Notice::new("TRACED1", 1_000).xml("n")).await.contains("SUCCESS"));
    let first = collector.wait_for_request("accepted", &[]).await;
    wait_until("it was tried once", DEADLINE, async || collector.outcomes(&first).contains(&"retry".to_owned())).await;
    pair.register("shop", "TRACED1", 1_000, "buyer-alice").await;
    wait_until("it was applied", DEADLINE, async || collector.outcomes(&first).contains(&"applied".to_owned())).await;
    check(&collector.of(&first), services);

    // A dead letter and its replay are of the notification's trace too.
    assert!(pair.post("shop", Notice::new("TRACED1", 1).xml("n")).await.1.contains("SUCCESS"));
    let second = collector.wait_for_request("accepted", &[first]).await;
    wait_until("it died", DEADLINE, async || collector.outcomes(&second) == ["dead_letter"]).await;
    let dead = collector.of(&second);
    assert_eq!(named(&dead, "process")[0].says("wxpay.reason"), "conflicting_duplicate");
    let replay =
        pair.client.post(pair.admin_url("/dead-letters/replay")).json(&serde_json::json!({"select": {"all": true}}));
    assert_eq!(replay.send().await.unwrap().status(), 200);
    wait_until("it died again", DEADLINE, async || collector.outcomes(&second) == ["dead_letter"; 2]).await;
    check(&collector.of(&second), services);

    // What is refused has a request and nothing behind it.
    assert!(
        pair.post("shop", Notice::new("FORGED1", 7).xml("n").replace("FORGED1", "FORGED2")).await.1.contains("FAIL")
    );
    let forged = collector.wait_for_request("bad_signature", &[]).await;
    assert_eq!(collector.of(&forged).len(), 1);

    assert!(collector.of(&OF_THE_SENDER).is_empty(), "whoever sends begins no trace of ours");

    let secrets = [V2_KEY, API_V3_KEY, SEAL_KEY, "oTESTpayer0001", "buyer-alice", "TRACED1", MCH_ID, "<xml>"];
    for post in collector.posts.lock().unwrap().iter() {
        for secret in secrets {
            let found = post.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a span holds {secret}");
        }
    }
}

/// One trace: the request, its publish, and under that each attempt with its transaction.
fn check(spans: &[Sent], [ingress, worker]: [&str; 2]) {
    let (request, publish) = (named(spans, "accept"), named(spans, "publish"));
    let (attempts, transactions) = (named(spans, "process"), named(spans, "store transaction"));
    assert_eq!((request.len(), publish.len()), (1, 1), "{spans:?}");
    assert!(request[0].span.parent_span_id.is_empty());
    assert_eq!(
        (request[0].says("wxpay.merchant"), request[0].says("http.route")),
        ("shop".into(), "/v2/{merchant}".into())
    );
    assert_eq!(publish[0].span.parent_span_id, request[0].span.span_id);
    assert!(request.iter().chain(&publish).all(|sent| sent.service == ingress), "{spans:?}");
    assert!(attempts.iter().chain(&transactions).all(|sent| sent.service == worker), "{spans:?}");
    let number = request[0].says("wxpay.notification");
    assert!(!number.is_empty());
    for attempt in &attempts {
        assert_eq!(attempt.span.parent_span_id, publish[0].span.span_id);
        assert_eq!(attempt.says("wxpay.notification"), number);
        assert!(attempt.span.end_time_unix_nano >= attempt.span.start_time_unix_nano);
        let own = transactions.iter().filter(|sent| sent.span.parent_span_id == attempt.span.span_id);
        assert_eq!(own.count(), 1, "each attempt has its transaction: {spans:?}");
    }
    assert_eq!(spans.len(), 2 + 2 * attempts.len(), "{spans:?}");
    let all: BTreeSet<_> = spans.iter().map(|sent| &sent.span.span_id).collect();
    assert_eq!(all.len(), spans.len(), "no span is sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_notification_is_one_trace_over_rabbitmq() {
    let (node, host) = rabbitmq::fresh_host().await;
    let (collector, mut pair) = prepare(&node.url(&host)).await;
    pair.start_ingress();
    pair.start_worker();
    pair.ready().await;
    story(&collector, &pair, ["wxpay-ingress", "wxpay-worker"]).await;
    collector.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_notification_is_one_trace_in_one_process() {
    let (collector, mut pair) = prepare("embedded").await;
    pair.start_serve();
    pair.ready().await;
    story(&collector, &pair, ["wxpay-notify"; 2]).await;
    collector.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sent_yet_is_sent_at_the_end() {
    let (collector, mut pair) = prepare("embedded").await;
    pair.environment.retain(|(name, _)| name != "OTEL_BSP_SCHEDULE_DELAY");
    pair.environment.push(("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "600000".to_owned()));
    pair.start_serve();
    pair.ready().await;
    pair.register("shop", "LATE1", 1_000, "alice").await;
    assert!(pair.post("shop", Notice::new("LATE1", 1_000).xml("n")).await.1.contains("SUCCESS"));
    wait_until("it is paid", DEADLINE, async || pair.order("shop", "LATE1").await.state == OrderState::Paid).await;
    assert_eq!(collector.spans().len(), 0);
    drop(pair.take_worker());
    let spans = collector.spans();
    assert_eq!((named(&spans, "accept").len(), named(&spans, "process").len()), (1, 1));
    collector.stop.cancel();
}
