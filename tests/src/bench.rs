//! The benchmark measures something: each figure has its samples, its baseline and its verdict.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::harness::{
    database::{Kind, fresh_url},
    pair::binary,
    wait_until,
};

/// Three servers start and end in it.
const PATIENCE: Duration = Duration::from_secs(180);

/// The report of a run on the smallest scale, and its exit code.
fn run(arguments: &[&str]) -> (Value, Option<i32>) {
    binary("wxpay-ingress");
    let output = Command::new(binary("wxpayctl"))
        .args(["--json", "bench", "--quick", "--repetitions", "1", "--seconds", "1"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("{}{}", text(&output.stdout), text(&output.stderr)));
    (report, output.status.code())
}

/// The figures. Exit code 1 is a missed target, which this machine may well miss now.
fn bench(arguments: &[&str]) -> Vec<Value> {
    let (report, code) = run(arguments);
    assert!(matches!(code, Some(0 | 1)), "{code:?}: {report}");
    assert_eq!(report["left_out"], Value::Array(Vec::new()));
    report["figures"].as_array().unwrap().clone()
}

fn name(figure: &Value) -> &str {
    figure["name"].as_str().unwrap()
}

fn measured(figure: &Value) -> u64 {
    figure["values"]["median"].as_u64().unwrap()
}

#[test]
fn each_figure_of_ingress_stands_beside_its_baseline() {
    let figures = bench(&["ingress", "queue"]);
    assert_eq!(figures.len(), 5, "{figures:?}");
    for figure in figures {
        assert!(measured(&figure) > 0, "{figure}");
        assert!(figure["baseline"]["values"]["median"].as_u64().unwrap() > 0, "{figure}");
        let ratio = figure["baseline"]["ratio_thousandths"]["median"].as_u64().unwrap();
        let least = figure["target"]["ratio_at_least"].as_u64().unwrap();
        assert_eq!(figure["reached"].as_bool().unwrap(), ratio >= least, "{figure}");
    }
}

#[test]
fn a_worker_is_measured_on_every_store() {
    let figures = bench(&["worker", "--events", "400"]);
    for store in ["embedded", "PostgreSQL", "MariaDB"] {
        let names = |figure: &&Value| name(figure).contains(store);
        assert!(figures.iter().filter(names).count() >= 2, "{store}: {figures:?}");
    }
    assert!(figures.iter().all(|figure| measured(figure) > 0), "{figures:?}");
}

/// As many dead letters at once as no queue's channel takes.
#[test]
fn a_desk_with_many_dead_letters_is_measured() {
    let figures = bench(&["desk"]);
    assert!(!figures.is_empty() && figures.iter().all(|figure| measured(figure) > 0), "{figures:?}");
}

#[test]
fn what_could_not_be_measured_is_said_and_is_no_success() {
    let (report, code) = run(&["together", "--store-url", "postgres://127.0.0.1:1/nobody"]);
    let left_out = report["left_out"].as_array().unwrap();
    assert!(left_out[0].as_str().unwrap().starts_with("Together: "), "{report}");
    assert_eq!((left_out.len(), code), (1, Some(1)), "{report}");
}

/// A database of the user's is held against what it did while it was small, and ours against small ones.
#[tokio::test]
async fn a_large_store_stands_beside_a_small_one() {
    let own: &[&str] = &["embedded", "PostgreSQL", "MariaDB"];
    let url = fresh_url(Kind::Postgres).await;
    for (more, stores) in [(vec![], own), (vec!["--store-url", &url], &["embedded", "store-url"])] {
        let figures = bench(&[vec!["growth", "--sizes", "300,50", "--events", "100"], more].concat());
        for store in stores {
            let of_store: Vec<_> = figures.iter().filter(|figure| name(figure).contains(store)).collect();
            let (small, large): (Vec<_>, Vec<_>) =
                of_store.into_iter().partition(|figure| name(figure).contains(" 50 "));
            let expected = if *store == "embedded" { 2 } else { 1 };
            assert_eq!((small.len(), large.len()), (expected, expected), "{store}: {figures:?}");
            assert!(small.iter().all(|figure| measured(figure) > 0 && figure["baseline"].is_null()), "{figures:?}");
            for figure in large {
                assert_eq!(figure["baseline"]["name"], "at 50 orders", "{figure}");
                assert!(measured(figure) > 0, "{figure}");
                assert!(figure["baseline"]["values"]["median"].as_u64().unwrap() > 0, "{figure}");
            }
        }
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// A large store is gigabytes.
#[tokio::test]
async fn a_run_that_is_interrupted_leaves_nothing() {
    binary("wxpay-ingress");
    let place = tempfile::tempdir().unwrap();
    let mut bench = tokio::process::Command::new(binary("wxpayctl"))
        .args(["bench", "growth", "--sizes", "10000000"])
        .env("TMPDIR", place.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_until("a store is filled", PATIENCE, async || {
        let files = entries(place.path()).into_iter().flat_map(|run| entries(&run)).flat_map(|data| entries(&data));
        files.filter(|file| file.ends_with("db")).any(|file| file.metadata().is_ok_and(|file| file.len() > 1_000_000))
    })
    .await;
    let pid = bench.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let ended = tokio::time::timeout(PATIENCE, bench.wait()).await.expect("it ends").unwrap();
    assert!(!ended.success(), "{ended}");
    assert_eq!(entries(place.path()), Vec::<PathBuf>::new());
}
