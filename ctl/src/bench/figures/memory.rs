//! Memory: ingress with many connections, and a worker after many events.

use std::time::Duration;

use anyhow::{Context, Result};
use wxpay_shared::envelope::Api;

use super::{
    super::{
        Progress, broker,
        process::resident_kib,
        report::{Figure, Target},
        stage::Stage,
        summary::Samples,
    },
    accept, worker,
};

const CONNECTIONS: usize = 2_000;
const INGRESS_KIB: u64 = 64 * 1024;
const WORKER_KIB: u64 = 128 * 1024;
const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn measure(stage: &Stage, progress: &Progress) -> Result<Vec<Figure>> {
    let mut ingress_kib = Samples::default();
    for _ in 0..stage.effort.repetitions {
        progress.step(&format!("ingress, {CONNECTIONS} connections"));
        let ingress = stage.ingress().await?;
        let mut highest = 0;
        let look = async {
            loop {
                highest = highest.max(resident_kib(ingress.pid()));
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            run = accept(stage, &ingress, Api::V2, CONNECTIONS, None) => drop(run?),
            () = look => {}
        }
        ingress_kib.add(highest);
        broker::purge(stage).await?;
    }
    let store = stage.stores.get(1).or(stage.stores.first()).context("no store")?;
    let count = stage.effort.events_for_memory;
    progress.step(&format!("a worker through {count} events"));
    let (url, data) = (store.fresh().await?, stage.fresh_directory()?);
    let drained = worker::applied(stage, store, (&url, &data), &stage.orders(count), &[]).await?;
    let quarters: Vec<String> = drained.resident.iter().map(ToString::to_string).collect();
    let ingress = Figure::new(format!("memory of ingress at {CONNECTIONS} connections"), "KiB", ingress_kib);
    let worker = Samples::from_iter(drained.resident.last().copied());
    let worker = Figure::new(format!("memory of a worker after {count} events, {}", store.name()), "KiB", worker);
    let worker = worker.target(Target::AtMost(WORKER_KIB)).note(format!("by quarters: {}", quarters.join(", ")));
    Ok(vec![ingress.target(Target::AtMost(INGRESS_KIB)), worker])
}
