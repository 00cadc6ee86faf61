//! The traps of sled, one test each.

use super::*;

async fn open(directory: &Path) -> Disk {
    Disk::open(directory, Holds::Records).await.unwrap()
}

#[tokio::test]
async fn a_closed_database_opens_again_at_once_with_everything_in_it() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0_u8..20 {
        let disk = open(directory.path()).await;
        let tree = disk.tree("t").unwrap();
        assert_eq!(tree.len(), usize::from(round));
        disk.commit(move || tree.insert([round], "x").map(|_| ())).await.unwrap().unwrap();
        let (size, free) = disk.space().await.unwrap();
        assert!(size > 0 && free > 0);
        disk.close().await.unwrap();
        assert!(!is_locked(directory.path()).unwrap());
    }
}

#[tokio::test]
async fn many_waiters_share_a_flush_and_all_return() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path()).await;
    let tree = disk.tree("t").unwrap();
    let commits = (0..500_u32).map(|n| {
        let tree = tree.clone();
        disk.commit(move || tree.insert(n.to_be_bytes(), "x").map(|_| ()))
    });
    let (go, gate) = mpsc::channel();
    let before = disk.syncs();
    let (held, committed, ()) = tokio::join!(
        disk.look(move || gate.recv().unwrap()),
        futures_util::future::join_all(commits),
        // By now they all wait for the thread.
        async { go.send(()).unwrap() },
    );
    held.unwrap();
    for commit in committed {
        commit.unwrap().unwrap();
    }
    assert_eq!((tree.len(), disk.syncs()), (500, before + 1));
}

#[tokio::test]
async fn nothing_is_flushed_for_those_who_write_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path()).await;
    disk.durable().await.unwrap();
    let before = disk.syncs();
    disk.look(|| ()).await.unwrap();
    disk.commit_if_written(|| ((), false)).await.unwrap();
    assert_eq!(disk.syncs(), before);
    disk.commit_if_written(|| ((), true)).await.unwrap();
    assert_eq!(disk.syncs(), before + 1);
}

/// What the jobs of one group are told, where the disk cannot sync; `wrote` says what each of them did.
fn told_without_a_disk(wrote: &[bool]) -> Vec<Result<(), DiskError>> {
    let directory = tempfile::tempdir().unwrap();
    let db = sled::Config::new().path(directory.path()).open().unwrap();
    let tally = Tally::open(directory.path(), &db, 0, Holds::Records).unwrap();
    let file = File::open("/dev/null").unwrap();
    let flusher = Flusher { db, file, tally, failure: Arc::default(), syncs: Arc::default() };
    let ((tasks, inbox), (teller, told)) = (mpsc::channel(), mpsc::channel());
    for &wrote in wrote {
        let teller = teller.clone();
        let job: Job = Box::new(move || (Box::new(move |flushed| teller.send(flushed).unwrap()), wrote));
        tasks.send(Task::Run(job)).unwrap();
    }
    tasks.send(Task::Stop).unwrap();
    drop(teller);
    flusher.serve(&inbox);
    told.iter().collect()
}

#[test]
fn who_looks_beside_a_write_is_told_how_its_flush_went() {
    let told = told_without_a_disk(&[false, true, false]);
    assert!(
        matches!(&told[..], [Err(DiskError::Failed(_)), Err(DiskError::Failed(_)), Err(DiskError::Failed(_))]),
        "{told:?}"
    );
    assert!(matches!(&told_without_a_disk(&[false, false])[..], [Ok(()), Ok(())]), "there is nothing to flush");
}

#[tokio::test]
async fn who_looks_beside_a_write_shares_its_flush() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path()).await;
    let (go, gate) = mpsc::channel();
    let before = disk.syncs();
    let (held, wrote, looked, ()) =
        tokio::join!(disk.look(move || gate.recv().unwrap()), disk.commit(|| ()), disk.look(|| ()), async {
            go.send(()).unwrap()
        },);
    held.and(wrote).and(looked).unwrap();
    assert_eq!(disk.syncs(), before + 1);
    disk.failure.set(DiskError::Failed(Arc::new(sled::Error::Io(io::Error::other("full"))))).unwrap();
    assert!(matches!(disk.look(|| ()).await, Err(DiskError::Failed(_))));
}

#[tokio::test]
async fn a_second_user_is_told_that_the_database_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path()).await;
    let error = Disk::open_within(directory.path(), Holds::Records, Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().ends_with("is in use by another process; only one at a time may use it"), "{error}");
    disk.check().unwrap();
}

