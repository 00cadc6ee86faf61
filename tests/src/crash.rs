//! A process is killed at any moment; whatever it had confirmed must be there.
//!
//! A test runs itself again as the process to kill, and tells it by its environment. That child confirms as fast as it can
//! and prints what it confirmed; the parent kills it, opens the same database and looks for every line.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io::Write as _,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use wxpay_shared::{
    clock::SystemClock,
    disk::{Disk, Holds},
    envelope::{Log, Message},
    ids::NotificationId,
    queue::{Consumer as _, DeadLetters as _, Publisher as _, QueueSettings, Settle as _, embedded::EmbeddedQueue},
    store::{Applied, Store as _, embedded::EmbeddedStore},
};

use crate::{
    harness::pair::DEADLINE,
    store_contract::samples::{paid, registration},
};

/// The database of a child; a process without it is none.
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

/// This test once more, as a child on this database.
fn child(test: &str, directory: &Path) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([&format!("crash::{test}"), "--exact", "--nocapture"]).env(DIRECTORY, directory);
    child.stdout(Stdio::piped()).kill_on_drop(true);
    child
}

/// The child's part.
async fn confirm_until_killed(directory: OsString, round: String) {
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
    if let (Some(directory), Ok(round)) = (std::env::var_os(DIRECTORY), std::env::var(ROUND)) {
        return confirm_until_killed(directory, round).await;
    }
    let directory = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let killed = timeout(DEADLINE * 2, run_and_kill(directory.path(), round)).await;
        let lines = killed.expect("it confirms in time");
        assert!(lines.len() >= LINES, "{lines:?}");
        check(directory.path(), &lines).await;
    }
}

const DEADLY: &str = "dead-1";

/// The child's part: handles what is there, and aborts over one message.
async fn handle_or_abort(directory: OsString) {
    let (queue, _store) = open(Path::new(&directory)).await;
    let consumer = queue.consumer();
    while let Ok(deliveries) = consumer.receive(64).await {
        // Whatever it has in hand beside the deadly one goes down with it.
        if deliveries.iter().any(|delivery| delivery.message.id.as_str() == DEADLY) {
            std::process::abort();
        }
        for delivery in deliveries {
            writeln!(std::io::stdout(), "handled {}", delivery.message.id).unwrap();
            consumer.ack(&[delivery.ticket]).await.unwrap();
        }
        let depths = queue.depths().await.unwrap();
        if depths.notify == 0 && depths.dead > 0 {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_aborts_its_process_costs_its_neighbours_nothing() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return handle_or_abort(directory).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let (queue, store) = open(directory.path()).await;
    let neighbours: BTreeSet<String> = (0..100).map(|number| format!("{number:x}-2")).collect();
    for (number, id) in neighbours.iter().enumerate() {
        let message = |id: &str| Message {
            id: NotificationId::parse(id).unwrap(),
            headers: BTreeMap::new(),
            body: vec![7; 4_000].into(),
            log: Log::default(),
        };
        queue.publish(message(id)).await.unwrap();
        if number == 40 {
            queue.publish(message(DEADLY)).await.unwrap();
        }
    }
    drop((queue, store));
    let (mut handled, mut aborted) = (BTreeSet::new(), 0);
    loop {
        let mut child = child("a_message_that_aborts_its_process_costs_its_neighbours_nothing", directory.path());
        let output = timeout(DEADLINE, child.output()).await.expect("it handles all or aborts").unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        handled.extend(said.lines().filter_map(|line| Some(line.split_once("handled ")?.1.to_owned())));
        if output.status.success() {
            break;
        }
        aborted += 1;
        assert!(aborted < 10, "it never becomes a dead letter");
    }
    assert_eq!(handled, neighbours);
    assert!(aborted >= 3, "{aborted}");
    let (queue, _store) = open(directory.path()).await;
    let depths = queue.depths().await.unwrap();
    assert_eq!((depths.notify, depths.retry, depths.dead), (0, 0, 1));
}

async fn run_and_kill(directory: &Path, round: u32) -> Vec<String> {
    let mut child =
        child("what_was_confirmed_survives_kill_9", directory).env(ROUND, round.to_string()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        // The last line may be cut: it was not confirmed.
        if stdout.read_line(&mut line).await.unwrap() == 0 || !line.ends_with('\n') {
            break;
        }
        if line.starts_with("confirmed ") || line.starts_with("applied ") {
            lines.push(line.trim_end().to_owned());
        }
        if lines.len() == LINES {
            child.start_kill().unwrap();
        }
    }
    child.wait().await.unwrap();
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
