//! The commands, from their arguments to what is printed, against both programs in this process.

use tempfile::TempDir;
use wxpay_shared::config::Config;

use super::*;
use crate::{dev_merchant, together::Together};

mod arguments;
mod export;

const TOKEN: &str = "a token for tests";

/// Both programs on a directory of their own, with a token.
struct Served {
    directory: TempDir,
    together: Together,
}

impl Served {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(more: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let together = Self::programs(&directory, more).await;
        Self { directory, together }
    }

    async fn programs(directory: &TempDir, more: &[(&str, &str)]) -> Together {
        let (file, _) = dev_merchant::ensure(directory.path()).unwrap();
        let settings = [
            ("WXPAY__INGRESS__LISTEN", "127.0.0.1:0"),
            ("WXPAY__INGRESS__OPS_LISTEN", "127.0.0.1:0"),
            ("WXPAY__WORKER__ADMIN_LISTEN", "127.0.0.1:0"),
            ("WXPAY__WORKER__ADMIN_TOKEN", TOKEN),
            ("WXPAY__WORKER__MAX_ATTEMPTS", "2"),
            ("WXPAY__QUEUE__RETRY_DELAYS", "[10ms]"),
        ];
        let settings = settings.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Together::start(&Config::load(Some(&file), settings).unwrap(), directory.path()).await.unwrap()
    }

    /// Stops both and starts them again on what they left.
    async fn restart(self) -> Self {
        let Self { directory, together } = self;
        together.stop().await.unwrap();
        let together = Self::programs(&directory, &[]).await;
        Self { directory, together }
    }

    /// Runs a command line; what it printed, and its verdict or error.
    async fn run(&self, line: &str) -> (String, Result<Verdict>) {
        let line = match line.split_once(' ') {
            Some(("pay", rest)) => {
                let config = self.directory.path().join("dev.toml").display().to_string();
                let url = format!("http://{}/v2/dev", self.together.ingress);
                format!("simulate pay --config {config} --merchant dev --url {url} {rest}")
            }
            Some(("config" | "simulate", _)) => line.to_owned(),
            _ => format!("{line} --admin http://{} --admin-token={}", self.together.admin, TOKEN.replace(' ', "\u{1}")),
        };
        let words = line.split(' ').map(|word| word.replace('\u{1}', " "));
        let cli = Cli::try_parse_from(std::iter::once("wxpayctl".to_owned()).chain(words)).unwrap();
        let mut out = Vec::new();
        let json = cli.json;
        let result = run(cli, &mut Screen::new(&mut out, None, json)).await;
        (String::from_utf8(out).unwrap(), result)
    }

    async fn expect(&self, line: &str, verdict: Verdict, shown: &[&str]) {
        let (out, result) = self.run(line).await;
        match result {
            Ok(got) => assert_eq!(got, verdict, "{line}\n{out}"),
            Err(error) => panic!("{line}: {error:#}\n{out}"),
        }
        for part in shown {
            assert!(out.contains(part), "{line}: expected {part:?} in\n{out}");
        }
    }

    /// A negative answer of the API, which ends with exit code 1.
    async fn refused(&self, line: &str, said: &str) {
        let error = self.run(line).await.1.unwrap_err();
        assert!(error.is::<Refused>() && error.to_string().contains(said), "{line}: {error:#}");
    }

