//! SECURITY.md and docs/dependencies.md say what is so: the tests that they name exist, the crates are those of the
//! workspace, and what a program may not tell is in no log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use reqwest::header;
use toml::{Table, Value};

use crate::{
    deploy::{read, root},
    harness::{
        database::{Kind, fresh_schema},
        notice::Notice,
        pair::{API_V3_KEY, MCH_ID, Pair, V2_KEY},
        process::free_port,
        rabbitmq, wechat,
    },
    tidy::sources,
};

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let code: String = sources().into_iter().map(|(_, text)| text).collect();
    let document = read("SECURITY.md");
    let threats: Vec<_> = document.split("Tests: ").skip(1).collect();
    assert!(threats.len() >= 9);
    let mut named = 0;
    for threat in threats {
        let list = threat.split(".\n").next().unwrap_or_default();
        for name in list.split('`').skip(1).step_by(2) {
            let is_test = ["fn ", "async fn "].iter().any(|kind| code.contains(&format!("]\n{kind}{name}(")))
                || ["    fn ", "    async fn "].iter().any(|kind| code.contains(&format!("]\n{kind}{name}(")));
            assert!(is_test, "SECURITY.md names a test that is not there: {name}");
            named += 1;
        }
    }
    assert!(named > 30);
}

/// The crates that a member of the workspace names, without our own.
fn direct() -> BTreeSet<String> {
    let manifest: Table = read("Cargo.toml").parse().unwrap();
    let names = manifest["workspace"]["dependencies"].as_table().unwrap().keys();
    names.filter(|name| !name.starts_with("wxpay")).cloned().collect()
}

/// How many crates come with each, by Cargo.lock: at most, since it counts every platform and feature.
fn brought() -> BTreeMap<String, usize> {
    let lock: Table = read("Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let text = |package: &Value, key: &str| package[key].as_str().unwrap().to_owned();
    // Where there are several versions of a crate, a dependency says which one it means.
    let needs = |package: &Value| -> Vec<String> {
        let list = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
        list.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        let name = text(package, "name");
        known.insert(format!("{name} {}", text(package, "version")), needs(package));
        known.insert(name, needs(package));
    }
    let count = |name: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![name.to_owned()]);
        while let Some(next) = open.pop() {
            if seen.insert(next.clone()) {
                open.extend(known.get(&next).cloned().unwrap_or_default());
            }
        }
        seen.len()
    };
    direct().into_iter().map(|name| (name.clone(), count(&name))).collect()
}

/// With `UPDATE_DOCS` set, the numbers are written anew.
#[test]
fn every_dependency_has_its_reason() {
    let brought = brought();
    let mut listed = BTreeSet::new();
    let lines: Vec<String> = read("docs/dependencies.md")
        .lines()
        .map(|line| {
            let cells: Vec<_> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
            let [name, _, why] = cells[..] else { return line.to_owned() };
            let Some(count) = brought.get(name) else { return line.to_owned() };
            assert!(why.len() > 5, "{name}: why is it here?");
            listed.insert(name.to_owned());
            format!("| {name} | {count} | {why} |")
        })
        .collect();
    assert_eq!(listed, direct());
    let document = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join("docs/dependencies.md"), &document).unwrap();
    }
    assert_eq!(read("docs/dependencies.md"), document, "UPDATE_DOCS=1 cargo test -p wxpay-tests -- every_dependency");
}

const TOKEN: &str = "an admin token that nobody may see";
const WRONG_TOKEN: &str = "what somebody took for the token";

/// The pair with an admin token, a database and a collector that is away, saying everything that it can. Whatever it is
/// asked comes with the token.
async fn talkative(url: &str) -> Pair {
    let mut pair = Pair::prepare(url);
    let store = fresh_schema(Kind::Postgres).await;
    let config = fs::read_to_string(pair.config_file()).unwrap();
    let collector = format!("http://127.0.0.1:{}", free_port());
    let more = format!("[store]\nurl = \"{store}\"\n[telemetry]\notlp_endpoint = \"{collector}\"\n");
    fs::write(pair.config_file(), config + more.as_str()).unwrap();
    pair.environment = vec![
        ("WXPAY_LOG".to_owned(), "trace".to_owned()),
        ("WXPAY__SEAL__PREVIOUS_KEY".to_owned(), "the previous seal key for tests, of length".to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS".to_owned(), "authorization=key-of-the-collector".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "50".to_owned()),
    ];
    pair.set_admin_token(TOKEN);
    let bearer = header::HeaderValue::from_str(&format!("Bearer {TOKEN}")).unwrap();
    let headers = header::HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]);
    pair.client = reqwest::Client::builder().default_headers(headers).build().unwrap();
    pair.start_ingress();
    pair.start_worker();
    pair.ready().await;
    pair
}