#[tokio::test]
async fn opening_waits_for_a_process_that_is_just_going_away() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path()).await;
    let (opened, closed) = tokio::join!(Disk::open(directory.path(), Holds::Records), disk.close());
    opened.unwrap();
    // The new user may have the lock before the old one looks whether it is free.
    assert!(matches!(closed, Ok(()) | Err(OpenError::InUse(_))));
}

#[tokio::test]
async fn a_snapshot_that_a_crash_left_unfinished_does_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path()).await;
    let tree = disk.tree("t").unwrap();
    disk.commit(move || tree.insert("k", "v").map(|_| ())).await.unwrap().unwrap();
    disk.close().await.unwrap();
    std::fs::write(directory.path().join("snap.FFFFFFFFFFFFFFFF.generating"), "half").unwrap();

    let disk = open(directory.path()).await;

    assert_eq!(disk.tree("t").unwrap().get("k").unwrap().unwrap(), "v");
}

#[tokio::test]
async fn a_damaged_database_says_what_to_do() {
    for (holds, advice) in [(Holds::Records, "restore the directory"), (Holds::Shortcut, "delete the directory")] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("snap.0000000000000001"), "not a snapshot").unwrap();
        let error = Disk::open(directory.path(), holds).await.unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains(advice), "{error}");
    }
}

/// Records, each committed alone and large enough that the log gets long.
async fn filled(directory: &Path) {
    let disk = open(directory).await;
    let tree = disk.tree("t").unwrap();
    for n in 0..200_u32 {
        let tree = tree.clone();
        disk.commit(move || tree.insert(n.to_be_bytes(), vec![7; 64 << 10]).map(|_| ())).await.unwrap().unwrap();
    }
    drop(tree);
    disk.close().await.unwrap();
}

fn cut(directory: &Path, part: u64) {
    let log = File::options().write(true).open(directory.join("db")).unwrap();
    let length = log.metadata().unwrap().len();
    log.set_len(length / 10 * part).unwrap();
}

#[tokio::test]
async fn a_log_that_was_cut_short_is_noticed_wherever_it_was_cut() {
    for part in [9, 7, 5, 3, 1, 0] {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path()).await;
        cut(directory.path(), part);
        let error = Disk::open(directory.path(), Holds::Records).await.unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{part} of 10: {error:?}");
    }
}

#[tokio::test]
async fn whoever_deletes_the_tally_goes_on_with_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    cut(directory.path(), 9);
    let error = Disk::open(directory.path(), Holds::Records).await.unwrap_err();
    let said = format!("{:#}", anyhow::Error::from(error));
    assert!(said.contains("writes that were confirmed are missing; to go on without them, delete"), "{said}");

    std::fs::remove_file(directory.path().join("tally")).unwrap();

    let left = open(directory.path()).await.tree("t").unwrap().len();
    assert!((1..200).contains(&left), "{left}");
}

#[tokio::test]
async fn an_earlier_copy_of_the_log_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("db");
    filled(directory.path()).await;
    let earlier = std::fs::read(&log).unwrap();
    filled(directory.path()).await;
    std::fs::write(&log, earlier).unwrap();
    let opened = Disk::open(directory.path(), Holds::Records).await;
    assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "{opened:?}");
}

#[tokio::test]
async fn a_shortcut_may_forget() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path()).await;
    cut(directory.path(), 5);
    Disk::open(directory.path(), Holds::Shortcut).await.unwrap();
}

#[tokio::test]
async fn a_job_that_panics_fails_alone() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path()).await;
    let error = disk.commit(|| assert!(std::env::args().next().is_none(), "on purpose")).await.unwrap_err();
    assert!(matches!(error, DiskError::Panicked));
    disk.durable().await.unwrap();
}

#[tokio::test]
async fn a_failed_flush_fails_everything_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path()).await;
    disk.failure.set(DiskError::Failed(Arc::new(sled::Error::Io(io::Error::other("full"))))).unwrap();
    assert!(matches!(disk.durable().await, Err(DiskError::Failed(_))));
    assert!(disk.check().is_err());
}

/// Files beside the log are never synced by sled, so there must be none.
#[tokio::test]
async fn the_largest_records_stay_in_the_file_that_is_synced() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path()).await;
    let tree = disk.tree("t").unwrap();
    disk.commit(move || {
        for n in 0..400_u32 {
            tree.insert((n * 7919 % 401).to_be_bytes(), vec![7; 120 << 10]).unwrap();
        }
    })
    .await
    .unwrap();
    assert_eq!(std::fs::read_dir(directory.path().join("blobs")).unwrap().count(), 0);
}
