//! A replay that is killed half-way, at either end, and started again: each is applied once.

use std::process::Stdio;

use wxpay_shared::store::audit::AuditEntry;

use super::*;

on_both_homes!(a_replay_outlives_its_worker, a_replay_outlives_its_client);

/// More than fit into a few chunks, and of mixed reasons.
const LETTERS: usize = 700;
const BAD: usize = LETTERS / 10;

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

async fn each_once(stage: &Stage) {
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
    let mut results: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.line.by == "halfway") {
        *results.entry(entry.line.result.as_deref().unwrap_or("open")).or_default() += 1;
    }
    let good = results.get("applied").copied().unwrap_or(0) + results.get("open").copied().unwrap_or(0);
    assert!(good >= LETTERS - BAD, "no action went unrecorded: {results:?}");
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
    each_once(&stage).await;
}

async fn a_replay_outlives_its_client(stage: Stage) {
    mixed(&stage).await;
    let mut replay = stage.ctl_command(&REPLAY).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    begun(&stage, &mut replay).await;
    replay.kill().unwrap();
    replay.wait().unwrap();
    each_once(&stage).await;
}