/// Everything at the most talkative level, on a broker and a database: a payment, a repeat, a refund, a forgery, v3, and a
/// notification that becomes a dead letter and is replayed.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_in_the_logs_at_any_level() {
    let (node, host) = rabbitmq::fresh_host().await;
    let pair = talkative(&node.url(&host)).await;
    pair.register("shop", "LOG1", 1_000, "user-that-is-a-person").await;
    let payment = Notice::new("LOG1", 1_000).xml("nonce-of-the-payment");
    let surplus = Notice { transaction_id: "42OTHER".to_owned(), ..Notice::new("LOG1", 1_000) }.xml("another-nonce");
    let forged = payment.replace("1000", "1");
    let refund = wechat::v2_refund(V2_KEY, MCH_ID, &wechat::refund("LOG1", 1_000, 1, 400, "SUCCESS"));
    for body in [&payment, &payment, &surplus, &forged, &refund] {
        assert_eq!(pair.post("shop", body.clone()).await.0, 200);
    }
    let v3 =
        wechat::v3(&wechat::public_key(), API_V3_KEY, "TRANSACTION.SUCCESS", 1, &wechat::transaction("LOG1", 1_000));
    let request = pair.client.post(pair.notify_url("shop").replace("/v2/", "/v3/"));
    let request =
        v3.headers.iter().fold(request.body(v3.body.clone()), |request, (name, value)| request.header(*name, value));
    assert_eq!(request.send().await.unwrap().status(), 204);
    pair.settled(node, &host).await;
    let replay = pair
        .client
        .post(pair.admin_url("/dead-letters/replay"))
        .json(&serde_json::json!({ "select": { "all": true } }));
    assert!(replay.send().await.unwrap().status().is_success());
    let guess = pair.client.get(pair.admin_url("/dead-letters")).bearer_auth(WRONG_TOKEN);
    assert_eq!(guess.send().await.unwrap().status(), 401);
    assert!(pair.log("wxpay-worker").contains("a wrong admin token"), "tokens are compared");
    let order = pair.order("shop", "LOG1").await;
    assert_eq!((order.payments.len(), order.refunds.len()), (2, 1));

    let element = |body: &str, name: &str| {
        let after = body.split(&format!("<{name}><![CDATA[")).nth(1).unwrap_or_else(|| panic!("{body} has no {name}"));
        after.split("]]>").next().unwrap().to_owned()
    };
    let signed = |name: &str| v3.headers.iter().find(|(known, _)| *known == name).unwrap().1.clone();
    let ciphertext: serde_json::Value = serde_json::from_str(&v3.body).unwrap();
    let secrets = [
        ("v2 key", V2_KEY.to_owned()),
        ("APIv3 key", API_V3_KEY.to_owned()),
        ("seal key", "a seal key for tests".to_owned()),
        ("previous seal key", "the previous seal key for tests".to_owned()),
        ("token", TOKEN.to_owned()),
        ("wrong token", WRONG_TOKEN.to_owned()),
        ("collector's key", "key-of-the-collector".to_owned()),
        ("openid", element(&payment, "openid")),
        ("user", "user-that-is-a-person".to_owned()),
        ("v2 signature", element(&payment, "sign")),
        ("forged body", "<bank_type>".to_owned()),
        ("nonce", "nonce-of-the-payment".to_owned()),
        ("refund's content", element(&refund, "req_info")[..40].to_owned()),
        ("v3 signature", signed("Wechatpay-Signature")),
        ("v3 content", ciphertext["resource"]["ciphertext"].as_str().unwrap()[..40].to_owned()),
    ];
    let logs: Vec<_> = ["wxpay-ingress", "wxpay-worker"].map(|program| (program, pair.log(program))).into();
    for (program, log) in &logs {
        for most in ["DEBUG", "HttpClient.ExportStarted"] {
            assert!(log.lines().any(|line| line.contains(most)), "{program} says everything that it can");
        }
        for (what, secret) in &secrets {
            if let Some(line) = log.lines().find(|line| line.contains(secret.as_str())) {
                panic!("{program} logs the {what}: {line}");
            }
        }
    }
    // The same notification can be followed from its arrival to the ledger.
    let id = order.payments[0].notification.to_string();
    for (program, log) in &logs {
        assert!(log.contains(&id), "{program} does not say what became of {id}");
    }
}
