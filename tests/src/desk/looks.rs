//! Looking: encrypted bodies are opened, filters find, and nothing personal is shown.

use serde_json::{Value, json};
use wxpay_shared::admin::{DeadLetterList, DeadLetterView, Standing};

use super::*;

on_both_homes!(
    every_kind_of_body_names_its_order_and_hides_its_payer,
    filters_find_what_they_say,
    a_list_is_read_page_by_page,
);

/// What must not be seen: who paid, what he wrote, keys, and what is signed or encrypted.
const SECRETS: [&str; 7] =
    ["oTEST", "招商银行", "someone's card", V2_KEY, API_V3_KEY, "TeqClE3i0mvn3DrK", "secret words"];

async fn every_kind_of_body_names_its_order_and_hides_its_payer(stage: Stage) {
    stage.register("shop", "SHOWN", 1_000).await;
    stage.paid("SHOWN", 1_000).await;
    let refund = wechat::refund("SHOWN", 1_000, 1, 300, "SUCCESS");
    let mut payment = wechat::transaction("V3", 8_800);
    payment["attach"] = json!("secret words");
    let part = |order: &str, total: i64| {
        json!({ "mchid": MCH_ID, "out_trade_no": order, "transaction_id": format!("42{order}"), "trade_state": "SUCCESS",
            "amount": { "total_amount": total, "currency": "CNY" } })
    };
    let combined = json!({ "combine_appid": APPID, "combine_mchid": MCH_ID, "combine_out_trade_no": "C",
        "combine_payer_info": { "openid": "oTEST" }, "sub_orders": [part("C1", 1), part("SHOWN", 2)] });
    let cases = [
        (Letter::v2("shop", &Notice::new("V2", 500)), "V2", "500", None),
        (Letter::v3("shop", "TRANSACTION.SUCCESS", &payment), "V3", "8800", None),
        (Letter::v3("shop", "REFUND.SUCCESS", &refund), "SHOWN", "300", Some("R1SHOWN")),
        (Letter::v2_body("shop", wechat::v2_refund(V2_KEY, MCH_ID, &refund)), "SHOWN", "300", Some("R1SHOWN")),
        (Letter::v3("shop", "TRANSACTION.SUCCESS", &combined), "C1", "1", None),
    ];
    let letters: Vec<_> = cases.iter().map(|(letter, ..)| letter.clone().dead(Reason::AttemptsExhausted)).collect();
    stage.import(&letters).await;
    let listed = stage.pair.dead_letters().await;
    for (letter, order, amount, refund) in &cases {
        let seen = listed.dead_letters.iter().find(|it| it.id == letter.message.id).unwrap();
        let named =
            (seen.named.out_trade_no.as_deref(), seen.named.amount.as_deref(), seen.named.out_refund_no.as_deref());
        assert_eq!(named, (Some(*order), Some(*amount), *refund));
        assert!(seen.sealed && seen.received_at.is_some());

        let whole: DeadLetterView = stage.pair.get(&format!("/dead-letters/{}", seen.id)).await;
        assert!(
            whole.unreadable.is_none() && whole.history.len() == 1 && whole.cure == Reason::AttemptsExhausted.cure()
        );
        let standing = &whole.orders.last().unwrap().standing;
        if matches!(*order, "SHOWN" | "C1") {
            let expected = r#"{"known":"registered","state":"paid","amount":1000,"currency":"CNY","received":1000,"refunded":0,"points":10}"#;
            assert_eq!(serde_json::to_string(standing).unwrap(), expected);
        } else {
            assert!(matches!(standing, Standing::NotRegistered));
        }
        let (code, shown) = stage.ctl(&["dlq", "show", seen.id.as_str()]);
        assert_eq!(code, 0);
        for text in [shown, serde_json::to_string(&whole).unwrap(), serde_json::to_string(&listed).unwrap()] {
            assert!(text.contains(order) && SECRETS.iter().all(|secret| !text.contains(secret)), "{text}");
        }
    }
    let whole: Value = stage.pair.get(&format!("/dead-letters/{}", cases[4].0.message.id)).await;
    assert_eq!(whole["others"], json!([{ "out_trade_no": "SHOWN", "transaction_id": "42SHOWN", "amount": "2" }]));
    assert_eq!(whole["content"]["combine_payer_info.openid"], "***");
    assert_eq!(whole["fields"]["resource.ciphertext"], "***");
}

