//! The console as people use it, in a real Chromium: with the mouse, with the keyboard, on a telephone, in both languages.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use thirtyfour::Key;

use super::{TOKEN, assets, quoted, together};
use crate::harness::{
    browser::Browser,
    notice::Notice,
    pair::{DEADLINE, Pair},
    wait_until,
};

const ENGLISH: &str = "en-US";
const CHINESE: &str = "zh-CN";

/// A paid order, a payment of a wrong amount, and one whose order nobody registered.
async fn shop() -> Pair {
    let pair = together(None).await;
    pair.register("shop", "PAID", 8800, "alice").await;
    pair.register("shop", "WRONG", 1999, "alice").await;
    for notice in [Notice::new("PAID", 8800), Notice::new("WRONG", 1), Notice::new("LATE", 3000)] {
        pair.post("shop", notice.xml("n")).await;
    }
    dead(&pair, 2).await;
    wait_until("the payment is applied", DEADLINE, async || pair.order("shop", "PAID").await.points == 88).await;
    pair
}

async fn dead(pair: &Pair, number: usize) {
    wait_until(&format!("{number} dead letters"), DEADLINE, async || pair.dead_letters().await.matching == number)
        .await;
}

async fn id_of(pair: &Pair, out_trade_no: &str) -> String {
    let list = pair.dead_letters().await.dead_letters;
    let letter = list.iter().find(|letter| letter.named.out_trade_no.as_deref() == Some(out_trade_no));
    letter.expect("the order has a dead letter").id.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_finds_out_why_and_cures_it() {
    let pair = shop().await;
    let browser = Browser::open(&pair.admin_url(""), ENGLISH, 1280).await;
    browser
        .sees(&["Ready", "In the retry tiers", "Order not registered", "Amount differs", "A second, over the last"])
        .await;

    browser.click("Orders").await;
    browser.fill("Merchant", "shop").await;
    browser.fill("Order number (out_trade_no)", "PAID").await;
    browser.click("Show the order").await;
    browser.sees(&["Order shop/PAID", "¥88.00", "Accepted and made durable", "42PAID", "+88 points, balance 88"]).await;

    browser.click("Dead letters").await;
    browser.sees(&["2 of 2, oldest first", "order 1999 fen, paid 1 fen"]).await;
    browser.click("Dry run").await;
    browser.sees(&["2 of 2", "dead letter again: 1", "waits in the retry tiers: 1", "Replay these"]).await;
    browser.click("Close").await;
    assert_eq!(pair.dead_letters().await.matching, 2, "a dry run changes nothing");

    browser.click("shop/LATE").await;
    browser
        .sees(&["Not registered", "Is a dead letter: Order not registered", "order shop/LATE is not registered"])
        .await;
    browser.fill("Amount in yuan", "30.00").await;
    browser.click("Register").await;
    browser.sees(&["Unpaid", "Registered for ¥30.00"]).await;
    browser.click("Show it").await;
    browser.sees(&["What usually helps: Register the order, then replay.", "The order now", "***"]).await;
    browser.click("Replay").await;
    browser.fill("Who", "Li Lei").await;
    browser.click("Replay 1").await;
    browser.sees(&["1 of 1", "applied: 1"]).await;
    browser.click("Close").await;
    browser.sees(&["1 of 1, oldest first"]).await;
    assert_eq!(pair.order("shop", "LATE").await.points, 30);

    browser.tick(&format!("Tick {}", id_of(&pair, "WRONG").await)).await;
    browser.sees(&["The buttons act on the 1 that are ticked."]).await;
    browser.click("Discard").await;
    browser.sees(&["Discard 1?", "They are gone for good."]).await;
    browser.click("Discard 1 for good").await;
    assert_eq!(pair.dead_letters().await.matching, 1, "without a reason nothing is discarded");
    browser.fill("Why", "refunded by hand").await;
    browser.click("Discard 1 for good").await;
    browser.sees(&["1 discarded."]).await;
    browser.click("Close").await;
    browser.sees(&["There are none."]).await;

    browser.click("Record of actions").await;
    browser.sees(&["Replay", "applied", "Discard", "Li Lei", "refunded by hand", "shop/WRONG"]).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_telephone_shows_everything_and_in_chinese() {
    let pair = shop().await;
    let id = id_of(&pair, "LATE").await;
    let browser = Browser::open(&pair.admin_url(""), CHINESE, 380).await;
    let letter = format!("/#/dead-letters/{id}");
    for (path, wanted) in [
        ("/#/", &["概览", "就绪", "等待重试", "订单未登记", "金额不一致"][..]),
        ("/#/orders", &["商户订单号", "查看订单"]),
        ("/#/orders/shop/PAID", &["已支付", "¥88.00", "通知", "账本", "积分 +88，余额 88"]),
        ("/#/orders/shop/LATE", &["未登记", "登记此订单", "尝试", "是死信：订单未登记"]),
        ("/#/dead-letters", &["2 条中的 2 条", "未勾选", "shop/LATE"]),
        (&letter, &["登记该订单，然后重放。", "封印", "相符", "订单现状", "字段"]),
        ("/#/dead-letters/record", &["操作记录", "还没有人处理过死信。"]),
    ] {
        browser.goto(path).await;
        browser.sees(wanted).await;
        fits(&browser, path).await;
    }
    browser.goto("/#/dead-letters").await;
    for (button, wanted) in [("试运行", "仍是死信: 1"), ("丢弃", "永久丢弃 2 条"), ("重放", "重放 2 条？")]
    {
        browser.click(button).await;
        browser.sees(&[wanted]).await;
        fits(&browser, button).await;
        browser.press(Key::Escape.value()).await;
        browser.sees(&["死信", "2 条中的 2 条"]).await;
    }
    browser.click("English").await;
    browser.sees(&["Dead letters", "2 of 2, oldest first", "中文"]).await;
    browser.goto("/#/").await;
    browser.sees(&["Overview"]).await;
    assert_eq!(browser.run("return document.documentElement.lang").await, "en", "the choice is kept");
    the_texts_are_complete(&browser).await;
    browser.close().await;
}

/// Nothing is wider than the screen.
async fn fits(browser: &Browser, what: &str) {
    let script = "const root = document.documentElement; return root.scrollWidth - root.clientWidth";
    assert_eq!(browser.run(script).await, 0, "{what} is too wide");
}

/// Every text is there in both languages, is asked for, and has the same places to fill in.
async fn the_texts_are_complete(browser: &Browser) {
    let script = "return import('/console/text.js').then((it) => it.TEXTS)";
    let texts = browser.run(script).await;
    let of = |language: &str| texts[language].as_object().expect("a table of texts").clone();
    let (en, zh) = (of("en"), of("zh"));
    let keys = |texts: &serde_json::Map<String, Value>| texts.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&en), keys(&zh));
    for (key, text) in &en {
        let places =
            |text: &Value| (0..3).filter(|at| text.to_string().contains(&format!("{{{at}}}"))).collect::<Vec<_>>();
        assert_eq!(places(text), places(&zh[key]), "{key}");
    }
    let sources: String =
        assets().into_iter().filter(|(name, _)| name != "text.js").map(|(_, content)| content).collect();
    for key in
        quoted(&sources, "text(\"").chain(quoted(&sources, "data-text=\"")).chain(quoted(&sources, "data-label=\""))
    {
        assert!(en.contains_key(key), "there is no text {key}");
    }
    let composed = ["state_", "refund_", "outcome_", "kind_", "action_", "did_", "overview_"];
    for key in en.keys().filter(|key| !composed.iter().any(|start| key.starts_with(start))) {
        assert!(sources.contains(&format!("\"{key}\"")), "nothing says {key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_can_be_done_by_keyboard_and_no_buyer_writes_markup() {
    const MARKUP: &str = "<img src=x onerror=alert(1)>";
    let pair = together(None).await;
    let mut notice = Notice::new("KEYS", 100);
    notice.out_trade_no = MARKUP.to_owned();
    notice.more = vec![("attach", "<script>alert(2)</script>".to_owned())];
    pair.post("shop", notice.xml("n")).await;
    dead(&pair, 1).await;
    let id = id_of(&pair, MARKUP).await;

    let browser = Browser::open(&pair.admin_url(""), ENGLISH, 1280).await;
    browser.sees(&["Invalid field"]).await;
    browser.tab_to("Skip to content").await;
    browser.tab_to("Dead letters").await;
    let [enter, tab] = [Key::Enter, Key::Tab].map(|key| key.value());
    browser.press(enter).await;
    browser.sees(&["1 of 1, oldest first", &format!("shop/{MARKUP}")]).await;
    assert_eq!(browser.run("return document.querySelectorAll('img, main script').length").await, 0);
    browser.goto(&format!("/#/dead-letters/{id}")).await;
    browser.sees(&[MARKUP, "out_trade_no"]).await;
    assert_eq!(browser.run("return document.querySelectorAll('img, main script').length").await, 0);
    browser.goto("/#/dead-letters").await;
    browser.sees(&["1 of 1, oldest first"]).await;

    browser.tab_to(&format!("Tick {id}")).await;
    browser.press(" ").await;
    browser.sees(&["The buttons act on the 1 that are ticked."]).await;
    browser.run("document.querySelector('h1').focus()").await;
    browser.tab_to("Discard").await;
    browser.press(enter).await;
    browser.sees(&["Discard 1?"]).await;
    browser.press(format!("Han{tab}not ours{tab}{tab}{enter}")).await;
    browser.sees(&["1 discarded."]).await;
    browser.press(enter).await;
    browser.sees(&["There are none."]).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_a_person_logs_in_and_out() {
    let pair = together(Some(TOKEN)).await;
    let browser = Browser::open(&pair.admin_url(""), ENGLISH, 1280).await;
    browser.sees(&["Log in", "Admin token"]).await;
    browser.fill("Admin token", "a wrong one").await;
    browser.click("Log in").await;
    browser.sees(&["A token is needed, and the one that was given is not it."]).await;
    browser.fill("Admin token", TOKEN).await;
    browser.press(Key::Enter.value()).await;
    browser.sees(&["Overview", "Ready", "Log out"]).await;
    let kept = "return JSON.stringify({ ...localStorage }) + document.cookie";
    assert_eq!(browser.run(kept).await, "{}", "the token outlives no tab");
    numbers_are_exact(&browser).await;
    browser.click("Log out").await;
    browser.sees(&["Admin token"]).await;
    assert_eq!(browser.run("return sessionStorage.length").await, 0);
    browser.close().await;
}

/// What the page makes of the API's numbers and of what a person types.
async fn numbers_are_exact(browser: &Browser) {
    let script = r#"
        return Promise.all(["format", "metrics"].map((name) => import(`/console/${name}.js`))).then(([format, metrics]) => ({
          money: [1, 8800, 100000000000000, 0, "0123", "12.5", null].map((fen) => format.money(fen)).concat(format.money(500, "JPY")),
          fen: ["88", "88.5", " 0.01 ", "1.234", "-1", "1e3", "", "1,000"].map(format.fen),
          time: format.time("2026-03-18T23:20:30.9Z"),
          received: [format.receivedAt("0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10"), format.receivedAt("00ff")],
          metrics: (() => {
            const page = (hits, fast, all) => metrics.parse(
              `# HELP x y\nhits{a="1",b="}"} ${hits}\nhits{a="2"} 1\nt_bucket{le="0.1"} ${fast}\nt_bucket{le="0.5"} ${all}\nt_bucket{le="+Inf"} ${all}\n`);
            const [before, after] = [page(5, 10, 10), page(9, 11, 20)];
            return [metrics.sum(after, "hits"), metrics.growth(before, after, "hits", ({ a }) => a === "1"), metrics.growth(after, before, "hits"),
              metrics.sum(after, "absent"), metrics.within(before, after, "t", 0.1), metrics.within(before, after, "t", 0.99), metrics.within(after, after, "t", 0.5)];
          })(),
        }));"#;
    let expected = json!({
        "money": ["¥0.01", "¥88.00", "¥1000000000000.00", "¥0.00", "¥1.23", "12.5", null, "500 JPY"],
        "fen": [8800, 8850, 1, null, null, null, null, null],
        "time": "2026-03-19 07:20:30+08:00",
        "received": ["2025-08-14T00:02:19.860Z", null],
        "metrics": [10, 4, 6, null, 0.1, 0.5, null],
    });
    assert_eq!(browser.run(script).await, expected);
}
