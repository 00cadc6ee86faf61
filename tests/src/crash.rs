//! A process is killed at any moment; whatever it had confirmed must be there.
//!
//! The test runs its own binary again as the process to kill. That child confirms as fast as it can and prints what it
//! confirmed; the parent kills it, opens the same database and looks for every line.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use wxpay_shared::{
    clock::SystemClock,
    disk::{Disk, Holds},
    envelope::{Log, Message},
    ids::NotificationId,
    queue::{Consumer as _, Publisher as _, QueueSettings, Settle as _, embedded::EmbeddedQueue},
    store::{Applied, Store as _, embedded::EmbeddedStore},
};

use crate::store_contract::samples::{paid, registration};

const DIRECTORY: &str = "WXPAY_TEST_CRASH_DIRECTORY";
const ROUND: &str = "WXPAY_TEST_CRASH_ROUND";
const ROUNDS: u32 = 5;
/// Lines after which the child is killed, in the middle of what it does.
const LINES: usize = 150;

async fn open(directory: &Path) -> (EmbeddedQueue, EmbeddedStore) {
    let disk = Disk::open(directory, Holds::Records).await.unwrap();
    let retry_delays = vec![Duration::from_secs(5)];
    let settings = QueueSettings { prefetch: 64, in_flight: 64, retry_delays, shards: 1, taken_shards: Vec::new() };
    let queue = EmbeddedQueue::open(disk.clone(), settings, Arc::new(SystemClock)).await.unwrap();
    (queue, EmbeddedStore::open(disk, Arc::new(SystemClock)).unwrap())
}

/// The child's part; in the parent's run of the tests it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_is_killed() {
    let (Some(directory), Ok(round)) = (std::env::var_os(DIRECTORY), std::env::var(ROUND)) else { return };
    let (queue, store) = open(Path::new(&directory)).await;
    let publishing = (0..8_u32).map(|task| {
        let (queue, store, round) = (queue.clone(), store.clone(), round.clone());
        tokio::spawn(async move {
            for number in 0..u32::MAX {
                let id = NotificationId::parse(&format!("{round}-{task}-{number:x}")).unwrap();
                let body = vec![7; 4_000].into();
                let message = Message { id: id.clone(), headers: BTreeMap::new(), body, log: Log::default() };
                queue.publish(message).await.unwrap();
                writeln!(std::io::stdout(), "confirmed {id}").unwrap();
                let name = format!("{round}_{task}_{number}");
                store.register(&registration(&name, Some("user"))).await.unwrap();
                let answers = store.apply(&[paid(&name, &name.replace('_', "x"))]).await.unwrap();
                assert_eq!(answers, [Applied::Fresh { points: 1_999 }]);
                writeln!(std::io::stdout(), "applied {name}").unwrap();
            }
        })
    });
    futures_util::future::try_join_all(publishing).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let lines = run_and_kill(directory.path(), round);
        assert!(lines.len() >= LINES, "{lines:?}");
        check(directory.path(), &lines).await;
    }
}

fn run_and_kill(directory: &Path, round: u32) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::the_process_that_is_killed", "--exact", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        // The last line may be cut: it was not confirmed.
        if stdout.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            break;
        }
        if line.starts_with("confirmed ") || line.starts_with("applied ") {
            lines.push(line.trim_end().to_owned());
        }
        if lines.len() == LINES {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    lines
}

/// Finds every line, and empties the queue for the next round.
async fn check(directory: &Path, lines: &[String]) {
    let (queue, store) = open(directory).await;
    let consumer = queue.consumer();
    let mut waiting: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("confirmed ")).collect();
    while !waiting.is_empty() {
        let received = tokio::time::timeout(Duration::from_secs(20), consumer.receive(64)).await;
        let deliveries = received.unwrap_or_else(|_| panic!("lost: {waiting:?}")).unwrap();
        waiting.retain(|id| !deliveries.iter().any(|delivery| delivery.message.id.as_str() == *id));
        let tickets: Vec<_> = deliveries.iter().map(|delivery| delivery.ticket).collect();
        consumer.ack(&tickets).await.unwrap();
    }
    for name in lines.iter().filter_map(|line| line.strip_prefix("applied ")) {
        let again = store.apply(&[paid(name, &name.replace('_', "x"))]).await.unwrap();
        assert_eq!(again, [Applied::Duplicate], "{name}");
    }
}
