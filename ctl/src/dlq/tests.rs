//! What a person sees of the dead letters, and what the arguments mean.

use wxpay_shared::{
    admin::{DeadLetterList, Replay, ReplayEnd, ReplayOutcome, ReplayResult, Replayed, Selection},
    store::audit::AuditEntry,
};

use super::*;

fn text(write: impl FnOnce(&mut Screen<'_>) -> Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut Screen::new(&mut out, Some(100), false)).unwrap();
    String::from_utf8(out).unwrap()
}

const REPLAY: &str = r#"{
    "at": "2026-03-18T02:30:00Z", "request": "0198", "action": "replay", "notification": "0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10",
    "by": "mei", "why": "registered late", "orders": "dev/A1", "reason": "unknown_order", "result": "dead_again",
    "detail": "unknown_order: order dev/A1 is not registered", "ended_at": "2026-03-18T02:30:00Z"
}"#;

fn letter() -> String {
    let letter = r#"{
        "id": "0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10", "reason": "unknown_order", "detail": "order dev/A1 is not registered",
        "cure": "Register the order, then replay.", "merchant": "dev", "out_trade_no": "A1",
        "transaction_id": "4200009999202603180000000001", "amount": "8800", "received_at": "2026-03-18T02:20:30Z",
        "others": [{"out_trade_no": "A2", "transaction_id": null, "amount": "1200"}],
        "attempts": 1, "replays": 1, "sealed": true,
        "history": [{"at": "2026-03-18T02:20:31Z", "worker": "shop-1-77", "error": "unknown_order"}],
        "actions": [REPLAY],
        "fields": {"event_type": "TRANSACTION.SUCCESS", "resource.ciphertext": "***"},
        "content": {"payer.openid": "***", "amount.total": "8800"},
        "orders": [
            {"order": "dev/A1", "known": "registered", "state": "partially_refunded", "amount": 8800, "currency": "CNY",
             "received": 8800, "refunded": 800, "points": 80},
            {"order": "dev/A2", "known": "not_registered"}
        ]
    }"#;
    letter.replace("REPLAY", REPLAY)
}

