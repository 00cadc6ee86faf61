//! Keys that change while the pair runs: the platform's, the merchant's, and the seal's.

use std::fs;

use wxpay_shared::{order::OrderState, wechat::sender::SigningKey};

use crate::{
    harness::{
        notice::Notice,
        pair::{API_V3_KEY, DEADLINE, MCH_ID, SEAL_KEY, V2_KEY},
        wait_until,
        wechat::{self, CERT_A, CERT_B},
    },
    protocol::{accepted, pair, post_v3, replay_all},
};

#[tokio::test(flavor = "multi_thread")]
async fn platform_keys_change_without_a_restart_and_a_bad_file_changes_nothing() {
    let (node, host, pair) = pair().await;
    let (a, b) = (wechat::platform_key("platform_cert_a", CERT_A), wechat::platform_key("platform_cert_b", CERT_B));
    pair.register("shop", "K", 100, "u").await;
    let with_b = fs::read_to_string(pair.config_file()).unwrap();
    let line = with_b.lines().find(|line| line.starts_with("platform_certificates")).unwrap();
    let only_a = format!("{}]", line.split_once(", ").unwrap().0);
    let write = |text: &str| fs::write(pair.config_file(), text).unwrap();
    let signed = |key: &SigningKey, number: usize| {
        wechat::v3(key, API_V3_KEY, "TRANSACTION.SUCCESS", number, &wechat::transaction("K", 100))
    };
    write(&with_b.replace(line, &only_a));
    wait_until("B is unknown", DEADLINE, async || {
        let (status, reply) = post_v3(&pair, "shop", &signed(&b, 0)).await;
        status == 401 && reply.contains("the serial is unknown")
    })
    .await;
    write(&with_b);
    wait_until("B is known", DEADLINE, async || post_v3(&pair, "shop", &signed(&b, 0)).await.0 == 204).await;
    // Of this file all of one merchant's keys are good, and one of another's is not.
    let bad = "[merchants.partner]\nprevious_v2_key = \"too short\"\n";
    let half = with_b.replace(line, &only_a).replace("[merchants.partner]\n", bad);
    // The other is what an editor leaves for a moment: a file without a merchant.
    for (count, bad) in (1..).zip([half.as_str(), "data_dir = \"data\"\n"]) {
        write(bad);
        let kept = format!("wxpay_key_reloads_total{{result=\"kept_old\"}} {count}");
        wait_until("the bad file is counted", DEADLINE, async || {
            let page = pair.client.get(pair.ops_url("/metrics")).send().await.unwrap().text().await.unwrap();
            page.contains(&kept)
        })
        .await;
    }
    for number in 0..100 {
        let key = if number % 2 == 0 { &a } else { &b };
        assert_eq!(post_v3(&pair, "shop", &signed(key, number)).await.0, 204, "{number}");
        if number == 50 {
            write(&with_b);
        }
    }
    pair.settled(node, &host).await;
    assert_eq!((pair.order("shop", "K").await.points, pair.dead_letters().await.matching), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_a_key_change_applies_after_it() {
    let (node, host, mut pair) = pair().await;
    let key = wechat::public_key();
    for order in ["OLD1", "OLD2"] {
        pair.register("shop", order, 1_000, "u").await;
    }
    // From the queue: accepted while no worker runs, applied by one that knows the key as the previous one.
    pair.kill_worker();
    accepted(&pair, &key, "TRANSACTION.SUCCESS", 1, &wechat::transaction("OLD1", 1_000)).await;
    let refund = wechat::v2_refund(V2_KEY, MCH_ID, &wechat::refund("OLD1", 1_000, 1, 400, "SUCCESS"));
    assert!(pair.post("shop", refund).await.1.contains("SUCCESS"));
    let (old_v2, old_v3) = (format!("v2_key = \"{V2_KEY}\""), format!("api_v3_key = \"{API_V3_KEY}\""));
    let changed = fs::read_to_string(pair.config_file())
        .unwrap()
        .replace(
            &format!("key = \"{SEAL_KEY}\""),
            &format!("key = \"{}\"\nprevious_key = \"{SEAL_KEY}\"", "s".repeat(32)),
        )
        .replace(&old_v2, &format!("v2_key = \"{}\"\nprevious_{old_v2}", "n".repeat(32)))
        .replace(&old_v3, &format!("api_v3_key = \"{}\"\nprevious_{old_v3}", "m".repeat(32)));
    fs::write(pair.config_file(), &changed).unwrap();
    pair.start_worker();
    pair.ready().await;
    pair.settled(node, &host).await;
    let order = pair.order("shop", "OLD1").await;
    assert_eq!((order.state, order.points), (OrderState::PartiallyRefunded, 6));

    // From the dead letters: dead while the old key was forgotten, applied once it is back.
    fs::write(pair.config_file(), changed.replace(&format!("previous_{old_v3}\n"), "")).unwrap();
    let signed = wechat::v3(&key, API_V3_KEY, "TRANSACTION.SUCCESS", 2, &wechat::transaction("OLD2", 1_000));
    wait_until("the worker has forgotten the key", DEADLINE, async || {
        assert_eq!(post_v3(&pair, "shop", &signed).await.0, 204);
        pair.dead_letters().await.by_reason.contains_key("unopenable")
    })
    .await;
    fs::write(pair.config_file(), &changed).unwrap();
    wait_until("the dead letters are replayed", DEADLINE, async || {
        replay_all(&pair).await;
        pair.dead_letters().await.matching == 0
    })
    .await;
    assert_eq!(pair.order("shop", "OLD2").await.points, 10);
}

/// A file of the same length and time is not found changed by a look.
#[tokio::test(flavor = "multi_thread")]
async fn sighup_has_the_keys_read_again() {
    let (_, _, mut pair) = pair().await;
    let config = pair.config_file();
    let before = fs::metadata(&config).unwrap();
    let key = "k".repeat(V2_KEY.len());
    pair.change(V2_KEY, &key);
    fs::File::options().append(true).open(&config).unwrap().set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(fs::metadata(&config).unwrap().len(), before.len());
    let ingress = pair.take_ingress();
    ingress.signal("HUP");
    wait_until("the new key is known", DEADLINE, async || {
        pair.post("shop", Notice::new("H", 100).xml_under(&key, "n")).await.1.contains("SUCCESS")
    })
    .await;
    assert!(pair.post("shop", Notice::new("H", 100).xml("n")).await.1.contains("FAIL"));
}
