//! The embedded queue: each reply after fdatasync, against writing and syncing groups of the same size and bytes.

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::Result;
use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wxpay_ingress::Ingress;
use wxpay_shared::{
    clock::SystemClock,
    disk::{Disk, Holds},
    envelope::{Api, Message},
    http,
    merchant::{LiveMerchants, Merchants},
    queue::{PublishError, Publisher, embedded::EmbeddedQueue},
    runtime::FINISH_BUDGET,
};

use super::super::{
    Progress, disk, load,
    report::{Figure, Target},
    stage::Stage,
    summary::{Samples, per_second},
};

const LEAST: u64 = 600;
const CONNECTIONS: [usize; 2] = [1, 64];

/// Ingress in this process, with no worker behind it.
struct Serving {
    port: u16,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    async fn start(stage: &Stage, publisher: Arc<dyn Publisher>) -> Result<Self> {
        let merchants = Arc::new(LiveMerchants::new(Merchants::open(&stage.config)?));
        let ingress = Ingress::new(merchants, Arc::clone(&stage.play.seal), publisher, Arc::new(SystemClock));
        let listener = TcpListener::bind(super::loopback(0)).await?;
        let port = listener.local_addr()?.port();
        let stop = CancellationToken::new();
        let serve = http::serve(listener, wxpay_ingress::router(Arc::new(ingress)), FINISH_BUDGET, stop.clone());
        Ok(Self { port, stop, task: tokio::spawn(serve) })
    }

    /// Accepted a second.
    async fn accept(self, stage: &Stage, connections: usize) -> Result<u64> {
        let requests = super::requests(stage, self.port, Api::V2)?;
        let plan = stage.effort.plan(connections, None);
        let target = load::Target { address: super::loopback(self.port), requests };
        let rate = per_second(load::run(target, plan).await?.accepted, plan.measured);
        self.stop.cancel();
        self.task.await?;
        Ok(rate)
    }
}

/// Keeps nothing: what is left is HTTP and the proof.
struct Nowhere;

#[async_trait]
impl Publisher for Nowhere {
    async fn publish(&self, _: Message) -> Result<(), PublishError> {
        Ok(())
    }

    fn ready(&self) -> Result<(), PublishError> {
        Ok(())
    }
}

/// Accepted a second in front of the embedded queue in this directory, and how many of them shared a sync.
pub(super) async fn accept(stage: &Stage, data: &Path, connections: usize) -> Result<(u64, u64)> {
    let disk = Disk::open(data, Holds::Records).await?;
    let queue = EmbeddedQueue::open(disk.clone(), stage.config.queue_settings(), Arc::new(SystemClock)).await?;
    let serving = Serving::start(stage, Arc::new(queue)).await?;
    let (before, begun) = (disk.syncs(), Instant::now());
    let rate = serving.accept(stage, connections).await?;
    let in_all = rate * u64::try_from(begun.elapsed().as_millis())? / 1000;
    let group = (in_all / (disk.syncs() - before).max(1)).max(1);
    disk.close().await?;
    Ok((rate, group))
}

pub(crate) async fn measure(stage: &Stage, progress: &Progress) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let orders = stage.orders(1);
    let message = stage.play.message(&orders, 0);
    let bytes =
        message.body.len() + message.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    for connections in CONNECTIONS {
        let (mut accepted, mut synced, mut groups) = (Samples::default(), Samples::default(), Samples::default());
        let (mut unkept, mut committed) = (Samples::default(), Samples::default());
        for _ in 0..stage.effort.repetitions {
            progress.step(&format!("embedded queue, {connections} connections"));
            let data = stage.fresh_directory()?;
            let (rate, group) = accept(stage, &data, connections).await?;
            std::fs::remove_dir_all(&data)?;
            accepted.add(rate);
            groups.add(group);
            progress.step(&format!("writes and syncs in groups of {group}"));
            let (directory, measured) = (stage.directory.path().to_owned(), stage.effort.measured);
            let write = move || disk::synced_writes(&directory, bytes, group, measured);
            synced.add(tokio::task::spawn_blocking(write).await??);
            progress.step("sled alone");
            committed.add(disk::commits(&stage.fresh_directory()?, bytes, connections, measured).await?);
            progress.step("HTTP and proof alone");
            unkept.add(Serving::start(stage, Arc::new(Nowhere)).await?.accept(stage, connections).await?);
        }
        let figure = Figure::new(format!("accepted, embedded queue, {connections} connections"), "/s", accepted);
        let figure = figure.against("write and fdatasync in groups of the same size", &synced);
        let figure = figure.target(Target::RatioAtLeast(LEAST)).note(format!("groups of about {}", groups.median()));
        let figure = figure.note(format!(
            "the same bytes into sled, synced, without HTTP and proof {}/s; HTTP and proof without sled {}/s",
            committed.median(),
            unkept.median()
        ));
        figures
            .push(figure.bounded_by("sled waits for the disk twice for each write, and HTTP and proof want the CPU"));
    }
    Ok(figures)
}