fn list(more: &str) -> DeadLetterList {
    let list =
        format!(r#"{{"dead_letters": [{}], "matching": 3, "by_reason": {{"unknown_order": 3}}{more}}}"#, letter());
    serde_json::from_str(&list).unwrap()
}

#[test]
fn a_list_says_what_and_why_and_how_it_goes_on() {
    insta::assert_snapshot!(text(|screen| list::show(screen, &list(r#", "next": "2026~0198""#))), @r"
     id, first seen                         order    amount     tried      reason
    ───────────────────────────────────────────────────────────────────────────────────────────
     0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10   dev/A1   8800 fen   1×         unknown_order
     2026-03-18 10:20:30+08:00              dev/A2   1200 fen   1 replay   order dev/A1 is not
                                                                           registered

    1 of 3 shown; the next ones: --page '2026~0198'
    ");
    assert!(text(|screen| list::show(screen, &list(""))).ends_with("\nthe last 1 of 3\n"));
}

#[test]
fn a_dead_letter_says_everything_and_how_to_cure_it() {
    insta::assert_snapshot!(text(|screen| show::show(screen, &serde_json::from_str(&letter())?)), @r"
    dead letter 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10
      reason          unknown_order
      detail          order dev/A1 is not registered
      cure            Register the order, then replay.
      merchant        dev
      out_trade_no    A1
      transaction_id  4200009999202603180000000001
      amount          8800 fen
      also names      dev/A2
      first seen      2026-03-18 10:20:30+08:00
      attempts        1
      replays         1
      seal            fits

    attempts, oldest first
     failed                      worker      error
    ───────────────────────────────────────────────────────
     2026-03-18 10:20:31+08:00   shop-1-77   unknown_order

    what people did with it, oldest first
     when                        what     who, why          result
    ───────────────────────────────────────────────────────────────────────────────────────────
     2026-03-18 10:30:00+08:00   replay   mei               dead again
                                          registered late   unknown_order: order dev/A1 is not
                                                            registered

    the notification's fields
      event_type           TRANSACTION.SUCCESS
      resource.ciphertext  ***

    what it holds encrypted
      amount.total  8800
      payer.openid  ***

    order dev/A1 as it is now
      state     partially_refunded
      amount    8800 fen (88.00 yuan)
      received  8800 fen (88.00 yuan)
      refunded  800 fen (8.00 yuan)
      points    80

    order dev/A2 as it is now
      it is not registered

    once cured:        wxpayctl dlq replay 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10
    nothing to apply:  wxpayctl dlq discard 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10 --reason '…'
    ");
}

#[test]
fn the_audit_record_says_who_did_what() {
    let ended: AuditEntry = serde_json::from_str(REPLAY).unwrap();
    let mut open = ended.clone();
    (open.line.result, open.line.detail, open.line.why, open.ended_at) = (None, String::new(), String::new(), None);
    insta::assert_snapshot!(text(|screen| audit::show(screen, &[ended, open])), @r"
     dead letter, order, reason             when, what       who, why          result
    ────────────────────────────────────────────────────────────────────────────────────────────────────
     0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10   2026-03-18       mei               dead again
     dev/A1                                 10:30:00+08:00   registered late   unknown_order: order
     unknown_order                          replay                             dev/A1 is not registered
     0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10   2026-03-18       mei               begun; the worker did
     dev/A1                                 10:30:00+08:00                     not live to write what
     unknown_order                          replay                             came of it

    2 actions
    ");
}

fn result(last: usize, outcome: ReplayOutcome, detail: &str) -> ReplayResult {
    let id = NotificationId::parse(&format!("0198a5e2-7a54-7cc0-b5a9-f4a93a0a{last:04}")).unwrap();
    ReplayResult { id, outcome, reason: None, detail: detail.to_owned() }
}

#[test]
fn a_replay_tells_of_each() {
    let results = vec![
        result(0, ReplayOutcome::Applied, ""),
        result(1, ReplayOutcome::AlreadyApplied, ""),
        result(2, ReplayOutcome::DeadAgain, "amount_mismatch: order 1999 fen, paid 1 fen"),
    ];
    let replayed = Replayed { results, end: ReplayEnd { left: 4, problem: None } };
    insta::assert_snapshot!(text(|screen| replay::show(screen, &replayed, false)), @r"
     id                                     outcome           detail
    ────────────────────────────────────────────────────────────────────────────────────────────────────
     0198a5e2-7a54-7cc0-b5a9-f4a93a0a0000   applied           it took effect now
     0198a5e2-7a54-7cc0-b5a9-f4a93a0a0001   already applied   it had taken effect before; nothing
                                                              changed
     0198a5e2-7a54-7cc0-b5a9-f4a93a0a0002   dead again        amount_mismatch: order 1999 fen, paid 1
                                                              fen

    3 replayed: 1 applied, 1 already applied, 1 dead again
    4 more match: run it again, or with a larger --limit
    ");
    let dry = text(|screen| replay::show(screen, &replayed, true));
    assert!(
        dry.contains("would be") && dry.contains("it would take effect") && dry.contains("nothing changed"),
        "{dry}"
    );
}

#[test]
fn a_replay_that_ends_early_is_one_document_for_programs() {
    let request = Replay {
        select: Selection { all: true, ..Selection::default() },
        limit: None,
        rate: None,
        dry_run: false,
        by: None,
        why: None,
    };
    let problem = Some("the answer was cut off".to_owned());
    let results = vec![result(0, ReplayOutcome::Applied, "")];
    let replayed = Replayed { results, end: ReplayEnd { left: 0, problem } };
    let mut out = Vec::new();
    let mut screen = Screen::new(&mut out, None, true);
    let told = replay::tell(&mut screen, &request, &replayed, false);
    let code = crate::cli::exit_code(told, &mut screen);
    assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::from(2)));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap()["problem"], "the answer was cut off");
}

#[test]
fn a_long_replay_tells_of_those_that_need_a_look() {
    let outcome = |number| if number % 3 == 0 { ReplayOutcome::DeadAgain } else { ReplayOutcome::Applied };
    let results = (0..100).map(|number| result(number, outcome(number), "")).collect();
    let told = text(|screen| replay::show(screen, &Replayed { results, end: ReplayEnd::default() }, false));
    assert_eq!(told.lines().filter(|line| line.ends_with("   dead again")).count(), 20, "{told}");
    assert!(!told.contains("it took effect"), "{told}");
    assert!(told.ends_with("and 14 more to look at; --json or `wxpayctl dlq audit` tells all\n\n100 replayed: 66 applied, 34 dead again\n"), "{told}");
}

#[test]
fn ages_and_orders_are_read_as_people_write_them() {
    for (text, seconds) in [("30m", 1_800), ("2h", 7_200), ("1d", 86_400), ("1d 2h", 93_600), ("2w", 1_209_600)] {
        assert_eq!(age(text).unwrap().as_secs(), seconds, "{text}");
    }
    for text in ["", "5", "-2h", "1 month", "yesterday"] {
        assert_eq!(age(text), Err("expected an age such as 30m, 2h or 1d"), "{text}");
    }
    assert_eq!(order("dev/A1").unwrap().to_string(), "dev/A1");
    assert_eq!(order("A1").unwrap_err(), "expected merchant/out_trade_no");
    assert_eq!(order("Dev/A1").unwrap_err(), "merchant: expected 1 to 32 of a-z, 0-9, - and _");
}
