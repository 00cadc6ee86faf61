//! The v3 notifications and v2 refund notices of the vector set over HTTP: an ingress whose clock stands still at the
//! moment of their signing, a real RabbitMQ, and a real worker.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use wxpay_ingress::{Ingress, router};
use wxpay_shared::{
    admin::{OrderView, RefundView},
    clock::Clock,
    config::Config,
    event::{Fact, RefundStatus},
    http,
    merchant::{LiveMerchants, Merchants},
    order::OrderState,
    queue::{Publisher as _, rabbit::RabbitPublisher},
    reason::Reason,
    wechat::v3_event::{self, Outcome},
};

use crate::{
    harness::{
        pair::{DEADLINE, Pair},
        rabbitmq::{self, Node},
        wait_until,
    },
    manifest::{Vector, vectors},
};

/// When the vectors were signed.
const NOW: i64 = 1_773_800_430;

struct Frozen;

impl Clock for Frozen {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(NOW).expect("a time of this century")
    }
}

/// An ingress of this process beside a worker of its own.
struct Bench {
    node: &'static Node,
    host: String,
    pair: Pair,
    merchants: Arc<LiveMerchants>,
    url: String,
    _stop: DropGuard,
}

impl Bench {
    async fn start() -> Self {
        let (node, host) = rabbitmq::fresh_host().await;
        let mut pair = Pair::prepare(&node.url(&host));
        pair.start_worker();
        let config = Config::load(Some(&pair.config_file()), []).expect("the pair's configuration can be used");
        let seal = config.seal_keys().expect("the seal key can be used").expect("there is a seal key");
        let merchants = Arc::new(LiveMerchants::new(Merchants::open(&config).expect("the keys can be used")));
        let publisher = RabbitPublisher::start(node.url(&host).into(), config.queue_settings());
        wait_until("the publisher is ready", DEADLINE, async || publisher.ready().is_ok()).await;
        let ingress = Ingress::new(Arc::clone(&merchants), Arc::new(seal), Arc::new(publisher), Arc::new(Frozen));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has free ports");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let stop = CancellationToken::new();
        tokio::spawn(http::serve(listener, router(Arc::new(ingress)), DEADLINE, stop.clone()));
        pair.worker_ready().await;
        Self { node, host, pair, merchants, url, _stop: stop.drop_guard() }
    }

    async fn post(&self, api: &str, vector: &Vector) -> (u16, String) {
        let mut request = self.pair.client.post(format!("{}/{api}/{}", self.url, vector.merchant()));
        for (name, value) in &vector.headers {
            request = request.header(name, value);
        }
        let answer = request.body(vector.bytes()).send().await.expect("ingress answers");
        (answer.status().as_u16(), answer.text().await.expect("ingress sends its whole answer"))
    }

    async fn settled(&self) {
        self.pair.settled(self.node, &self.host).await;
    }

    /// What an accepted v3 vector reports, opened as its receiver would.
    fn fact(&self, vector: &Vector) -> Option<Fact> {
        let merchants = self.merchants.now();
        let merchant = merchants.get(vector.merchant()).expect("a configured merchant");
        let keys = &merchant.v3.as_ref().expect("a merchant with v3").api;
        v3_event::open(&vector.bytes(), &merchant.name, &merchant.ids, keys).into_iter().find_map(|outcome| {
            match outcome {
                Outcome::Fact(fact) => Some(fact),
                Outcome::Ignored(_) | Outcome::Rejected(_) => None,
            }
        })
    }

    async fn order(&self, vector: &Vector, out_trade_no: &str) -> OrderView {
        self.pair.order(vector.merchant(), out_trade_no).await
    }

    async fn register(&self, vector: &Vector, out_trade_no: &str) {
        let pair = &self.pair;
        let path = pair.admin_url(&format!("/orders/{}/{out_trade_no}", vector.merchant()));
        if !pair.client.get(path).send().await.expect("the worker answers").status().is_success() {
            pair.register(vector.merchant(), out_trade_no, vector.order_amount(), "user-1").await;
        }
    }
}

