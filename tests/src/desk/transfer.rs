//! Export and import: byte for byte, and evidence stays evidence.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

on_both_homes!(what_is_exported_comes_back_byte_for_byte, an_edited_line_is_unsealed_and_a_bad_one_is_refused);

async fn what_is_exported_comes_back_byte_for_byte(stage: Stage) {
    let cases = one_of_each(&stage).await;
    let labels = Reason::ALL.iter().cycle();
    let letters: Vec<_> = cases.iter().zip(labels).map(|((letter, ..), label)| letter.clone().dead(*label)).collect();
    stage.import(&letters).await;
    let before = stage.exported().await;
    assert_eq!(before.len(), letters.len());

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dead.jsonl");
    let file = path.to_str().unwrap();
    let (code, said) = stage.ctl(&["dlq", "export", "--all", "--to", file]);
    assert!(code == 0 && said.contains(&format!("{} dead letters written", letters.len())), "{said}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(stage.exported().await, before, "they are still there");
    let (code, said) = stage.ctl(&["dlq", "export", "--all", "--to", file]);
    assert!(code == 2 && said.contains("exists; an export does not overwrite"), "{said}");

    for merchant in ["shop", "careful", "gone"] {
        stage.ctl(&["dlq", "discard", "--merchant", merchant, "--reason", "moved"]);
    }
    assert_eq!(stage.pair.dead_letters().await.matching, 0);
    let (code, said) = stage.ctl(&["dlq", "import", file, "--why", "moved back"]);
    assert_eq!(
        (code, said.trim()),
        (0, format!("{} dead letters imported, 0 were here already", letters.len()).as_str())
    );
    assert_eq!(stage.exported().await, before);
    let (code, said) = stage.ctl(&["dlq", "import", file]);
    assert_eq!(
        (code, said.trim()),
        (0, format!("0 dead letters imported, {} were here already", letters.len()).as_str())
    );
    assert_eq!(stage.exported().await, before, "no copy");
    // As good as before: each ends as it would have.
    for result in stage.replay(json!({ "select": { "all": true } })).await.results {
        let (_, outcome, reason) = cases.iter().find(|(letter, ..)| letter.message.id == result.id).unwrap();
        assert_eq!((result.outcome, result.reason), (*outcome, *reason));
    }
}

async fn an_edited_line_is_unsealed_and_a_bad_one_is_refused(stage: Stage) {
    for order in ["E1", "E2"] {
        stage.register("shop", order, 1_000).await;
    }
    let line = |order: &str| {
        let letter = Letter::v2("shop", &Notice::new(order, 1_000)).dead(Reason::UnknownOrder);
        serde_json::to_string(&letter.file()).unwrap()
    };
    let edited = line("E2").replace("\"wxpay-merchant\":\"shop\"", "\"wxpay-merchant\":\"careful\"");
    let bad_body = line("E1").replace("\"body\":\"", "\"body\":\"?");
    let cut = &line("E1")[..80];
    let file = [line("E1").as_str(), cut, &edited, "", &bad_body, "null"].join("\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edited.jsonl");
    fs::write(&path, file).unwrap();
    let (code, said) = stage.ctl(&["dlq", "import", path.to_str().unwrap()]);
    assert_eq!(code, 1, "{said}");
    for part in [
        "edited.jsonl:2: not a dead letter: ",
        "edited.jsonl:5: body: expected base64; refused",
        "edited.jsonl:6: ",
        "2 dead letters imported",
        "3 lines refused",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    let replayed = stage.replay(json!({ "select": { "all": true } })).await;
    let mut outcomes: Vec<_> = replayed.results.iter().map(|result| (result.outcome, result.reason)).collect();
    outcomes.sort_by_key(|(outcome, _)| *outcome);
    assert_eq!(outcomes, [(ReplayOutcome::Applied, None), (ReplayOutcome::DeadAgain, Some(Reason::Unsealed))]);
    assert_eq!(stage.pair.order("shop", "E2").await.state, OrderState::Unpaid);
}