    /// Repeats a command until it shows this; the worker needs a moment.
    async fn until(&self, line: &str, shown: &str) {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
        loop {
            let (out, _) = self.run(line).await;
            if out.contains(shown) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{line}: expected {shown:?} in\n{out}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_more_notifications() {
    // No disk has that much.
    let served = Served::start_with(&[("WXPAY__DISK_RESERVE_MB", "1000000000000")]).await;
    let ready = async |address| reqwest::get(format!("http://{address}/readyz")).await.unwrap();
    let ingress = ready(served.together.ops).await;
    assert_eq!(ingress.status(), 503);
    assert_eq!(ingress.text().await.unwrap(), "not ready: the disk is nearly full\n");
    assert_eq!(ready(served.together.admin).await.status(), 200, "the worker goes on");
    let reply = "the disk is nearly full";
    served.expect("pay --out-trade-no FULL-1 --amount 100", Verdict::Found, &[reply]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_and_points_tell_what_happened_also_after_a_restart() {
    use Verdict::{Fine, Found};
    let served = Served::start().await;
    served.expect("orders register dev A1 1999 --user alice", Fine, &["order dev/A1 registered: 1999 fen"]).await;
    served.expect("orders register dev A1 1999 --user alice", Fine, &["is known, with the same facts"]).await;
    served.refused("orders register dev A1 2000 --user alice", "amount is 1999 fen, not 2000 fen").await;
    served.refused("orders show dev A2", "order dev/A2 is not registered").await;
    served.refused("points show dev alice", "no points account").await;
    served.expect("pay --out-trade-no A1 --amount 1999 --tamper", Fine, &["FAIL"]).await;
    served.expect("pay --out-trade-no A1 --amount 1999 --wrong-key", Fine, &["FAIL"]).await;
    served.expect("pay --out-trade-no A1 --amount 1999 --unsigned", Fine, &["FAIL"]).await;
    served.expect("pay --out-trade-no A1 --amount 1999 --hmac --sign-type MD5", Fine, &["FAIL"]).await;
    let pay = "pay --out-trade-no A1 --amount 1999 --times 5 --parallel --coupon 99 --hmac --attach x";
    served.expect(pay, Fine, &["SUCCESS"]).await;
    served.until("orders show dev A1", "order dev/A1: paid").await;
    served.until("queue --json", "\"notify\": 0").await;
    let served = served.restart().await;
    served.expect("orders show dev A1", Fine, &["received    1999 fen (19.99 yuan)", "+19", "pay:1900000001:42"]).await;
    served.expect("points show dev alice", Fine, &["alice of dev: 19 points"]).await;
    served.refused("orders close dev A1", "has received 1999 fen and cannot be closed").await;
    served.expect("orders register dev A3 5", Fine, &[]).await;
    served.expect("orders close dev A3", Fine, &["order dev/A3 is closed"]).await;
    served.expect("dlq list --check", Fine, &["no dead letters"]).await;
    // The admin API is no notify_url: its reply is not what WeChat wants.
    let elsewhere = format!(
        "simulate pay --url http://{} --config {} --merchant dev --out-trade-no A1 --amount 1 --json",
        served.together.admin,
        served.directory.path().join("dev.toml").display()
    );
    served.expect(&elsewhere, Found, &["\"as_expected\": false"]).await;
    served.together.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_found_replayed_and_discarded() {
    use Verdict::{Fine, Found};
    let served = Served::start().await;
    served.expect("orders register dev A1 1999", Fine, &[]).await;
    served.expect("pay --out-trade-no A1 --amount 1999 --wrong-amount 1", Fine, &["SUCCESS"]).await;
    served.expect("pay --out-trade-no A2 --amount 1999", Fine, &["SUCCESS"]).await;
    served.until("dlq list", "2 dead letters").await;
    served.expect("dlq list --check --reason unknown_order", Found, &["1 dead letter\n", "dev/A2"]).await;
    served.expect("dlq replay --all", Found, &["2 replayed: 1 waiting, 1 dead again"]).await;
    served.until("dlq list", "2 dead letters").await;
    served.expect("orders register dev A2 1999", Fine, &[]).await;
    let dry = "dlq replay --order dev/A2 --dry-run";
    served.expect(dry, Fine, &["would be", "it would take effect", "1 looked at, nothing changed: 1 applied"]).await;
    served.expect("dlq replay --with-reason unknown_order --rate 5", Fine, &["1 replayed: 1 applied"]).await;
    served.expect("dlq audit --since 1h", Fine, &["dev/A2", "applied", "3 actions"]).await;

    let (list, _) = served.run("dlq list --json").await;
    let list: wxpay_shared::admin::DeadLetterList = serde_json::from_str(&list).unwrap();
    let id = &list.dead_letters[0].id;
    served.expect(&format!("dlq show {id}"), Fine, &["amount_mismatch", "openid          ***"]).await;
    served.expect(&format!("dlq discard {id} --reason tests"), Fine, &[&format!("discarded {id}")]).await;
    served.expect(&format!("dlq discard {id} --reason tests"), Found, &["is no dead letter (any more)"]).await;
    served.expect(&format!("dlq replay {id}"), Found, &["no dead letter matches"]).await;
    served.refused(&format!("dlq show {id}"), "there is no dead letter").await;
    served.together.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_said_in_one_sentence() {
    let served = Served::start().await;
    let ask = async |admin: String, token: &str| {
        let cli = Cli::try_parse_from(["wxpayctl", "queue", "--admin", &admin, "--admin-token", token]).unwrap();
        let error = run(cli, &mut Screen::new(&mut Vec::new(), None, false)).await.unwrap_err();
        format!("{error:#}")
    };
    let admin = format!("http://{}", served.together.admin);
    let wrong = ask(admin.clone(), "another-token").await;
    assert!(wrong.starts_with("the admin token is missing or wrong; give") && !wrong.contains("another"), "{wrong}");
    let stranger = ask(format!("http://{}", served.together.ingress), TOKEN).await;
    assert!(stranger.ends_with("answers (status 404), but not as the admin API of wxpay-worker does"), "{stranger}");
    served.together.stop().await.unwrap();
    let nobody = ask(admin.clone(), TOKEN).await;
    assert!(nobody.starts_with(&format!("nothing answers at {admin}: start `wxpayctl serve`")), "{nobody}");
}

#[tokio::test]
async fn a_port_in_use_names_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = dev_merchant::ensure(directory.path()).unwrap();
    let settings = [("WXPAY__INGRESS__LISTEN".to_owned(), address.clone())];
    let started = Together::start(&Config::load(Some(&file), settings).unwrap(), directory.path()).await;
    let error = format!("{:#}", started.err().unwrap());
    assert!(error.starts_with(&format!("ingress.listen: cannot listen at {address}; choose another")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_notification_can_be_played_and_gets_the_reply_it_deserves() {
    const PAID: &str = "4200000000202603180000000001";
    let served = Served::start().await;
    for order in ["A1", "A2", "C1", "C2"] {
        served.expect(&format!("orders register dev {order} 8800 --user bob"), Verdict::Fine, &[]).await;
    }
    served.expect("refunds register dev A1 R1 800", Verdict::Fine, &[]).await;
    served.refused("refunds register dev A1 R1 801", "refund R1 is registered with 800 fen, not 801 fen").await;
    let config = served.directory.path().join("dev.toml").display().to_string();
    let refund = format!("refund --out-trade-no A1 --amount 8800 --transaction-id {PAID}");
    for (api, line) in [
        ("v3", format!("pay --api v3 --out-trade-no A1 --amount 8800 --transaction-id {PAID}")),
        ("v3", "pay --api v3 --out-trade-no A2 --amount 8800 --probe".to_owned()),
        ("v3", "pay --api v3 --out-trade-no A2 --amount 8800 --stale 301".to_owned()),
        ("v3", "pay --api v3 --out-trade-no A2 --amount 8800 --stale 200".to_owned()),
        ("v3", "pay --api v3 --out-trade-no A2 --amount 8800 --unknown-serial".to_owned()),
        ("v3", "pay --api v3 --out-trade-no A2 --amount 8800 --tamper".to_owned()),
        ("v3", "pay --api v3 --out-trade-no A2 --amount 8800 --unsigned".to_owned()),
        ("v2", format!("{refund} --refund-amount 800 --out-refund-no R1")),
        ("v2", format!("{refund} --refund-amount 100 --tamper")),
        ("v2", format!("{refund} --refund-amount 100 --wrong-key")),
        ("v3", format!("{refund} --api v3 --refund-amount 1000 --status closed")),
        ("v3", "combine --order C1=8800 --order C2=8800".to_owned()),
        ("v3", "event PAYSCORE.USER_PAID".to_owned()),
    ] {
        let url = format!("http://{}/{api}/dev", served.together.ingress);
        let line = format!("simulate {line} --config {config} --merchant dev --url {url}");
        served.expect(&line, Verdict::Fine, &["as it should be"]).await;
    }
    for (order, state) in [("A1", "partially_refunded"), ("A2", "paid"), ("C1", "paid"), ("C2", "paid")] {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
        while !served.run(&format!("orders show dev {order}")).await.0.contains(&format!("order dev/{order}: {state}"))
        {
            assert!(std::time::Instant::now() < deadline, "{order} is not {state}");
        }
    }
    served.expect("dlq list --check", Verdict::Fine, &[]).await;
}

#[tokio::test]
async fn a_saved_notification_is_told_which_check_it_fails() {
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/vectors");
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("wxpay.toml");
    let key = "Zx8kQ2mN7pR4tV9wB3yC6dF1gH5jL0sT";
    let text = format!(
        "[merchants.shop]\nmch_id = \"1900990001\"\nappids = [\"wxtest00000000a001\"]\npoints = \"1/1\"\nv2_key = \"{key}\"\n\
         api_v3_key = \"v3TestKey_0123456789abcdefghijkl\"\n\
         platform_public_keys = {{ PUB_KEY_ID_0119009900012026031800000000000001 = \"{vectors}/keys/platform_pubkey.public.pem\" }}\n"
    );
    std::fs::write(&config, text).unwrap();
    let manifest: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(format!("{vectors}/manifest.json")).unwrap()).unwrap();
    for (family, id, check) in [
        ("v2pay", "md5-basic", None),
        ("v2pay", "hmac-basic", None),
        ("v2pay", "wrong-key", Some("digest")),
        ("v2pay", "missing-sign", Some("sign")),
        ("v2pay", "doctype-benign", Some("format")),
        ("v2pay", "other-mch", Some("mch_id")),
        ("v2refund", "refund-success", None),
        ("v2refund", "refund-bad-base64", Some("base64")),
        ("v2refund", "refund-wrong-key", Some("decryption")),
        ("v3", "tx-pubkey", None),
        ("v3", "missing-nonce", Some("Wechatpay-Nonce")),
        ("v3", "unknown-serial", Some("serial")),
        ("v3", "body-amended", Some("signature")),
        ("v3", "wrong-apiv3-key", Some("decryption")),
    ] {
        let record = manifest.iter().find(|record| record["family"] == family && record["id"] == id).unwrap();
        let headers = directory.path().join("headers");
        let pairs = record["headers"].as_object().into_iter().flatten();
        let pairs = pairs.map(|(name, value)| format!("{name}: {}\n", value.as_str().unwrap()));
        std::fs::write(&headers, pairs.collect::<String>()).unwrap();
        let body = format!("{vectors}/{}", record["body"].as_str().unwrap());
        let mut words = vec!["wxpayctl", "verify", &body, "--merchant", "shop"];
        let (config, headers) = (config.display().to_string(), headers.display().to_string());
        words.extend(["--config", &config]);
        if family == "v3" {
            words.extend(["--api", "v3", "--headers", &headers, "--at", "2026-03-18T10:20:30+08:00"]);
        }
        let mut out = Vec::new();
        let result = run(Cli::try_parse_from(words).unwrap(), &mut Screen::new(&mut out, None, false)).await;
        let out = String::from_utf8(out).unwrap();
        assert!(!out.contains(key) && !out.contains("oTEST"), "{id}: {out}");
        match check {
            None => assert!(result.unwrap() == Verdict::Fine && out.contains("every check passed"), "{id}: {out}"),
            Some(check) => {
                let failed = out.lines().find(|line| line.contains("FAILED")).unwrap_or_default();
                assert!(failed.trim_start().starts_with(check), "{id}: {out}");
                assert!(out.contains(&format!("\n{check}: ")), "{id}: the usual causes are told: {out}");
                assert_ne!(result.unwrap(), Verdict::Fine, "{id}");
            }
        }
    }
}
