//! What one worker applies in a second: by batches against one by one, the embedded store against sled's own writes,
//! and repeats against what is new.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use secrecy::SecretString;
use tokio::time::Instant;

use super::{
    super::{
        Progress, broker, disk,
        notices::Orders,
        process,
        report::{Figure, Target},
        stage::{Program, Stage, Store},
        summary::{Samples, per_second},
    },
    broker_pid, costs, micros, register,
};

const BATCH_TO_ONE: u64 = 6_000;
const STORE_TO_SLED: u64 = 500;
const REPEATS_TO_APPLIED: u64 = 2_000;
/// As the worker's own defaults.
const BATCH: u64 = 64;
const BATCHES_AT_A_TIME: usize = 4;
/// How often the worker is asked how far it is.
const LOOK: Duration = Duration::from_millis(10);
/// Without any progress for so long, it will not come.
const STALLED: Duration = Duration::from_secs(30);

/// One worker's way through a full queue.
pub(super) struct Drained {
    pub(super) rate: u64,
    /// CPU time for one notification, in nanoseconds: worker, broker, the store's server.
    pub(super) cost: [u64; 3],
    /// Bytes written to the disk for one notification, by the same.
    written: [u64; 3],
    /// The worker's memory in KiB at each quarter of the way.
    pub(super) resident: Vec<u64>,
    /// When everything was seen to be applied.
    ended: Instant,
}

impl Drained {
    fn cost_note(&self) -> String {
        let [worker, broker, store] = self.cost.map(micros);
        let [by_worker, by_broker, by_store] = self.written;
        format!(
            "CPU µs each: worker {worker}, broker {broker}, store's server {store}; bytes written each: {by_worker}, \
             {by_broker}, {by_store}"
        )
    }
}

/// Starts a worker on a full queue, and watches until so many were applied.
async fn drain(
    stage: &Stage,
    store: &Store,
    (url, data): (&SecretString, &Path),
    count: u64,
    settings: &[(&str, &str)],
) -> Result<(Drained, Program)> {
    let servers = [broker_pid(stage), store.pid()];
    let cpu = |part: Option<u32>| part.map(process::cpu_of_tree).unwrap_or_default();
    let wrote = |part: Option<u32>| part.map(process::written_by_tree).unwrap_or_default();
    let parts = |worker: Option<u32>| [worker, servers[0], servers[1]];
    let before = (parts(None).map(cpu), parts(None).map(wrote));
    let worker = stage.worker(url, data, settings).await?;
    let Watched { rate, resident, ended } = watch(&worker, count, "applied", None).await?;
    let after = (parts(Some(worker.pid())).map(cpu), parts(Some(worker.pid())).map(wrote));
    let cost = costs(before.0, after.0, count);
    let written =
        [0, 1, 2].map(|part| after.1[part].saturating_sub(before.1[part]).checked_div(count).unwrap_or_default());
    Ok((Drained { rate, cost, written, resident, ended }, worker))
}

/// What was seen of a worker.
struct Watched {
    rate: u64,
    resident: Vec<u64>,
    ended: Instant,
}