async fn filters_find_what_they_say(stage: Stage) {
    let labels = [Reason::UnknownOrder, Reason::AmountMismatch, Reason::UnknownOrder];
    let mut letters: Vec<_> = [("shop", "A"), ("shop", "B"), ("careful", "A")]
        .into_iter()
        .zip(labels)
        .map(|((merchant, order), label)| Letter::v2(merchant, &Notice::new(order, 5)).dead(label))
        .collect();
    // One from last year: its seal cannot fit any more, and it is found all the same.
    letters[1].message.headers.insert("wxpay-received-at".to_owned(), "2025-01-01T00:00:00Z".to_owned());
    stage.import(&letters).await;
    let found = async |query: &str| {
        let list: DeadLetterList = stage.pair.get(&format!("/dead-letters?{query}")).await;
        assert_eq!(list.matching, list.dead_letters.len());
        let place = |it: &DeadLetterView| letters.iter().position(|letter| letter.message.id == it.id).unwrap();
        let mut places: Vec<_> = list.dead_letters.iter().map(place).collect();
        places.sort_unstable();
        places
    };
    assert_eq!(found("").await, [0, 1, 2]);
    assert_eq!(found("reason=unknown_order").await, [0, 2]);
    assert_eq!(found("merchant=careful").await, [2]);
    assert_eq!(found("order=shop/A").await, [0]);
    assert_eq!(found("order=shop/C").await, [0; 0]);
    assert_eq!(found("received_before=2025-06-01T00:00:00Z").await, [1]);
    assert_eq!(found("received_after=2025-06-01T00:00:00Z&merchant=shop").await, [0]);
    for bad in ["reason=x", "order=A", "received_before=1d", "page=x", "amount=1"] {
        let answer = stage.pair.client.get(stage.pair.admin_url(&format!("/dead-letters?{bad}"))).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let name = bad.split('=').next().unwrap();
        assert!(
            matches!(status, 400 | 422) && text.contains(name) && text.starts_with("{\"error\":"),
            "{bad}: {status} {text}"
        );
    }
    for (arguments, ids) in [
        (&["--older-than", "1d"][..], &[1][..]),
        (&["--newer-than", "1d", "--merchant", "shop"], &[0]),
        (&["--order", "careful/A", "--reason", "unknown_order"], &[2]),
    ] {
        let (code, shown) = stage.ctl(&[&["dlq", "list", "--check"], arguments].concat());
        assert_eq!(code, 1, "{shown}");
        for (place, letter) in letters.iter().enumerate() {
            assert_eq!(shown.contains(letter.message.id.as_str()), ids.contains(&place), "{arguments:?} {shown}");
        }
    }
}

async fn a_list_is_read_page_by_page(stage: Stage) {
    let letters: Vec<_> = (0..25)
        .map(|number| Letter::v2("shop", &Notice::new(&format!("P{number:02}"), 5)).dead(Reason::UnknownOrder))
        .collect();
    stage.import(&letters).await;
    let (mut seen, mut page, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let list: DeadLetterList = stage.pair.get(&format!("/dead-letters?limit=10&merchant=shop{page}")).await;
        assert_eq!((list.matching, list.by_reason["unknown_order"]), (25, 25));
        seen.extend(list.dead_letters.into_iter().map(|letter| letter.named.out_trade_no.unwrap()));
        pages += 1;
        let Some(next) = list.next else { break };
        page = format!("&page={next}");
    }
    let oldest_first: Vec<_> = (0..25).map(|number| format!("P{number:02}")).collect();
    assert_eq!((seen, pages), (oldest_first, 3));
}
