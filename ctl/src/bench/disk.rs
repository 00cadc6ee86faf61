//! The disk without our programs: what embedded queue and store are held against.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use sled::{Batch, IVec};
use wxpay_shared::disk::{Disk, Holds};

use super::summary::per_second;

/// The trees of the embedded store.
const STORE_TREES: [&str; 5] = ["store.orders", "store.facts", "store.accounts", "store.ledger", "store.order_ledger"];

/// Messages a second if each group of so many is written to a file and synced, one group after the other.
pub(super) fn synced_writes(directory: &Path, message_bytes: usize, group: u64, measured: Duration) -> Result<u64> {
    let path = directory.join("synced-writes");
    let mut file = File::create(&path).with_context(|| path.display().to_string())?;
    let block = vec![b'x'; message_bytes.saturating_mul(usize::try_from(group)?)];
    let (begun, mut groups) = (Instant::now(), 0);
    while begun.elapsed() < measured {
        file.write_all(&block)?;
        file.sync_data()?;
        groups += 1;
    }
    let rate = per_second(groups * group, begun.elapsed());
    std::fs::remove_file(&path)?;
    Ok(rate)
}

/// Records of so many bytes a second that sled takes, each synced before the next one of the same of `at_a_time` tasks.
pub(super) async fn commits(directory: &Path, bytes: usize, at_a_time: usize, measured: Duration) -> Result<u64> {
    let disk = Disk::open(directory, Holds::Records).await?;
    let tree = disk.tree("commits")?;
    let (begun, next) = (Instant::now(), AtomicU64::new(0));
    let task = async || {
        while begun.elapsed() < measured {
            let (tree, key) = (tree.clone(), next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            disk.commit(move || tree.insert(key, vec![b'x'; bytes]).map(drop)).await??;
        }
        Ok::<_, anyhow::Error>(())
    };
    try_join_all((0..at_a_time).map(|_| task())).await?;
    let rate = per_second(next.into_inner(), begun.elapsed());
    drop(tree);
    disk.close().await?;
    std::fs::remove_dir_all(directory)?;
    Ok(rate)
}

/// The records of a store, by tree.
pub(super) struct Records(Vec<(&'static str, Vec<(IVec, IVec)>)>);

impl Records {
    /// All records of the embedded store in this directory.
    pub(super) async fn read(directory: &Path) -> Result<Self> {
        let disk = Disk::open(directory, Holds::Records).await?;
        let mut trees = Vec::new();
        for name in STORE_TREES {
            trees.push((name, disk.tree(name)?.iter().collect::<sled::Result<_>>()?));
        }
        disk.close().await?;
        Ok(Self(trees))
    }

    pub(super) fn bytes(&self) -> u64 {
        let records = self.0.iter().flat_map(|(_, records)| records);
        records.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    /// Events a second if the records of so many events are written in batches, each batch followed by flush and
    /// fdatasync, with so many batches at the same time.
    pub(super) async fn write(&self, directory: &Path, events: u64, batch: u64, at_a_time: usize) -> Result<u64> {
        let disk = Disk::open(directory, Holds::Records).await?;
        let parts = usize::try_from(events.div_ceil(batch))?;
        let mut jobs = Vec::with_capacity(parts);
        for part in 0..parts {
            let mut writes = Vec::new();
            for (name, records) in &self.0 {
                let mut batch = Batch::default();
                let of_part = records.len() * part / parts..records.len() * (part + 1) / parts;
                records[of_part].iter().for_each(|(key, value)| batch.insert(key, value));
                writes.push((disk.tree(name)?, batch));
            }
            jobs.push(writes);
        }
        let begun = Instant::now();
        let commits = jobs.into_iter().map(|writes| {
            disk.commit(move || writes.into_iter().try_for_each(|(tree, batch)| tree.apply_batch(batch)))
        });
        let mut commits = stream::iter(commits).buffer_unordered(at_a_time);
        while let Some(written) = commits.try_next().await? {
            written?;
        }
        let rate = per_second(events, begun.elapsed());
        drop(commits);
        disk.close().await?;
        Ok(rate)
    }
}