/// Looks on until so many deliveries ended in this way. The rate is that since the worker began with them, or, where that
/// is not known, between the first look that saw any and the last; where one look sees all, that since the call.
async fn watch(worker: &Program, count: u64, outcome: &str, begun: Option<Instant>) -> Result<Watched> {
    let (mut first, mut last) = (begun.map(|begun| (begun, 0)), (Instant::now(), 0));
    let mut resident = Vec::new();
    loop {
        let done = worker.count(outcome).await?;
        let now = Instant::now();
        if done > last.1 {
            first.get_or_insert(if done >= count { last } else { (now, done) });
            last = (now, done);
        } else if now - last.0 > STALLED {
            bail!("the worker stopped at {done} of {count} ({outcome})");
        }
        while resident.len() < 4 && done >= count * (resident.len() as u64 + 1) / 4 {
            resident.push(process::resident_kib(worker.pid()));
        }
        if done >= count {
            let (begun, before) = first.context("nothing was counted")?;
            return Ok(Watched { rate: per_second(done - before, now - begun), resident, ended: now });
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[derive(Default)]
struct Rows {
    batches: Samples,
    one_by_one: Samples,
    repeats: Samples,
    sled: Samples,
    note: String,
    bytes: u64,
}

pub(crate) async fn measure(stage: &Stage, progress: &Progress) -> Result<Vec<Figure>> {
    let mut rows: Vec<Rows> = stage.stores.iter().map(|_| Rows::default()).collect();
    for _ in 0..stage.effort.repetitions {
        for (store, rows) in stage.stores.iter().zip(&mut rows) {
            repetition(stage, progress, store, rows).await?;
        }
    }
    let figures = stage.stores.iter().zip(rows).flat_map(|(store, rows)| figures(store, rows));
    Ok(figures.collect())
}

async fn repetition(stage: &Stage, progress: &Progress, store: &Store, rows: &mut Rows) -> Result<()> {
    let (many, few) = (stage.orders(stage.effort.events), stage.orders(stage.effort.events_one_by_one));
    let data = stage.fresh_directory()?;
    let url = store.fresh().await?;
    progress.step(&format!("{}: a worker by batches", store.name()));
    register(stage, &url, &data, &many).await?;
    broker::fill(stage, &many).await?;
    // Their repeats, for the same worker: what its shortcut knows, it knows until its end.
    broker::fill(stage, &many).await?;
    let (drained, worker) = drain(stage, store, (&url, &data), many.numbers.end, &[]).await?;
    rows.batches.add(drained.rate);
    rows.note = drained.cost_note();
    progress.step(&format!("{}: repeats", store.name()));
    // The worker began with them when it had applied the payments, and few may be left by now.
    rows.repeats.add(watch(&worker, many.numbers.end, "duplicate", Some(drained.ended)).await?.rate);
    drop(worker);

    if matches!(store, Store::Embedded) {
        progress.step("sled's own writes");
        let records = disk::Records::read(&data).await?;
        rows.bytes = records.bytes() / many.numbers.end;
        let other = stage.fresh_directory()?;
        rows.sled.add(records.write(&other, many.numbers.end, BATCH, BATCHES_AT_A_TIME).await?);
        std::fs::remove_dir_all(&other)?;
    }
    progress.step(&format!("{}: a worker one by one", store.name()));
    let one = [("WXPAY__WORKER__BATCH", "1")];
    rows.one_by_one.add(applied(stage, store, (&url, &data), &few, &one).await?.rate);
    std::fs::remove_dir_all(&data)?;
    Ok(())
}

/// Registers orders, fills the queue with their payments, and lets a worker apply them.
pub(super) async fn applied(
    stage: &Stage,
    store: &Store,
    (url, data): (&SecretString, &Path),
    orders: &Orders,
    settings: &[(&str, &str)],
) -> Result<Drained> {
    register(stage, url, data, orders).await?;
    broker::fill(stage, orders).await?;
    let count = orders.numbers.end - orders.numbers.start;
    Ok(drain(stage, store, (url, data), count, settings).await?.0)
}

fn figures(store: &Store, rows: Rows) -> Vec<Figure> {
    let name = store.name();
    let repeats = Figure::new(format!("repeats answered, {name}"), "/s", rows.repeats);
    let repeats = repeats.against("applied by batches", &rows.batches).target(Target::RatioAtLeast(REPEATS_TO_APPLIED));
    let mut figures = Vec::new();
    if matches!(store, Store::Embedded) {
        let figure = Figure::new(format!("applied by one worker, {name}, durable"), "/s", rows.batches.clone());
        let figure = figure.against(format!("sled's batch write and fdatasync, {} bytes each", rows.bytes), &rows.sled);
        figures.push(figure.target(Target::RatioAtLeast(STORE_TO_SLED)).note(rows.note));
        let figure = Figure::new(format!("applied by one worker, {name}, by batches"), "/s", rows.batches);
        figures.push(figure.against("batch = 1", &rows.one_by_one));
    } else {
        let figure = Figure::new(format!("applied by one worker, {name}, by batches"), "/s", rows.batches);
        let figure = figure.against("one statement a message, batch = 1", &rows.one_by_one);
        figures.push(figure.target(Target::RatioAtLeast(BATCH_TO_ONE)).note(rows.note));
    }
    figures.push(repeats);
    figures
}