/// v3's status for what the manifest has refused: 400 where it is none of the protocol's messages, 401 where it is not
/// known to be WeChat's.
fn refused_with(vector: &Vector) -> u16 {
    match vector.reason.as_str() {
        "body_too_large" => 413,
        "bad_header" | "missing_header" | "bad_json" | "missing_field" => 400,
        _ => 401,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_v3_vector_is_answered_and_ends_as_the_manifest_says() {
    let bench = Bench::start().await;
    let vectors = vectors("v3");
    let mut dead_expected = 0;
    for vector in &vectors {
        let fact = bench.fact(vector);
        if let Some(fact) = &fact {
            bench.register(vector, fact.order().out_trade_no.as_str()).await;
        }
        let (status, reply) = bench.post("v3", vector).await;
        match vector.ingress.as_str() {
            "accept" => assert_eq!((status, reply.as_str()), (204, ""), "{}", vector.id),
            "refuse" => {
                assert_eq!(status, refused_with(vector), "{}", vector.id);
                let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
                assert_eq!(reply["code"], "FAIL", "{}", vector.id);
                assert!(!reply["message"].as_str().unwrap().is_empty());
            }
            _ => assert!(status == 204 || status == 401, "{}: {status}", vector.id),
        }
        let abnormal = matches!(&fact, Some(Fact::Refund(refund)) if refund.status == RefundStatus::Abnormal);
        if vector.ingress == "accept" && (vector.worker.as_deref() == Some("dead_letter") || abnormal) {
            dead_expected += 1;
        }
    }
    bench.settled().await;
    for vector in vectors.iter().filter(|vector| vector.ingress == "accept") {
        let Some(fact) = bench.fact(vector) else { continue };
        let order = bench.order(vector, fact.order().out_trade_no.as_str()).await;
        match (vector.worker.as_deref(), &fact) {
            (Some("apply" | "duplicate"), Fact::Payment(payment)) => {
                let of_it =
                    order.payments.iter().filter(|known| known.transaction_id == payment.transaction_id).count();
                assert_eq!((order.payments.len(), of_it), (1, 1), "{}", vector.id);
                assert_eq!(order.received.get(), vector.order_amount(), "{}", vector.id);
            }
            (Some("apply"), Fact::Refund(refund)) => assert_refund(vector, &order.refunds, refund.refund_id.as_str()),
            (Some("dead_letter"), Fact::Payment(_)) => assert_eq!(order.state, OrderState::Unpaid, "{}", vector.id),
            other => panic!("{}: no check for {other:?}", vector.id),
        }
    }
    assert_eq!(bench.pair.dead_letters().await.matching, dead_expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_v2_refund_vector_is_answered_and_ends_as_the_manifest_says_on_both_routes() {
    for (route, success) in [("v2", 200), ("v3", 200)] {
        let bench = Bench::start().await;
        let vectors = vectors("v2refund");
        for vector in &vectors {
            bench.register(vector, "TESTORDER20260318000001").await;
            let (status, reply) = bench.post(route, vector).await;
            if vector.ingress == "accept" {
                let success_reply = reply.contains("<return_code><![CDATA[SUCCESS]]></return_code>");
                assert_eq!((status, success_reply), (success, true), "{}: {reply}", vector.id);
            } else if vector.ingress == "refuse" {
                let status_of_route = if route == "v2" { 200 } else { refused_with(vector) };
                assert_eq!((status, reply.contains("FAIL")), (status_of_route, true), "{}: {reply}", vector.id);
            }
        }
        bench.settled().await;
        for vector in vectors.iter().filter(|vector| vector.ingress == "accept") {
            let order = bench.order(vector, "TESTORDER20260318000001").await;
            assert_refund(vector, &order.refunds, &vector.field("refund_id").unwrap());
            assert_eq!((order.state, order.points), (OrderState::Unpaid, 0), "a refund alone pays nothing");
        }
        let dead = bench.pair.dead_letters().await;
        let reasons: Vec<_> = dead.dead_letters.iter().map(|letter| letter.reason).collect();
        assert!(reasons.contains(&Reason::RefundAbnormal));
        assert!(
            reasons.iter().all(|reason| [Reason::RefundAbnormal, Reason::InvalidField].contains(reason)),
            "{reasons:?}"
        );
    }
}

/// The decryption faults tell a stranger nothing that would help him.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_inside_a_refund_notice_gets_the_same_answer() {
    let bench = Bench::start().await;
    let inside = [
        "refund-wrong-key",
        "refund-bad-base64",
        "refund-not-block-multiple",
        "refund-cut-last-block",
        "refund-inner-doctype",
    ];
    let mut replies = Vec::new();
    for vector in vectors("v2refund").iter().filter(|vector| inside.contains(&vector.id.as_str())) {
        replies.push(bench.post("v2", vector).await);
    }
    assert_eq!(replies.len(), inside.len());
    replies.dedup();
    assert_eq!(replies.len(), 1, "{replies:?}");
}

fn assert_refund(vector: &Vector, refunds: &[RefundView], refund_id: &str) {
    let of_it: Vec<_> = refunds.iter().filter(|refund| refund.refund_id.as_str() == refund_id).collect();
    assert_eq!(of_it.len(), 1, "{}", vector.id);
    let expected = match vector.field("refund_status").as_deref() {
        Some("SUCCESS") => RefundStatus::Success,
        Some("CHANGE" | "ABNORMAL") => RefundStatus::Abnormal,
        Some("REFUNDCLOSE" | "CLOSED") => RefundStatus::Closed,
        other => panic!("{}: {other:?}", vector.id),
    };
    assert_eq!(of_it[0].status, expected, "{}", vector.id);
    assert_eq!(of_it[0].amount.get(), 3960, "{}", vector.id);
}
