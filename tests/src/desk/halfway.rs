//! A replay that is killed half-way, at either end, and started again: each is applied once.

use std::{collections::BTreeSet, process::Stdio};

use wxpay_shared::{queue::DeadLetters as _, store::audit::AuditEntry};

use super::{turns::reader, *};
use crate::harness::database::Kind;

on_both_homes!(a_replay_outlives_its_worker, a_replay_outlives_its_client);

/// More than fit into a few chunks, and of mixed reasons.
const LETTERS: usize = 700;
const BAD: usize = LETTERS / 10;
/// Letters that a replay has in hand at a time.
const CHUNK: usize = 100;

async fn mixed(stage: &Stage) {
    let registering = (0..LETTERS).map(async |number| stage.register("shop", &format!("H{number}"), 1_000).await);
    futures_util::StreamExt::collect::<Vec<_>>(futures_util::StreamExt::buffer_unordered(
        futures_util::stream::iter(registering),
        16,
    ))
    .await;
    let letter = |number: usize| {
        let amount = if number.is_multiple_of(10) { 1 } else { 1_000 };
        Letter::v2("shop", &Notice::new(&format!("H{number}"), amount)).dead(Reason::UnknownOrder)
    };
    stage.import(&(0..LETTERS).map(letter).collect::<Vec<_>>()).await;
}

/// How many letters have a result on record.
async fn done(stage: &Stage) -> usize {
    let entries: Vec<AuditEntry> = stage.pair.get("/dead-letters/audit?limit=10000").await;
    entries.iter().filter(|entry| entry.line.by == "halfway" && entry.line.result.is_some()).count()
}

async fn begun(stage: &Stage, replay: &mut std::process::Child) {
    wait_until("it is half-way", DEADLINE, async || done(stage).await >= 100).await;
    assert!(replay.try_wait().unwrap().is_none(), "it is not at its end");
}

/// A rate that lets the test act before the end.
const REPLAY: [&str; 7] = ["dlq", "replay", "--all", "--by", "halfway", "--rate", "200"];

/// `open` actions, at most, have no result on record.
async fn each_once(stage: &Stage, open: usize) {
    let (code, said) = stage.ctl(&["dlq", "replay", "--all", "--by", "halfway"]);
    assert_eq!(code, 1, "the bad ones are dead again: {said}");
    let list = stage.pair.dead_letters().await;
    assert_eq!((list.matching, list.by_reason.get("amount_mismatch")), (BAD, Some(&BAD)));
    for number in 0..LETTERS {
        let order = stage.pair.order("shop", &format!("H{number}")).await;
        let expected = if number.is_multiple_of(10) { (OrderState::Unpaid, 0) } else { (OrderState::Paid, 1) };
        assert_eq!((order.state, order.ledger.len()), expected, "H{number}");
    }
    let points: serde_json::Value = stage.pair.get("/points/shop/alice").await;
    assert_eq!(points["balance"], 10 * (LETTERS - BAD));
    let entries: Vec<AuditEntry> = stage.pair.get("/dead-letters/audit?limit=10000").await;
    let of = |has_result: fn(Option<&str>) -> bool| -> BTreeSet<&str> {
        let lines = entries.iter().map(|entry| &entry.line).filter(|line| line.by == "halfway");
        lines.filter(|line| has_result(line.result.as_deref())).map(|line| line.orders.as_str()).collect()
    };
    let good = of(|result| matches!(result, Some("applied" | "already_applied")));
    let unknown = of(|result| result.is_none());
    assert!(unknown.len() <= open, "{unknown:?}");
    for order in (0..LETTERS).filter(|number| !number.is_multiple_of(10)).map(|number| format!("shop/H{number}")) {
        assert!(good.contains(order.as_str()) || unknown.contains(order.as_str()), "{order}: nothing is on record");
    }
}

async fn a_replay_outlives_its_worker(mut stage: Stage) {
    mixed(&stage).await;
    let mut replay = stage.ctl_command(&REPLAY).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    begun(&stage, &mut replay).await;
    stage.pair.kill_worker();
    let output = replay.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("run it again to go on"), "{said}");
    stage.start_worker().await;
    each_once(&stage, CHUNK).await;
}

async fn a_replay_outlives_its_client(stage: Stage) {
    mixed(&stage).await;
    let mut replay = stage.ctl_command(&REPLAY).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    begun(&stage, &mut replay).await;
    replay.kill().unwrap();
    replay.wait().unwrap();
    each_once(&stage, 0).await;
}

/// What a worker leaves that dies after a letter's move and before the ack, without a worker that dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_leaves_one_of_each_letter_that_a_crash_doubled() {
    let stage = Stage::rabbit_and_sql(Kind::Postgres).await;
    stage.register("shop", "GOOD", 1_000).await;
    stage.register("shop", "BAD", 1_000).await;
    let letter = |order, amount| Letter::v2("shop", &Notice::new(order, amount));
    let (good, bad) = (letter("GOOD", 1_000), letter("BAD", 1));
    let mut stranger = letter("BAD", 2);
    stranger.message.id = bad.message.id.clone();
    let desk = reader(stage.broker.as_ref().unwrap()).open().await.unwrap();
    for letter in [&bad, &stranger, &good] {
        desk.add(letter.clone().dead(Reason::UnknownOrder).message).await.unwrap();
    }
    for letter in [&good, &bad, &bad] {
        desk.add(letter.clone().dead(Reason::AmountMismatch).message).await.unwrap();
    }
    desk.close().await;

    let all = json!({ "all": true });
    let ask = async |dry_run: bool| -> Vec<_> {
        let replayed = stage.replay(json!({ "select": all, "dry_run": dry_run })).await;
        let results = replayed.results.into_iter().map(|result| (result.id, result.outcome, result.reason));
        let (of_good, of_bad): (Vec<_>, Vec<_>) = results.partition(|(id, ..)| *id == good.message.id);
        [of_good, of_bad].concat()
    };
    let rehearsed = ask(true).await;
    assert_eq!(stage.pair.dead_letters().await.matching, 6, "a dry run drops nothing");
    let limited = stage.replay(json!({ "select": all, "limit": 0 })).await;
    assert_eq!((limited.results.len(), limited.end.left), (0, 6));
    assert_eq!(stage.pair.dead_letters().await.matching, 6, "nothing goes before its letter is settled");
    let outcomes = ask(false).await;
    assert_eq!(rehearsed, outcomes);
    let dead = |reason| (bad.message.id.clone(), ReplayOutcome::DeadAgain, Some(reason));
    let applied = (good.message.id.clone(), ReplayOutcome::Applied, None);
    assert_eq!(outcomes, [applied, dead(Reason::AmountMismatch), dead(Reason::Unsealed)]);
    let list = stage.pair.dead_letters().await;
    assert_eq!(list.matching, 2, "the letter, and the stranger under its id");
    assert_eq!(list.by_reason.get("amount_mismatch"), Some(&1));
}
