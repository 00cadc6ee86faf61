//! The example configuration is what it says: it loads as it stands, and what it shows as defaults are the defaults.

use std::fs;

use tempfile::TempDir;
use wxpay_shared::{config::Config, merchant::Merchants};

use crate::harness::pair::{API_V3_KEY, V2_KEY};

/// The example in a directory with the secrets that it names.
fn example(change: impl Fn(&str) -> String) -> (TempDir, Config) {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let directory = TempDir::with_prefix("wxpay-example-").unwrap();
    let text = fs::read_to_string(format!("{root}/wxpay.example.toml")).unwrap();
    let file = directory.path().join("wxpay.toml");
    fs::write(&file, change(&text)).unwrap();
    let secrets = directory.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    let keys = format!("{root}/tests/data/vectors/keys");
    let copy = |from: &str, to: &str| fs::copy(format!("{keys}/{from}"), secrets.join(to)).map(drop).unwrap();
    copy("platform_cert_a.cert.pem", "platform-cert.pem");
    copy("platform_pubkey.public.pem", "platform-pub-key.pem");
    for (name, secret) in [
        ("seal-key", "0123456789abcdef0123456789abcdef\n"),
        ("seal-key.previous", "0123456789abcdef0123456789abcdee\r\n"),
        ("shop-v2-key", V2_KEY),
        ("shop-v2-key.previous", V2_KEY),
        ("shop-api-v3-key", API_V3_KEY),
        ("shop-api-v3-key.previous", API_V3_KEY),
        ("admin-token", "a token of 16 characters or more"),
    ] {
        fs::write(secrets.join(name), secret).unwrap();
    }
    let config = Config::load(Some(&file), []).unwrap();
    (directory, config)
}

#[test]
fn the_example_loads_as_it_stands() {
    let (_directory, config) = example(str::to_owned);
    assert!(config.seal_keys().unwrap().is_some());
    let merchants = Merchants::open(&config).unwrap();
    assert_eq!(merchants.get("shop").unwrap().v2_keys.len(), 1);
}

#[test]
fn what_the_example_comments_out_is_valid_and_the_default() {
    let (_directory, plain) = example(str::to_owned);
    let uncomment = |text: &str| {
        let setting =
            |line: &str| line.strip_prefix("# ").filter(|rest| rest.split(' ').nth(1) == Some("=")).map(str::to_owned);
        // The address is given once in the example's two ways of giving it.
        let settings = text.lines().filter(|line| !line.starts_with("# url_file"));
        settings.map(|line| setting(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
    };
    let (_directory, full) = example(uncomment);
    assert_eq!(full.ingress.listen, plain.ingress.listen);
    assert_eq!(full.ingress.ops_listen, plain.ingress.ops_listen);
    assert_eq!(full.worker.admin_listen, plain.worker.admin_listen);
    assert_eq!(full.disk_reserve(), plain.disk_reserve());
    assert_eq!(full.ingress.requests, plain.ingress.requests);
    assert_eq!(full.ingress.trusted_proxies, plain.ingress.trusted_proxies);
    assert_eq!(full.ingress.source_networks, plain.ingress.source_networks);
    assert_eq!((full.worker.batch, full.worker.concurrency), (plain.worker.batch, plain.worker.concurrency));
    assert_eq!(full.worker.max_attempts, plain.worker.max_attempts);
    assert_eq!((full.queue.prefetch, full.queue.in_flight), (plain.queue.prefetch, plain.queue.in_flight));
    assert_eq!(full.queue.retry_delays, plain.queue.retry_delays);
    assert_eq!((full.queue.shards, &full.worker.shards), (plain.queue.shards, &plain.worker.shards));
    assert!(full.admin_token().unwrap().is_some());
    let merchants = Merchants::open(&full).unwrap();
    let shop = merchants.get("shop").unwrap();
    assert_eq!(
        (shop.v2_keys.len(), shop.v3.is_some(), shop.refunds),
        (2, true, plain.merchants.values().next().unwrap().refunds)
    );
}
