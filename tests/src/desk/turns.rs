//! One reader at a time: who waits, who is told that the desk is busy, and that nobody holds it for ever.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use wxpay_shared::{
    queue::{DeadLetters as _, QueueSettings, rabbit::RabbitDeadLetters},
    store::audit::AuditEntry,
};

use super::*;
use crate::{harness::database::Kind, queue_contract};

on_both_homes!(
    a_slow_replay_keeps_to_its_rate_and_lets_others_look,
    a_replay_ends_between_two_letters_when_its_client_goes_away,
);

async fn waiting(stage: &Stage, count: usize) {
    let letters: Vec<_> = (0..count)
        .map(|number| Letter::v2("shop", &Notice::new(&format!("W{number}"), 1)).dead(Reason::AmountMismatch))
        .collect();
    for number in 0..count {
        stage.register("shop", &format!("W{number}"), 1_000).await;
    }
    stage.import(&letters).await;
}

fn slow(select: Value) -> Value {
    json!({ "select": select, "rate": 2, "by": "slow" })
}

async fn a_slow_replay_keeps_to_its_rate_and_lets_others_look(stage: Stage) {
    waiting(&stage, 8).await;
    let started = Instant::now();
    let replay = stage.replay(slow(json!({ "all": true })));
    let look = async {
        // While it goes on: the audit record has its first lines.
        wait_until("it has begun", DEADLINE, async || !record(&stage).await.is_empty()).await;
        let list = stage.pair.dead_letters().await;
        assert_eq!(list.matching, 8, "none is missing while it is in the other's hands");
        started.elapsed()
    };
    let (replayed, looked) = tokio::join!(replay, look);
    assert_eq!(replayed.results.len(), 8, "each once, though the reading was interrupted");
    let ids: std::collections::BTreeSet<_> = replayed.results.iter().map(|result| result.id.as_str()).collect();
    assert_eq!(ids.len(), 8);
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(3), "2 a second: 4 times 2 with 3 pauses, not in {took:?}");
    assert!(looked < took, "the list came before the end: after {looked:?} of {took:?}");
}

async fn record(stage: &Stage) -> Vec<AuditEntry> {
    let entries: Vec<AuditEntry> = stage.pair.get("/dead-letters/audit?limit=1000").await;
    entries.into_iter().filter(|entry| entry.line.by == "slow").collect()
}

async fn a_replay_ends_between_two_letters_when_its_client_goes_away(stage: Stage) {
    waiting(&stage, 40).await;
    let request = stage.pair.client.post(stage.pair.admin_url("/dead-letters/replay"));
    let request = request.header("Accept", "application/x-ndjson").json(&slow(json!({ "all": true })));
    let mut answer = request.send().await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some(), "the first result comes while the others wait");
    drop(answer);
    // Nobody else is asked to wait for the rest of it: 20 seconds at that rate.
    wait_until("somebody else can read", Duration::from_secs(10), async || match &stage.broker {
        None => stage.pair.dead_letters().await.matching == 40,
        Some(broker) => match reader(broker).open().await {
            Ok(desk) => {
                desk.close().await;
                true
            }
            Err(_) => false,
        },
    })
    .await;
    let tried = record(&stage).await;
    assert!(!tried.is_empty() && tried.len() < 40, "{} were tried", tried.len());
    assert!(tried.iter().all(|entry| entry.line.result.as_deref() == Some("dead_again")), "each to its end");
    assert_eq!(stage.pair.dead_letters().await.matching, 40);
}

pub(super) fn reader(broker: &str) -> RabbitDeadLetters {
    let settings =
        QueueSettings { retry_delays: [200, 400].map(Duration::from_millis).to_vec(), ..queue_contract::settings() };
    RabbitDeadLetters::new(broker.to_owned().into(), settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_another_worker_is_told_of_in_one_sentence() {
    let stage = Stage::rabbit_and_sql(Kind::Postgres).await;
    waiting(&stage, 3).await;
    let desk = reader(stage.broker.as_ref().unwrap()).open().await.unwrap();
    let (code, said) = stage.ctl(&["dlq", "list"]);
    assert_eq!(code, 2);
    let sentence =
        "another reader has the dead letters at present: a list, a replay or an export; try again in a moment";
    assert_eq!(said.trim(), format!("{sentence} (status 503)"));
    let (code, said) = stage.ctl(&["dlq", "replay", "--all"]);
    assert!(code == 2 && said.contains(sentence), "{code} {said}");
    desk.close().await;
    assert_eq!(stage.pair.dead_letters().await.matching, 3);
}
