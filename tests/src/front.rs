//! The listeners of the real programs: TLS, who is before them, what they refuse, and whether they say how they are.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use reqwest::{Client, tls::TlsInfo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use wxpay_shared::http::{self, HEADER_BUDGET, HEADERS_MAX, REPLY_BUDGET};

use crate::harness::{
    notice::Notice,
    pair::{DEADLINE, Pair, binary},
    rabbitmq::{self, Node},
    wait_until,
};

/// The pair's ingress alone, with these lines in its section.
async fn ingress_with(url: &str, lines: &str) -> Pair {
    let mut pair = Pair::prepare(url);
    pair.change("[ingress]\n", &format!("[ingress]\n{lines}\n"));
    pair.start_ingress();
    pair.ingress_ready().await;
    pair
}

fn keys() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/vectors/keys")
}

/// Puts a certificate and its key where ingress looks for them.
pub(crate) fn install(directory: &Path, certificate: &str) {
    let key = fs::read_to_string(keys().join(format!("{certificate}.private.pkcs8.b64"))).unwrap();
    let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", key.trim());
    fs::write(directory.join("key.pem"), key).unwrap();
    fs::copy(keys().join(format!("{certificate}.cert.pem")), directory.join("certificate.pem")).unwrap();
}

/// The certificate that a new connection is shown, and the reply to a notification over it.
pub(crate) async fn over_tls(pair: &Pair) -> (Vec<u8>, String) {
    // A new client makes a new connection. The certificate is none for this name, and is compared here.
    let client = Client::builder().tls_danger_accept_invalid_certs(true).tls_info(true).build().unwrap();
    let url = pair.notify_url("shop").replace("http:", "https:");
    let answer = client.post(url).body(Notice::new("TLS1", 1_000).xml("n")).send().await.unwrap();
    let shown = answer.extensions().get::<TlsInfo>().unwrap().peer_certificate().unwrap().to_vec();
    (shown, answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_certificates_change_without_a_restart_and_a_bad_one_changes_nothing() {
    let url = rabbitmq::fresh_url().await;
    let directory = tempfile::tempdir().unwrap();
    install(directory.path(), "platform_cert_a");
    let here = directory.path().display();
    let pair =
        ingress_with(&url, &format!("tls_certificate = \"{here}/certificate.pem\"\ntls_key_file = \"{here}/key.pem\""))
            .await;
    let (first, reply) = over_tls(&pair).await;
    assert!(reply.contains("SUCCESS"), "{reply}");
    let plain = pair.client.post(pair.notify_url("shop")).body("<xml/>").send().await;
    assert!(plain.is_err(), "plain HTTP is not spoken at a TLS port");

    let simulate = ["simulate", "pay", "--merchant", "shop", "--out-trade-no", "T1", "--amount", "1", "--config"];
    let output = Command::new(binary("wxpayctl")).args(simulate).arg(pair.config_file()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no connection to https://127.0.0.1:") && said.contains("certificate"), "{said}");

    install(directory.path(), "platform_cert_b");
    wait_until("the new certificate is shown", DEADLINE, async || over_tls(&pair).await.0 != first).await;
    let (second, reply) = over_tls(&pair).await;
    assert!(reply.contains("SUCCESS"), "{reply}");

    // A certificate without its key.
    fs::copy(keys().join("platform_cert_a.cert.pem"), directory.path().join("certificate.pem")).unwrap();
    let metrics = async || pair.client.get(pair.ops_url("/metrics")).send().await.unwrap().text().await.unwrap();
    wait_until("the bad pair is counted", DEADLINE, async || {
        !metrics().await.contains("wxpay_key_reloads_total{result=\"kept_old\"} 0")
    })
    .await;
    assert_eq!(over_tls(&pair).await.0, second);
    assert!(metrics().await.contains("wxpay_tls_certificate_expiry_timestamp_seconds "));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_named_proxy_says_where_a_notification_comes_from() {
    let url = rabbitmq::fresh_url().await;
    let enforced = "trusted_proxies = [\"127.0.0.1\"]\nsource_networks = \"enforce\"";
    let post = async |pair: &Pair, forwarded_for: &str| {
        let request = pair.client.post(pair.notify_url("shop")).header("X-Forwarded-For", forwarded_for);
        request.body(Notice::new("SRC1", 1_000).xml("n")).send().await.unwrap().text().await.unwrap()
    };
    let (wechat, stranger) = ("101.226.103.14", "203.0.113.9");
    let pair = ingress_with(&url, enforced).await;
    assert!(post(&pair, wechat).await.contains("SUCCESS"));
    let refused = "<return_code><![CDATA[FAIL]]></return_code><return_msg><![CDATA[not from WeChat's networks]]>";
    assert!(post(&pair, stranger).await.contains(refused));
    assert!(post(&pair, &format!("{wechat}, {stranger}")).await.contains(refused), "the nearest address counts");
    drop(pair);

    let pair = ingress_with(&url, "source_networks = \"enforce\"").await;
    assert!(post(&pair, wechat).await.contains(refused), "nobody named this proxy");
    drop(pair);

    let pair = ingress_with(&url, &enforced.replace("enforce", "report")).await;
    assert!(post(&pair, stranger).await.contains("SUCCESS"));
    let page = pair.client.get(pair.ops_url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("wxpay_ingress_foreign_sources_total 1"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_too_many_is_answered_with_fail_at_once() {
    let pair = ingress_with(&rabbitmq::fresh_url().await, "requests = 1").await;
    let notify_url = pair.notify_url("shop").parse::<reqwest::Url>().unwrap();
    let address = format!("127.0.0.1:{}", notify_url.port().unwrap());
    let slow = async || {
        let mut connection = TcpStream::connect(&address).await.unwrap();
        connection.write_all(b"POST /v2/shop HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n").await.unwrap();
        connection
    };
    // Each round takes the place anew: a slow body gives it back after a moment.
    let overloaded = "<return_code><![CDATA[FAIL]]></return_code><return_msg><![CDATA[too many requests]]>";
    wait_until("v2 is told FAIL", DEADLINE, async || {
        let _slow = slow().await;
        pair.post("shop", Notice::new("LOAD1", 1_000).xml("n")).await.1.contains(overloaded)
    })
    .await;
    wait_until("v3 is told 503", DEADLINE, async || {
        let _slow = slow().await;
        let v3 = pair.client.post(pair.notify_url("shop").replace("/v2/", "/v3/")).body("{}");
        v3.send().await.unwrap().status() == 503
    })
    .await;
    wait_until("a slow body ends by itself", DEADLINE, async || {
        let mut answer = String::new();
        slow().await.read_to_string(&mut answer).await.unwrap();
        answer.starts_with("HTTP/1.1 408")
    })
    .await;
    wait_until("the place is free", DEADLINE, async || {
        pair.post("shop", Notice::new("LOAD1", 1_000).xml("n")).await.1.contains("SUCCESS")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_closed() {
    let mut pair = Pair::prepare(&rabbitmq::fresh_url().await);
    pair.start_ingress();
    pair.start_worker();
    pair.ready().await;
    let silent = [pair.notify_url("shop"), pair.ops_url("/"), pair.admin_url("/")].map(async |url: String| {
        let port = url.parse::<reqwest::Url>().unwrap().port().unwrap();
        let began = Instant::now();
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        connection.write_all(b"POST /v2/shop HTTP/1.1\r\nHost:").await.unwrap();
        connection.read_to_end(&mut Vec::new()).await.unwrap_or_default();
        began.elapsed()
    });
    for took in futures_util::future::join_all(silent).await {
        let allowed = HEADER_BUDGET..HEADER_BUDGET + Duration::from_secs(5);
        assert!(allowed.contains(&took), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_nobody_reads_is_given_up() {
    const LENGTH: usize = 64 << 20;
    let listener = http::bind("listen", "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(async || vec![b'x'; LENGTH]);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(http::serve(listener, router, Duration::from_secs(60), stop.clone()));
    let mut deaf = TcpStream::connect(address).await.unwrap();
    deaf.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    deaf.readable().await.unwrap();
    // Whoever serves waits for the end of this connection, which comes long before the end of its patience.
    let began = Instant::now();
    stop.cancel();
    serving.await.unwrap();
    assert!(began.elapsed() < REPLY_BUDGET + Duration::from_secs(10), "{:?}", began.elapsed());
    let mut heard = Vec::new();
    deaf.read_to_end(&mut heard).await.unwrap_or_default();
    assert!(heard.starts_with(b"HTTP/1.1 200 OK") && heard.len() < LENGTH, "{}", heard.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_notification_ends_its_connection() {
    let pair = ingress_with(&rabbitmq::fresh_url().await, "").await;
    let port = pair.notify_url("shop").parse::<reqwest::Url>().unwrap().port().unwrap();
    for path in ["/v2/shop", "/v3/shop", "/elsewhere"] {
        let question = format!("POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\n<xml>");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut replies = String::new();
        stream.read_to_string(&mut replies).await.unwrap();
        assert!(replies.contains("connection: close"), "{path}: {replies}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_without_end_is_refused_before_it_fills_the_memory() {
    let pair = ingress_with(&rabbitmq::fresh_url().await, "").await;
    let address = pair.notify_url("shop").split('/').nth(2).unwrap().to_owned();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let header = format!("POST /v2/shop HTTP/1.1\r\nX: {}", "x".repeat(HEADERS_MAX));
    stream.write_all(header.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 431 "), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_says_why_it_is_not_ready() {
    let mut node = Node::start();
    node.ready().await;
    let pair = ingress_with(&node.url("%2f"), "").await;
    let readyz = async || {
        let answer = pair.client.get(pair.ops_url("/readyz")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let not_ready = |why: &str| (503, format!("not ready: {why}\n"));
    node.ctl(&["set_vm_memory_high_watermark", "0"]);
    // RabbitMQ tells a connection that it is blocked when that publishes.
    wait_until("the alarm is felt", DEADLINE, async || {
        pair.post("shop", Notice::new("RDY1", 1_000).xml("n")).await;
        readyz().await == not_ready("the broker blocks publishers")
    })
    .await;
    node.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    wait_until("it is ready again", DEADLINE, async || readyz().await.0 == 200).await;

    node.freeze();
    let (_, reply) = pair.post("shop", Notice::new("RDY1", 1_000).xml("n")).await;
    assert!(reply.contains("no confirm within 3 s"), "{reply}");
    assert_eq!(readyz().await, not_ready("the queue's confirms are late"));
    node.thaw();
    wait_until("a confirm is in time", DEADLINE, async || {
        pair.post("shop", Notice::new("RDY1", 1_000).xml("n")).await.1.contains("SUCCESS")
    })
    .await;
    assert_eq!(readyz().await.0, 200);

    node.kill();
    wait_until("the broker is missed", DEADLINE, async || readyz().await == not_ready("the queue is not connected"))
        .await;
}

#[test]
fn the_admin_api_listens_beyond_loopback_only_with_a_token() {
    let pair = Pair::prepare("amqp://127.0.0.1:1");
    pair.change("admin_listen = \"127.0.0.1:", "admin_listen = \"0.0.0.0:");
    let output = Command::new(binary("wxpay-worker")).arg("--config").arg(pair.config_file()).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.trim(), "worker.admin_token: required, since worker.admin_listen is not loopback");
}
